//! The namespace as a value: every table, and the one function that changes them.
//!
//! Each replica applies the same operations in the same order and must reach the same tables and replies, so nothing
//! here reads a clock, a random number or anything outside. A refused operation changes nothing: every change validates
//! first and mutates afterwards. The tables share their structure with their clones, so a clone is a snapshot at the
//! cost of a few counters.
//!
//! There is one file per family of operations. The kernels check permissions (`default_permissions`), except for
//! clients on whose machines root has no power (`squash`). `chordfs-namespace` elects the leader and delivers the
//! operations.
#![deny(clippy::disallowed_methods)]

mod acl;
mod affected;
mod attributes;
mod clones;
mod config;
mod detached;
mod discard;
mod entries;
mod extents;
mod format_10;
mod format_11;
mod format_12;
mod format_13;
mod format_8;
mod format_9;
mod id_jump;
mod identities;
mod links;
mod lock_set;
mod locks;
mod logged_chunks;
mod map;
mod numbers;
mod operator_tokens;
mod orphan_chunks;
mod orphan_inodes;
mod parents;
mod partial;
mod permissions;
mod pool_size;
mod query;
mod rename;
mod retired;
mod segments;
mod sessions;
mod squash;
#[cfg(test)]
mod tests;
mod work;
mod xattrs;

use std::sync::Arc;

pub use affected::{inodes_of, names_of};
use bytes::Bytes;
use chordfs_types::{
    chunk::{FileName, MAX_FILE_NAME_BYTES, Version},
    fs_error::FsError,
    identity::IdentityId,
    namespace::{
        AcceptedToken, Attr, Change, EntryName, FeedEvent, FileKind, Ino, InodeFlags, NamespaceOp, PoolSize, Reply,
        SessionId, Time, Xattrs,
    },
    ring_config::RingConfig,
};
use clones::{CloneSource, Clones};
use detached::{DetachedContents, DetachedKey, EndedHolds};
use extents::{DeadRun, ExtentKey, ExtentValue, VersionUse};
pub use format_8::{ConfigOfFormat8, TablesOfFormat8};
pub use format_9::TablesOfFormat9;
pub use format_10::TablesOfFormat10;
pub use format_11::TablesOfFormat11;
pub use format_12::TablesOfFormat12;
pub use format_13::TablesOfFormat13;
pub use id_jump::IdJump;
use id_jump::SkippedRange;
use identities::Identities;
use imbl::OrdMap;
pub use lock_set::InodeLocks;
use logged_chunks::LoggedChunks;
use numbers::ChosenNumber;
use orphan_inodes::OrphanInode;
pub use parents::BoundView;
use parents::NameCounts;
use serde::{Deserialize, Serialize};
pub use sessions::SessionDescription;
use sessions::SessionRecord;
pub use squash::SquashedView;

/// How many versions a new session is given.
pub const SESSION_VERSIONS: u32 = 4096;
/// The largest number of names of one inode, and of subdirectories of one directory.
pub const MAX_LINKS: u32 = i32::MAX as u32;

/// All tables of the namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    #[serde(with = "map")]
    inodes: OrdMap<Ino, Arc<Inode>>,
    #[serde(with = "map")]
    entries: OrdMap<DentryKey, Ino>,
    #[serde(with = "map")]
    extents: OrdMap<ExtentKey, ExtentValue>,
    /// The inode in which a version is current; a version that is absent is current nowhere.
    #[serde(with = "map")]
    versions: OrdMap<Version, VersionUse>,
    /// Files without a name, by inode.
    #[serde(with = "map")]
    orphans: OrdMap<Ino, OrphanInode>,
    /// The orphans that no session holds, by the place in the log since which they have been unheld.
    #[serde(with = "map")]
    unheld: OrdMap<(u64, Ino), ()>,
    #[serde(with = "map")]
    dead: OrdMap<u64, DeadRun>,
    /// An index of `dead` by version and first chunk.
    #[serde(with = "map")]
    dead_versions: OrdMap<(Version, u32), u64>,
    /// Ranges of versions that can never become current again, from the first to the last.
    #[serde(with = "map")]
    retired_versions: OrdMap<Version, Version>,
    #[serde(with = "map")]
    sessions: OrdMap<SessionId, Arc<SessionRecord>>,
    #[serde(with = "map")]
    nonces: OrdMap<u64, SessionId>,
    /// The segments of files whose extents are not all under the file's own number: from which chunk on they are where.
    #[serde(with = "map")]
    places: OrdMap<(Ino, u32), Ino>,
    /// Contents that are still to be taken apart.
    #[serde(with = "map")]
    detached: OrdMap<DetachedKey, DetachedContents>,
    #[serde(with = "map")]
    ended: OrdMap<SessionId, EndedHolds>,
    next: Counters,
    /// Space of all current chunks, each counted whole.
    stored_bytes: u64,
    skipped: Vec<SkippedRange>,
    config: RingConfig,
    #[serde(with = "map")]
    operator_tokens: OrdMap<u64, AcceptedToken>,
    pool_size: Arc<PoolSize>,
    logged_chunks: LoggedChunks,
    identities: Identities,
    /// The identities that opened sessions, and so may act in them.
    #[serde(with = "map")]
    session_owners: OrdMap<SessionId, IdentityId>,
    #[serde(with = "map")]
    name_counts: NameCounts,
    /// Only inodes that have any.
    #[serde(with = "map")]
    xattrs: OrdMap<Ino, Arc<Xattrs>>,
    /// Only inodes on which somebody holds a lock or waits for one.
    #[serde(with = "map")]
    locks: OrdMap<Ino, Arc<InodeLocks>>,
    clones: Clones,
}

