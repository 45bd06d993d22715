//! The namespace as a value: every table, and the one function that changes them.
//!
//! Each replica applies the same operations in the same order and must come to the same tables and replies, so nothing
//! here looks at a clock, a random number or the outside. A refused operation changes nothing: every change validates
//! first and mutates afterwards. The tables share their structure with their clones, so a clone is a snapshot at the cost
//! of a few counters.
//!
//! One file per family of operations. Who may do what is checked by the kernels (`default_permissions`), who leads and
//! how an operation gets here is the business of Raft beside this.
#![deny(clippy::disallowed_methods)]

mod attributes;
mod buried;
mod entries;
mod extents;
mod leap;
mod links;
mod map;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_test;
mod orphans;
mod query;
mod rename;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use chordfs_types::{
    chunk::{FileName, MAX_FILE_NAME_BYTES, NameError, Version},
    fs_error::FsError,
    namespace::{Attr, Change, EntryName, FeedEvent, FileKind, Ino, NamespaceOp, Reply, SessionId, Time},
};
use extents::{ChunkAt, Dead, Run, Use};
use imbl::OrdMap;
pub use leap::Leap;
use leap::Skipped;
use orphans::Orphan;
use serde::{Deserialize, Serialize};
use sessions::Session;

/// Versions that come with a new session.
pub const SESSION_VERSIONS: u32 = 4096;
/// Most names of one inode, and most subdirectories of one directory.
pub const MAX_LINKS: u32 = i32::MAX as u32;

/// All of the namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    #[serde(with = "map")]
    inodes: OrdMap<Ino, Arc<Inode>>,
    #[serde(with = "map")]
    entries: OrdMap<Place, Ino>,
    #[serde(with = "map")]
    extents: OrdMap<ChunkAt, Run>,
    /// Where a version is current; absent means nowhere.
    #[serde(with = "map")]
    versions: OrdMap<Version, Use>,
    /// Files without a name.
    #[serde(with = "map")]
    orphans: OrdMap<Ino, Orphan>,
    /// Those of them that nobody holds, by the time since when.
    #[serde(with = "map")]
    unheld: OrdMap<(Time, Ino), ()>,
    #[serde(with = "map")]
    dead: OrdMap<u64, Dead>,
    /// The same by version.
    #[serde(with = "map")]
    dead_versions: OrdMap<(Version, u64), ()>,
    /// Versions of orphans, and when they were buried.
    #[serde(with = "map")]
    closed: OrdMap<Version, Time>,
    #[serde(with = "map")]
    sessions: OrdMap<SessionId, Arc<Session>>,
    #[serde(with = "map")]
    nonces: OrdMap<u64, SessionId>,
    next: Counters,
    /// Space of all current chunks, each counted whole.
    stored_bytes: u64,
    #[serde(deserialize_with = "leap::if_there")]
    skipped: Vec<Skipped>,
}

/// What one operation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub reply: Result<Reply, FsError>,
    /// For the other sessions; empty when nothing changed.
    pub feed: Vec<FeedEvent>,
    /// The session that caused it.
    pub origin: Option<SessionId>,
}

impl Tables {
    /// A root directory and nothing else.
    pub fn new() -> Self {
        let root = Inode { attr: root_attr(), body: Body::Directory { up: None } };
        Self {
            inodes: OrdMap::unit(Ino::ROOT, Arc::new(root)),
            entries: OrdMap::new(),
            extents: OrdMap::new(),
            versions: OrdMap::new(),
            orphans: OrdMap::new(),
            unheld: OrdMap::new(),
            dead: OrdMap::new(),
            dead_versions: OrdMap::new(),
            closed: OrdMap::new(),
            sessions: OrdMap::new(),
            nonces: OrdMap::new(),
            next: Counters { ino: Ino::ROOT.0 + 1, session: 1, version: 1, dead: 1 },
            stored_bytes: 0,
            skipped: Vec::new(),
        }
    }

