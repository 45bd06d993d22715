//! Root squash: what a client may do on whose machine root has no power.
//!
//! The machine says for which user it acts, and it can say what it likes, but not that it acts for root. So it may do
//! what some user could do who is not root and not in root's group (`permissions`). Only what belongs to root is out of
//! its reach, as far as the permissions say so.
//!
//! Each change is checked when it is applied, by the tables as they are then: what an earlier change of the same list
//! has made, or one that another mount had answered before, counts.

use chordfs_types::{
    chunk::{ChunkId, Version},
    fs_error::FsError,
    identity::IdentityId,
    namespace::{
        Answer, Attr, Change, EntryName, Extent, FileKind, Ino, NewNode, Query, SessionId, SetAttr, XattrName,
        folder_of,
        permission::{EXECUTE, READ, SET_GROUP_ID, WRITE, without_set_id},
    },
};

use super::{
    BoundView, Inode, Tables, Transaction,
    acl::{ACCESS_ACL, DEFAULT_ACL},
    names_of,
};

const STICKY: u16 = 0o1000;
/// Attributes that anybody may set who may write the file; the others are root's.
const USER_XATTRS: &[u8] = b"user.";

/// An identity on whose machine root has no power.
pub(super) struct SquashedOwner {
    id: IdentityId,
    /// The folder to which it is bound; empty if it is bound to none.
    path: Vec<EntryName>,
}

/// The namespace as such an identity may use it.
#[derive(Clone, Copy, Debug)]
pub struct SquashedView<'a> {
    tables: &'a Tables,
    /// Its folder; the root for one that is bound to none.
    bound: BoundView<'a>,
}

impl Tables {
    /// `None` if there is nothing at `path`, the folder to which the identity is bound.
    pub fn squashed_view<'a>(&'a self, owner: IdentityId, path: &'a [EntryName]) -> Option<SquashedView<'a>> {
        Some(SquashedView { tables: self, bound: self.bound_view(owner, path)? })
    }

    /// The owner of a session, if root has no power on its machine.
    pub(super) fn squashed_owner(&self, session: SessionId) -> Option<SquashedOwner> {
        let identity = self.identities.get(*self.session_owners.get(&session)?)?;
        if !identity.role.squashes_root() {
            return None;
        }
        // The path was checked before the identity was let in.
        Some(SquashedOwner { id: identity.id, path: folder_of(identity).ok()?.unwrap_or_default() })
    }

    /// Checks a change that is about to be applied.
    pub(super) fn check_squashed(&self, owner: &SquashedOwner, change: &Change) -> Result<(), FsError> {
        self.squashed_view(owner.id, &owner.path).ok_or(FsError::NoEntry)?.check_change(change)
    }
}