/// The result of applying one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedOp {
    pub reply: Result<Reply, FsError>,
    /// Events for the other sessions; empty when nothing changed.
    pub feed: Vec<FeedEvent>,
    /// The session that issued the operation.
    pub origin: Option<SessionId>,
    /// The operation was applied before, and this is its reply of then.
    pub repeated: bool,
}

impl Tables {
    /// Creates tables that hold a root directory and nothing else.
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
            retired_versions: OrdMap::new(),
            sessions: OrdMap::new(),
            nonces: OrdMap::new(),
            places: OrdMap::new(),
            detached: OrdMap::new(),
            ended: OrdMap::new(),
            next: Counters { ino: Ino::ROOT.0 + 1, session: 1, version: 1, dead: 1, place: segments::FIRST_PLACE },
            stored_bytes: 0,
            skipped: Vec::new(),
            config: RingConfig::default(),
            operator_tokens: OrdMap::new(),
            pool_size: Arc::default(),
            logged_chunks: LoggedChunks::default(),
            identities: Identities::default(),
            session_owners: OrdMap::new(),
            name_counts: OrdMap::new(),
            xattrs: OrdMap::new(),
            locks: OrdMap::new(),
            clones: Clones::default(),
        }
    }

    /// Applies one logged operation. `index` is its place in the log; later operations have a larger one.
    ///
    /// `logged` is the leader's time when it logged the operation: what is kept for days counts from it. Grace periods
    /// of seconds count from `index`, because the clocks of two leaders may differ by more. Times of files are the
    /// operation's own time.
    ///
    /// A session's operation is applied once: if it is sent again, the reply is the first one, even an error.
    pub fn apply(&mut self, index: u64, logged: Time, op: &NamespaceOp) -> AppliedOp {
        let origin = op.origin.map(|id| id.session);
        if let Some(reply) = op.origin.and_then(|id| self.answered(id)) {
            return AppliedOp { reply, feed: Vec::new(), origin, repeated: true };
        }
        let squashed = origin.and_then(|session| self.squashed_owner(session));
        if let Some(Err(refusal)) = squashed.as_ref().map(|owner| self.check_squashed(owner, &op.change)) {
            let reply = Err(refusal);
            op.origin.inspect(|id| self.remember(*id, &reply));
            return AppliedOp { reply, feed: Vec::new(), origin, repeated: false };
        }
        let mut transaction = Transaction {
            tables: self,
            index,
            logged,
            now: op.now,
            session: origin,
            feed: Vec::new(),
            removals_left: detached::STEP,
            is_part: false,
            is_squashed: squashed.is_some(),
            gained: 0,
        };
        let reply = transaction.change(&op.change);
        let feed = transaction.feed;
        if let Some(id) = op.origin {
            self.remember(id, &reply);
        }
        AppliedOp { reply, feed, origin, repeated: false }
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, FsError> {
        self.inodes.get(&ino).map(Arc::as_ref).ok_or(FsError::Stale { ino })
    }

    /// Removes an inode that has neither names nor extents any more.
    fn remove_inode(&mut self, ino: Ino) {
        self.inodes.remove(&ino);
        self.xattrs.remove(&ino);
        self.locks.remove(&ino);
    }

    /// Returns the directory `ino`, in which names are looked up or created; `NoEntry` if it was removed.
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

    /// Returns the inode at a name; the caller has checked that `parent` is a directory.
    fn entry(&self, parent: Ino, name: &EntryName) -> Option<&Inode> {
        let ino = self.entries.get(&DentryKey { parent, name: name.clone() })?;
        self.inodes.get(ino).map(Arc::as_ref)
    }

    fn children(&self, parent: Ino, after: Option<&EntryName>) -> impl Iterator<Item = (&EntryName, &Inode)> {
        let names = self.names_in(parent, after);
        names.filter_map(|(name, ino)| Some((name, self.inodes.get(&ino)?.as_ref())))
    }

    /// The names in a directory, and where they lead.
    fn names_in(&self, parent: Ino, after: Option<&EntryName>) -> impl Iterator<Item = (&EntryName, Ino)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match after {
            Some(name) => Excluded(DentryKey { parent, name: name.clone() }),
            None => Included(DentryKey { parent, name: first_name() }),
        };
        let entries = self.entries.range::<_, DentryKey>((start, Unbounded));
        entries.take_while(move |(place, _)| place.parent == parent).map(|(place, ino)| (&place.name, *ino))
    }

    fn is_empty(&self, directory: Ino) -> bool {
        self.children(directory, None).next().is_none()
    }

    /// Iterates over `directory` and its ancestors, ending with the root.
    fn upwards(&self, directory: Ino) -> impl Iterator<Item = &Inode> {
        std::iter::successors(self.inodes.get(&directory), |inode| self.inodes.get(&inode.up()?.0)).map(Arc::as_ref)
    }

    /// Returns the NAME of a file that is created at this place now.
    fn path_of(&self, parent: Ino, name: &EntryName) -> Result<FileName, FsError> {
        let mut parts = vec![name.as_bytes()];
        let mut len = name.as_bytes().len();
        for (_, name) in self.upwards(parent).filter_map(Inode::up) {
            parts.push(name.as_bytes());
            len += name.as_bytes().len() + 1;
            if len > MAX_FILE_NAME_BYTES {
                break;
            }
        }
        parts.reverse();
        FileName::of_path(parts.join(&b'/')).map_err(FsError::Name)
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
    /// A file, whose extents have a table of their own, or a special file. For `parent` see [`parents`].
    Plain {
        parent: Option<Ino>,
    },
    /// `up` is the parent directory (`..`) and the name there; the root has none.
    Directory {
        up: Option<(Ino, EntryName)>,
    },
    Symlink {
        target: Bytes,
        parent: Option<Ino>,
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

    /// The inode that `..` refers to; the root is its own parent.
    fn parent(&self) -> Ino {
        self.up().map_or(Ino::ROOT, |(parent, _)| *parent)
    }
}

/// The key of a dentry. The entries of a directory are adjacent, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct DentryKey {
    parent: Ino,
    name: EntryName,
}