    /// Applies one logged operation. `index` is its place in the log; later operations have a larger one.
    ///
    /// `logged` is the time its leader saw: grace periods count from it. Files get the operation's own time.
    ///
    /// An operation of a session is applied once: sent again it gets the reply it got, also where that was an error.
    pub fn apply(&mut self, index: u64, logged: Time, op: &NamespaceOp) -> Applied {
        let origin = op.origin.map(|id| id.session);
        if let Some(reply) = op.origin.and_then(|id| self.answered(id)) {
            return Applied { reply, feed: Vec::new(), origin };
        }
        let mut step = Step { tables: self, index, logged, now: op.now, session: origin, feed: Vec::new() };
        let reply = step.change(&op.change);
        let feed = step.feed;
        if let Some(id) = op.origin {
            self.remember(id, &reply);
        }
        Applied { reply, feed, origin }
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, FsError> {
        self.inodes.get(&ino).map(Arc::as_ref).ok_or(FsError::Stale { ino })
    }

    /// A directory in which to look for or put names. One that is gone holds none: `NoEntry`.
    fn directory(&self, ino: Ino) -> Result<&Inode, FsError> {
        let inode = self.inodes.get(&ino).ok_or(FsError::NoEntry)?;
        if inode.is_directory() { Ok(inode) } else { Err(FsError::NotDirectory) }
    }

    fn file(&self, ino: Ino) -> Result<&Attr, FsError> {
        let attr = &self.inode(ino)?.attr;
        match attr.kind {
            FileKind::File => Ok(attr),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(invalid("only files have contents")),
        }
    }

    /// What stands at a name; the directory is known to be one.
    fn entry(&self, parent: Ino, name: &EntryName) -> Option<&Inode> {
        let ino = self.entries.get(&Place { parent, name: name.clone() })?;
        self.inodes.get(ino).map(Arc::as_ref)
    }

    fn children(&self, parent: Ino, after: Option<&EntryName>) -> impl Iterator<Item = (&EntryName, &Inode)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match after {
            Some(name) => Excluded(Place { parent, name: name.clone() }),
            None => Included(Place { parent, name: first_name() }),
        };
        let entries = self.entries.range::<_, Place>((start, Unbounded));
        entries
            .take_while(move |(place, _)| place.parent == parent)
            .filter_map(|(place, ino)| Some((&place.name, self.inodes.get(ino)?.as_ref())))
    }

    fn is_empty(&self, directory: Ino) -> bool {
        self.children(directory, None).next().is_none()
    }

    /// The directories above `directory`, itself first, the root last.
    fn upwards(&self, directory: Ino) -> impl Iterator<Item = &Inode> {
        std::iter::successors(self.inodes.get(&directory), |inode| self.inodes.get(&inode.up()?.0)).map(Arc::as_ref)
    }

    /// NAME of something created here now.
    fn path_of(&self, parent: Ino, name: &EntryName) -> Result<FileName, FsError> {
        let mut parts = vec![name.as_bytes()];
        let mut len = name.as_bytes().len();
        for (_, name) in self.upwards(parent).filter_map(Inode::up) {
            len += name.as_bytes().len() + 1;
            if len > MAX_FILE_NAME_BYTES {
                return Err(FsError::Name(NameError::TooLong { len, limit: MAX_FILE_NAME_BYTES }));
            }
            parts.push(name.as_bytes());
        }
        parts.reverse();
        FileName::new(parts.join(&b'/')).map_err(FsError::Name)
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inode {
    attr: Attr,
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Body {
    /// Files have their extents in a table of their own; the rest has nothing.
    Plain,
    /// Where it hangs: what `..` means, and its name there. The root hangs nowhere.
    Directory {
        up: Option<(Ino, EntryName)>,
    },
    Symlink {
        target: Bytes,
    },
}

impl Inode {
    fn is_directory(&self) -> bool {
        self.attr.kind == FileKind::Directory
    }

    fn up(&self) -> Option<&(Ino, EntryName)> {
        match &self.body {
            Body::Directory { up } => up.as_ref(),
            _ => None,
        }
    }

    /// What `..` means here; the root is above itself.
    fn parent(&self) -> Ino {
        self.up().map_or(Ino::ROOT, |(parent, _)| *parent)
    }
}

/// A name's place: the entries of a directory lie together, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    parent: Ino,
    name: EntryName,
}

/// The next number of each kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counters {
    ino: u64,
    session: u64,
    version: u64,
    dead: u64,
}

/// One operation while it is applied.
struct Step<'a> {
    tables: &'a mut Tables,
    index: u64,
    logged: Time,
    now: Time,
    session: Option<SessionId>,
    feed: Vec<FeedEvent>,
}

