//! What an answer tells a session, for its leases: a lease on an inode covers its attributes, its contents, and the
//! names in it.

use chordfs_tables::Tables;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Change, DirEntry, Ino, Query, Reply},
};

/// What an answer tells a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Inodes of which it tells attributes, contents, or names in them.
    pub inos: Vec<Ino>,
    /// Inodes that the session has created under numbers of its own.
    pub created: Vec<Ino>,
    /// Inodes that the session has named as open.
    pub open: Vec<Ino>,
}

impl Told {
    /// `None` for a query whose answer no session remembers.
    ///
    /// Extents are not counted: a mount asks for them while its kernel holds locks of pages, and must not wait then for
    /// another mount's kernel. It remembers them under the lease that the opening of the file was granted, also an
    /// opening in advance (`OpenEntries`).
    pub(super) fn by_query(tables: &Tables, query: &Query, answer: &Result<Answer, FsError>) -> Option<Self> {
        let mut inos = match query {
            // A mount that is alone with the file hands its locks over first.
            Query::Lookup { parent: ino, .. }
            | Query::ReadDir { ino, .. }
            | Query::OpenEntries { ino, .. }
            | Query::Locks { ino } => vec![*ino],
            Query::Resolve { path } => tables.along(path),
            Query::GetAttr { .. } | Query::Open { .. } | Query::Xattrs { .. } => Vec::new(),
            _ => return None,
        };
        match answer {
            Ok(Answer::Attr(attr) | Answer::Open { attr, .. } | Answer::Xattrs { attr, .. }) => inos.push(attr.ino),
            Ok(Answer::Entries { entries, .. }) => inos.extend(entries.iter().map(inode_of)),
            Ok(Answer::OpenedEntries { entries, .. }) => {
                inos.extend(entries.iter().map(|opened| inode_of(&opened.entry)));
            }
            _ => {}
        }
        Some(Self { inos, ..Self::default() })
    }

    /// All inodes that it names.
    pub(super) fn named(&self) -> Vec<Ino> {
        [&self.inos[..], &self.created, &self.open].concat()
    }

    /// Adds the inode that the reply to a change describes, beside those of the change's events.
    pub(super) fn add_reply(&mut self, change: &Change, reply: &Result<Reply, FsError>) {
        match (change, reply) {
            (Change::MakeNumbered { ino, .. }, Ok(_)) => self.created.push(*ino),
            (Change::HoldOrphans { inos }, _) => self.open.extend(inos),
            (_, Ok(Reply::Entry { attr, .. } | Reply::Attr(attr) | Reply::Removed { attr: Some(attr) })) => {
                self.inos.push(attr.ino);
            }
            _ => {}
        }
    }
}

fn inode_of(entry: &DirEntry) -> Ino {
    entry.attr.ino
}