/// The next unused number of each kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counters {
    ino: u64,
    session: u64,
    version: u64,
    dead: u64,
    place: u64,
}

/// One operation while it is applied, and the events that it has caused so far.
struct Transaction<'a> {
    tables: &'a mut Tables,
    index: u64,
    logged: Time,
    now: Time,
    session: Option<SessionId>,
    feed: Vec<FeedEvent>,
    /// How many more extents it may remove one by one; beyond that they are detached.
    removals_left: usize,
    /// The tables know a part of the namespace: see `partial`.
    is_part: bool,
    /// Root has no power on the machine of the issuing session: see `squash`.
    is_squashed: bool,
    /// How many chunks the file has more than before: each change concerns the contents of one file at most.
    gained: i64,
}

impl Transaction<'_> {
    fn change(&mut self, change: &Change) -> Result<Reply, FsError> {
        match change {
            Change::OpenSession { nonce, client, holds_leases } => {
                self.open_session(*nonce, client, *holds_leases, None)
            }
            Change::OpenOwnedSession { nonce, client, holds_leases, owner } => {
                self.open_session(*nonce, client, *holds_leases, Some(*owner))
            }
            Change::CloseSession { session } => self.close_session(*session),
            Change::SuspendSession { session } => self.suspend_session(*session),
            Change::ResumeSession { session } => self.resume_session(*session),
            Change::AllocateVersions { count } => self.allocate_to_session(*count),
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
            Change::CommitWithData { ino, commit, chunks } => self.commit_with_data(*ino, commit, chunks),
            Change::ForgetLogged { chunks } => Ok(self.forget_logged(chunks)),
            Change::Hold { ino } => self.hold_orphan(*ino),
            Change::Release { inos } => self.release_orphans(inos),
            Change::PurgeOrphans { before, limit } => self.purge_orphans(*before, *limit),
            Change::ForgetDead { ids } => self.forget_dead(ids),
            Change::CollectOrphans { runs } => self.collect_orphans(runs),
            Change::Discard { files } => self.discard(files),
            Change::FoundRoot { uid, gid } => self.found_root(*uid, *gid),
            Change::HoldOrphans { inos } => self.hold_orphans(inos),
            Change::Configure { config } => self.configure(config),
            Change::AcceptOperatorToken { node_uid, node, hash } => self.accept_operator_token(*node_uid, *node, *hash),
            Change::RevokeOperatorToken { node_uid, forget } => self.revoke_operator_token(*node_uid, *forget),
            Change::ResizePool { expected, step } => self.resize_pool(*expected, step),
            Change::AllocateInos { count } => self.allocate_inos(*count),
            Change::MakeNumbered { ino, file, parent, name, node } => {
                self.make_numbered(ChosenNumber { ino: *ino, file }, *parent, name, node)
            }
            Change::Invite { invitation } => self.invite(invitation),
            Change::Admit { admission, key, expires } => self.admit(admission, *key, *expires),
            Change::RevokeIdentity { id } => self.revoke_identity(*id),
            Change::SetXattr { ino, name, value, mode } => self.set_xattr(*ino, name, value, *mode),
            Change::RemoveXattr { ino, name } => self.remove_xattr(*ino, name),
            Change::Lock { ino, lock, ticket } => self.lock(*ino, *lock, *ticket),
            Change::Unlock { ino, range } => self.unlock(*ino, range),
            Change::CancelLock { ino, ticket } => self.cancel_lock(*ino, *ticket),
            Change::KeepLocks { ino, locks } => self.keep_locks(*ino, locks),
            Change::PunchHole { ino, first, count, chunk_bytes } => {
                self.punch_hole(*ino, (*first, *count), *chunk_bytes)
            }
            Change::Touch { atimes } => self.touch(atimes),
            Change::CloneRange { from, from_first, ino, first, count, chunk_bytes, size_at_least, sizes } => {
                let source = CloneSource { ino: *from, first: *from_first, count: *count };
                self.tables.check_sizes((*from, sizes.0), (*ino, sizes.1), *first)?;
                self.clone_range(source, *ino, *first, *chunk_bytes, *size_at_least)
            }
            Change::MakeMasked { parent, name, node, umask, exclusive } => {
                self.make_masked(*parent, name, node, *umask, *exclusive)
            }
        }
    }

    /// Changes an inode's attributes, and with them its ctime, its change counter and the feed. Returns the new
    /// attributes.
    fn edit(&mut self, ino: Ino, edit: impl FnOnce(&mut Inode)) -> Attr {
        let first = self.notify_inode(ino, false);
        let inode = self.tables.inodes.get_mut(&ino).expect("the caller has looked the inode up");
        let inode = Arc::make_mut(inode);
        inode.attr.ctime = self.now;
        if first {
            inode.attr.change = self.index.max(inode.attr.change + 1);
        }
        edit(inode);
        inode.attr.clone()
    }

    /// Records that a directory's entries have changed.
    fn touch_directory(&mut self, ino: Ino) {
        let now = self.now;
        self.edit(ino, |inode| inode.attr.mtime = now);
    }

    /// Adds one event per inode; an event for changed contents includes that the attributes changed. Returns whether
    /// this is the inode's first event in this transaction.
    fn notify_inode(&mut self, ino: Ino, contents: bool) -> bool {
        let existing = self.feed.iter_mut().find_map(|event| match event {
            FeedEvent::Inode { ino: other, contents } if *other == ino => Some(contents),
            _ => None,
        });
        if let Some(existing) = existing {
            *existing |= contents;
            return false;
        }
        self.feed.push(FeedEvent::Inode { ino, contents });
        true
    }

    fn notify_entry(&mut self, parent: Ino, name: &EntryName) {
        let event = FeedEvent::Entry { parent, name: name.clone() };
        if !self.feed.contains(&event) {
            self.feed.push(event);
        }
    }

    /// Returns the issuing session, for changes that need one.
    fn require_session(&self) -> Result<SessionId, FsError> {
        self.session.ok_or_else(|| invalid("this change needs a session to belong to"))
    }
}

fn invalid(reason: impl Into<String>) -> FsError {
    FsError::Invalid { reason: reason.into() }
}

/// A name that no other name sorts before: names are not empty and hold no NUL.
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
        holes: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        change: 0,
        flags: InodeFlags::default(),
        file: FileName::new(Bytes::from_static(b"/")).expect("one byte that is no NUL"),
    }
}