impl Step<'_> {
    fn change(&mut self, change: &Change) -> Result<Reply, FsError> {
        match change {
            Change::OpenSession { nonce, client } => self.open_session(*nonce, client),
            Change::CloseSession { session } => self.close_session(*session),
            Change::AllocateVersions { count } => self.allocate(*count).map(Reply::Versions),
            Change::Make { parent, name, node, exclusive } => self.make(*parent, name, node, *exclusive),
            Change::MakeUnnamed { file, node } => self.make_unnamed(file, node),
            Change::Publish { ino, parent, name } => self.publish(*ino, *parent, name),
            Change::Link { ino, parent, name } => self.link(*ino, *parent, name),
            Change::Unlink { parent, name, hold } => self.unlink(*parent, name, *hold),
            Change::Rmdir { parent, name } => self.rmdir(*parent, name),
            Change::Rename { parent, name, new_parent, new_name, mode, hold } => {
                self.rename((*parent, name), (*new_parent, new_name), *mode, *hold)
            }
            Change::SetAttr { ino, set } => self.set_attr(*ino, set),
            Change::Commit { ino, commit } => self.commit(*ino, commit),
            Change::Hold { ino } => self.hold_orphan(*ino),
            Change::Release { inos } => self.release_orphans(inos),
            Change::PurgeOrphans { before, limit } => self.purge_orphans(*before, *limit),
            Change::ForgetDead { ids } => self.forget_dead(ids),
            Change::BuryOrphans { runs } => self.bury_orphans(runs),
        }
    }

    /// Changes an inode's attributes: ctime, the change counter and the feed go with it. Returns them as they are then.
    fn edit(&mut self, ino: Ino, edit: impl FnOnce(&mut Inode)) -> Attr {
        let first = self.tell_inode(ino, false);
        let inode = self.tables.inodes.get_mut(&ino).expect("the caller has looked the inode up");
        let inode = Arc::make_mut(inode);
        inode.attr.ctime = self.now;
        if first {
            inode.attr.change = self.index.max(inode.attr.change + 1);
        }
        edit(inode);
        inode.attr.clone()
    }

    /// A directory's entries have changed.
    fn touch_directory(&mut self, ino: Ino) {
        let now = self.now;
        self.edit(ino, |inode| inode.attr.mtime = now);
    }

    /// One event per inode is enough; that the contents changed says more than that something did. Whether it is the
    /// first of this step.
    fn tell_inode(&mut self, ino: Ino, contents: bool) -> bool {
        let told = self.feed.iter_mut().find_map(|event| match event {
            FeedEvent::Inode { ino: told, contents } if *told == ino => Some(contents),
            _ => None,
        });
        if let Some(told) = told {
            *told |= contents;
            return false;
        }
        self.feed.push(FeedEvent::Inode { ino, contents });
        true
    }

    fn tell_entry(&mut self, parent: Ino, name: &EntryName) {
        let event = FeedEvent::Entry { parent, name: name.clone() };
        if !self.feed.contains(&event) {
            self.feed.push(event);
        }
    }

    /// For what makes sense only for a session.
    fn asker(&self) -> Result<SessionId, FsError> {
        self.session.ok_or_else(|| invalid("this change needs a session to belong to"))
    }
}

fn invalid(reason: impl Into<String>) -> FsError {
    FsError::Invalid { reason: reason.into() }
}

/// Not after any other name: names are not empty and hold no NUL.
fn first_name() -> EntryName {
    EntryName::new(Bytes::from_static(&[1])).expect("one byte that is no NUL, slash or dot")
}

fn root_attr() -> Attr {
    Attr {
        ino: Ino::ROOT,
        kind: FileKind::Directory,
        mode: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        chunk_bytes: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        change: 0,
        file: FileName::new(Bytes::from_static(b"/")).expect("one byte that is no NUL"),
    }
}