impl SquashedView<'_> {
    pub fn check_change(&self, change: &Change) -> Result<(), FsError> {
        for (parent, _) in names_of(change) {
            self.require(parent, WRITE | EXECUTE, "change the names in the directory")?;
        }
        match change {
            Change::Make { parent, node, .. }
            | Change::MakeNumbered { parent, node, .. }
            | Change::MakeMasked { parent, node, .. } => self.check_new(node, Some(*parent)),
            Change::MakeUnnamed { node, .. } => self.check_new(node, None),
            Change::Unlink { parent, name, .. } | Change::Rmdir { parent, name } => self.check_sticky(*parent, name),
            Change::Publish { ino, parent, name } => {
                self.check_sticky(*parent, name)?;
                self.check_named(*ino)
            }
            Change::Rename { parent, name, new_parent, new_name, .. } => {
                self.check_sticky(*parent, name)?;
                self.check_sticky(*new_parent, new_name)
            }
            Change::Link { ino, .. } => self.check_named(*ino),
            Change::SetAttr { ino, set } => {
                let tail = set.truncate.as_ref().and_then(|truncate| truncate.tail);
                self.check_versions(*ino, tail.into_iter().map(|tail| tail.extent()))?;
                self.check_set(*ino, set)
            }
            Change::SetXattr { ino, name, .. } | Change::RemoveXattr { ino, name } => self.check_xattr(*ino, name),
            Change::Commit { ino, commit } | Change::CommitWithData { ino, commit, .. } => {
                self.require(*ino, WRITE, "write the file")?;
                self.check_versions(*ino, commit.runs())?;
                if commit.set.is_empty() { Ok(()) } else { self.check_set(*ino, &commit.set) }
            }
            Change::PunchHole { ino, .. } => self.require(*ino, WRITE, "write the file"),
            Change::CloneRange { from, ino, .. } => {
                self.require(*from, READ, "read the file")?;
                self.require(*ino, WRITE, "write the file")
            }
            Change::Touch { atimes } => {
                let mut existing = atimes.iter().filter(|(ino, _)| self.inode(*ino).is_some());
                existing.try_for_each(|(ino, _)| self.require_any(*ino, &[READ, EXECUTE]))
            }
            // A user who could not open the file must not lock others out.
            Change::Lock { ino, .. } | Change::KeepLocks { ino, .. } => self.require_any(*ino, &[READ, WRITE, EXECUTE]),
            Change::Hold { ino } if !self.may_hold(*ino) => Err(refused(format!("keep the file {}", ino.0))),
            _ => Ok(()),
        }
    }

    pub fn check_query(&self, query: &Query) -> Result<(), FsError> {
        match query {
            Query::Lookup { parent, name } => self.check_look_up(*parent, name),
            Query::Resolve { path } => {
                let along = self.tables.along(path);
                along.into_iter().zip(path).try_for_each(|(parent, name)| self.check_look_up(parent, name))
            }
            Query::GetAttr { ino } | Query::ReadLink { ino } => self.require_any(*ino, &[0]),
            Query::ReadDir { ino, .. } => self.require(*ino, READ, "list the directory"),
            Query::Open { ino } | Query::Extents { ino, .. } | Query::Xattrs { ino } | Query::Locks { ino } => {
                self.require_any(*ino, &[READ, WRITE, EXECUTE])
            }
            // Each of the files would have to be checked: such a client opens them one by one.
            Query::OpenEntries { .. } => {
                Err(FsError::Unsupported { what: "opening in advance on a machine whose root has no power".into() })
            }
            Query::Clones { versions } => match versions.iter().find(|version| !self.is_file_open(**version, false)) {
                Some(version) => Err(refused(format!("read version {}", version.0))),
                None => Ok(()),
            },
            Query::LoggedChunks { ids } => match ids.iter().find(|id| !self.reads_chunk(**id)) {
                Some(id) => Err(refused(format!("read version {}", id.version.0))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Takes from the answer to a query what only root sees.
    pub fn hide(&self, answer: &mut Answer) {
        if let Answer::Xattrs { attr, xattrs } = answer {
            let may_read = self.inode(attr.ino).is_some_and(|inode| self.tables.permits_without_root(inode, READ));
            xattrs.retain(|name, _| is_list(name) || may_read && name.as_bytes().starts_with(USER_XATTRS));
        }
    }

    /// Whether chunks of the version may be read, or with `stores` stored. While a file has the version, the file
    /// decides, also if the caller has written it.
    pub(super) fn reaches_version(&self, version: Version, stores: bool) -> bool {
        if self.tables.versions.contains_key(&version) {
            return self.is_file_open(version, stores);
        }
        self.bound.owns(version)
    }

    fn reads_chunk(&self, id: ChunkId) -> bool {
        self.is_file_open(id.version, false) || self.reaches_by_clone(id)
    }

    /// Whether a file has the version that may be read, or with `stores` written. The log may keep what root has
    /// removed.
    fn is_file_open(&self, version: Version, stores: bool) -> bool {
        let user = self.tables.versions.get(&version).map(|used| used.ino);
        let wanted: &[u16] = if stores { &[WRITE] } else { &[READ, EXECUTE] };
        user.is_some_and(|ino| self.require_any(ino, wanted).is_ok())
    }

    /// Whether a file has the chunk by a clone that the caller may read.
    pub(super) fn reaches_by_clone(&self, id: ChunkId) -> bool {
        self.tables.cloned_into(id).any(|ino| self.require_any(ino, &[READ, EXECUTE]).is_ok())
    }

    /// Whether a file without a name may be kept by one who could only have opened it.
    pub(super) fn may_hold(&self, ino: Ino) -> bool {
        self.inode(ino).is_none() || self.require_any(ino, &[READ, WRITE, EXECUTE]).is_ok()
    }

    /// A change that named a version of another file would make the chunks of that file readable.
    fn check_versions(&self, ino: Ino, mut runs: impl Iterator<Item = Extent>) -> Result<(), FsError> {
        let is_allowed = |version: Version| match self.tables.versions.get(&version) {
            Some(used) => used.ino == ino,
            None => self.bound.owns(version),
        };
        match runs.find(|run| !is_allowed(run.version)) {
            Some(run) => Err(refused(format!("write version {} to the file {}", run.version.0, ino.0))),
            None => Ok(()),
        }
    }

    fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.tables.inode(ino).ok()
    }

    /// Whether directories that may be searched lead to the inode, or a session of the caller has it open.
    fn reaches(&self, ino: Ino) -> bool {
        self.tables.is_led_to(self.bound.root(), ino) || self.bound.holds(ino)
    }

    fn require(&self, ino: Ino, bits: u16, what: &str) -> Result<(), FsError> {
        let inode = self.inode(ino).ok_or(FsError::Stale { ino })?;
        if self.tables.permits_without_root(inode, bits) && self.reaches(ino) {
            return Ok(());
        }
        Err(refused(format!("{what} {}", ino.0)))
    }

    fn require_any(&self, ino: Ino, choices: &[u16]) -> Result<(), FsError> {
        let inode = self.inode(ino).ok_or(FsError::Stale { ino })?;
        if choices.iter().any(|bits| self.tables.permits_without_root(inode, *bits)) && self.reaches(ino) {
            return Ok(());
        }
        Err(refused(format!("use the inode {}", ino.0)))
    }

    /// The way to its folder may be looked up also through directories that are root's alone.
    fn check_look_up(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        if self.bound.is_on_the_way(parent, name) {
            return Ok(());
        }
        self.require(parent, EXECUTE, "look names up in the directory")
    }

    /// In a directory with the sticky bit, names are changed by the owner of the directory and that of the file.
    fn check_sticky(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        let is_roots = |inode: &Inode| inode.attr.uid == 0;
        let is_sticky = self.inode(parent).is_some_and(|inode| inode.attr.mode & STICKY != 0 && is_roots(inode));
        let is_refused = is_sticky && self.tables.entry(parent, name).is_some_and(is_roots);
        if is_refused { Err(refused(format!("change root's name in the directory {}", parent.0))) } else { Ok(()) }
    }

    /// As with `fs.protected_hardlinks`: only what one may read and write gets another name, and no program of root's,
    /// which might be kept that way although root has replaced it.
    fn check_named(&self, ino: Ino) -> Result<(), FsError> {
        self.require(ino, READ | WRITE, "give another name to the file")?;
        if self.inode(ino).is_some_and(Inode::runs_as_root) {
            return Err(refused(format!("give another name to the program {}", ino.0)));
        }
        Ok(())
    }

    /// A directory that passes its group on gives it to what is created there, whatever group the caller names.
    fn check_new(&self, node: &NewNode, parent: Option<Ino>) -> Result<(), FsError> {
        if matches!(node.kind, FileKind::BlockDevice | FileKind::CharDevice) {
            return Err(refused("make devices".into()));
        }
        if node.uid == 0 || node.gid == 0 {
            return Err(refused("make something that belongs to root".into()));
        }
        let directory = parent.and_then(|parent| self.inode(parent)).map(|inode| &inode.attr);
        let passed_on = directory.filter(|attr| attr.mode & SET_GROUP_ID != 0).map(|attr| attr.gid);
        check_group_of_program(node.kind, node.mode, passed_on.unwrap_or(node.gid))
    }

    fn check_set(&self, ino: Ino, set: &SetAttr) -> Result<(), FsError> {
        let attr = &self.inode(ino).ok_or(FsError::Stale { ino })?.attr;
        if set.uid.is_some_and(|uid| uid != attr.uid || uid == 0) {
            return Err(refused(format!("give {} to another user", ino.0)));
        }
        if set.gid == Some(0) {
            return Err(refused(format!("give {} to root's group", ino.0)));
        }
        let is_owners = set.mode.is_some() || set.gid.is_some();
        if is_owners && attr.uid == 0 {
            return Err(refused(format!("change the permissions of {}", ino.0)));
        }
        if let Some(mode) = set.mode {
            check_group_of_program(attr.kind, mode, set.gid.unwrap_or(attr.gid))?;
        }
        // Times that a program chooses are the owner's to set. They look like those of a write, which others may make.
        self.require(ino, WRITE, "write the file")
    }

    /// The lists are the owner's to set, and attributes of users those's who may write.
    fn check_xattr(&self, ino: Ino, name: &XattrName) -> Result<(), FsError> {
        let Attr { kind, mode, uid, .. } = self.inode(ino).ok_or(FsError::Stale { ino })?.attr;
        if is_list(name) {
            self.require_any(ino, &[0])?;
            return if uid == 0 { Err(refused(format!("change the permissions of {}", ino.0))) } else { Ok(()) };
        }
        let may_have_any = match kind {
            FileKind::File => true,
            FileKind::Directory => uid != 0 || mode & STICKY == 0,
            _ => false,
        };
        if !may_have_any || !name.as_bytes().starts_with(USER_XATTRS) {
            return Err(refused(format!("change the extended attribute {name} of {}", ino.0)));
        }
        self.require(ino, WRITE, "write the file")
    }
}

impl Transaction<'_> {
    /// A program that a user has written must not run as somebody else. Other clients take the bits away themselves.
    pub(super) fn drop_set_id_if_squashed(&mut self, ino: Ino) {
        let mode = self.tables.inodes[&ino].attr.mode;
        let without = without_set_id(mode, true);
        if self.is_squashed && without != mode {
            self.edit(ino, |inode| inode.attr.mode = without);
        }
    }

    /// Whether the issuing session may keep a file without a name.
    pub(super) fn may_hold(&self, ino: Ino) -> bool {
        let Some(owner) = self.session.filter(|_| self.is_squashed).and_then(|it| self.tables.squashed_owner(it))
        else {
            return true;
        };
        self.tables.squashed_view(owner.id, &owner.path).is_some_and(|view| view.may_hold(ino))
    }
}

fn is_list(name: &XattrName) -> bool {
    [ACCESS_ACL, DEFAULT_ACL].contains(&name.as_bytes())
}

/// Elsewhere a program with this bit would run in root's group.
fn check_group_of_program(kind: FileKind, mode: u16, gid: u32) -> Result<(), FsError> {
    if gid == 0 && mode & SET_GROUP_ID != 0 && kind != FileKind::Directory {
        return Err(refused("make a program that runs in root's group".into()));
    }
    Ok(())
}

fn refused(what: String) -> FsError {
    FsError::NotPermitted { reason: format!("root has no power on this client's machine, and nobody else may {what}") }
}
