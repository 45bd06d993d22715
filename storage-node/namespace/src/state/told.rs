//! What an answer tells a session, for its leases: a lease on an inode covers its attributes, its contents, and the
//! names in it.

use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, DirEntry, Ino, Query, Reply},
};

use super::lease_book::Told;

impl Told {
    /// `None` for a query whose answer no session remembers.
    ///
    /// Extents are not counted: a mount asks for them while its kernel holds locks of pages, and must not wait then for
    /// another mount's kernel. It remembers them under the lease that the opening of the file was granted.
    pub(super) fn by_query(query: &Query, answer: &Result<Answer, FsError>) -> Option<Self> {
        let directories = match query {
            Query::Lookup { parent: ino, .. } | Query::ReadDir { ino, .. } => vec![*ino],
            Query::GetAttr { .. } | Query::Open { .. } => Vec::new(),
            _ => return None,
        };
        let inos = match answer {
            Ok(Answer::Attr(attr) | Answer::Open { attr, .. }) => vec![attr.ino],
            Ok(Answer::Entries { entries, .. }) => entries.iter().map(inode_of).collect(),
            _ => Vec::new(),
        };
        Some(Self { inos, directories })
    }

    /// The inode that a reply describes, beside those of the change's events.
    pub(super) fn by_reply(reply: &Result<Reply, FsError>) -> Self {
        let described = match reply {
            Ok(Reply::Entry { attr, .. } | Reply::Attr(attr) | Reply::Removed { attr: Some(attr) }) => Some(attr),
            _ => None,
        };
        Self { inos: described.map(|attr: &Attr| attr.ino).into_iter().collect(), directories: Vec::new() }
    }
}

fn inode_of(entry: &DirEntry) -> Ino {
    entry.attr.ino
}
