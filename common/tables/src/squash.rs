//! Root squash: what a client may do on whose machine root has no power over root's files.
//!
//! The machine says for which user it acts, and it can say what it likes, but not that it acts for root. So it may do
//! what some user could do who is not root and not in root's group. Only what belongs to root is out of its reach, as
//! far as the permissions of the file say so.

use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    identity::IdentityId,
    namespace::{
        Attr, Change, EntryName, Extent, FileKind, Ino, NewNode, Query, SetAttr, XattrName,
        permission::{EXECUTE, READ, WRITE},
    },
};

use super::{
    Tables,
    acl::{ACCESS_ACL, DEFAULT_ACL},
    names_of,
};

const STICKY: u16 = 0o1000;
const SET_GID: u16 = 0o2000;

impl Tables {
    /// Checks a change of the client `owner`, on whose machine root has no power. An inode that the tables do not
    /// have is refused: an earlier change under way, or of the same list, may be about to make it something else.
    pub fn check_change_without_root(&self, owner: IdentityId, change: &Change) -> Result<(), FsError> {
        for (parent, _) in names_of(change) {
            self.require(parent, WRITE | EXECUTE, "change the names in the directory")?;
        }
        match change {
            Change::Make { parent, node, .. } | Change::MakeNumbered { parent, node, .. } => {
                self.check_new(node, Some(*parent))
            }
            Change::MakeMasked { parent, node, .. } => self.check_new(node, Some(*parent)),
            Change::MakeUnnamed { node, .. } => self.check_new(node, None),
            Change::Unlink { parent, name, .. }
            | Change::Rmdir { parent, name }
            | Change::Publish { parent, name, .. } => self.check_sticky(*parent, name),
            Change::Rename { parent, name, new_parent, new_name, .. } => {
                self.check_sticky(*parent, name)?;
                self.check_sticky(*new_parent, new_name)
            }
            Change::Link { ino, .. } => self.require(*ino, READ | WRITE, "give another name to the file"),
            Change::SetAttr { ino, set } => {
                let tail = set.truncate.as_ref().and_then(|truncate| truncate.tail);
                self.check_versions(owner, *ino, tail.into_iter().map(|tail| tail.extent()))?;
                self.check_set(*ino, set)
            }
            Change::SetXattr { ino, name, .. } | Change::RemoveXattr { ino, name } => self.check_xattr(*ino, name),
            Change::Commit { ino, commit } | Change::CommitWithData { ino, commit, .. } => {
                self.require(*ino, WRITE, "write the file")?;
                self.check_versions(owner, *ino, commit.runs())?;
                if commit.set.is_empty() { Ok(()) } else { self.check_set(*ino, &commit.set) }
            }
            _ => Ok(()),
        }
    }

    /// Checks a query of a client on whose machine root has no power.
    pub fn check_query_without_root(&self, query: &Query) -> Result<(), FsError> {
        match query {
            Query::Lookup { parent, .. } => self.require(*parent, EXECUTE, "look names up in the directory"),
            Query::Resolve { path } => {
                let above = self.along(path).into_iter().take(path.len());
                above.into_iter().try_for_each(|ino| self.require(ino, EXECUTE, "look names up in the directory"))
            }
            Query::ReadDir { ino, .. } => self.require(*ino, READ, "list the directory"),
            Query::Open { ino } | Query::Extents { ino, .. } => self.require_any(*ino, &[READ, WRITE, EXECUTE]),
            Query::Xattrs { ino } => self.require_any(*ino, &[READ, WRITE, EXECUTE]),
            // Each of the files would have to be checked: such a client opens them one by one.
            Query::OpenEntries { .. } => {
                Err(FsError::Unsupported { what: "opening in advance on a machine whose root has no power".into() })
            }
            Query::LoggedChunks { ids } => match ids.iter().find(|id| !self.permits_version(id.version, false)) {
                Some(id) => Err(refused(format!("read version {}", id.version.0))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the file that has the version may be read, or with `stores` written. False if no file has it: the log
    /// may keep what root has removed.
    pub(super) fn permits_version(&self, version: Version, stores: bool) -> bool {
        let file = self.versions.get(&version).and_then(|used| self.inode(used.ino).ok());
        let wanted: &[u16] = if stores { &[WRITE] } else { &[READ, EXECUTE] };
        file.is_some_and(|inode| wanted.iter().any(|bits| inode.attr.permits_without_root(*bits)))
    }

    /// A change that named a version of another file would make the chunks of that file readable.
    fn check_versions(
        &self,
        owner: IdentityId,
        ino: Ino,
        mut runs: impl Iterator<Item = Extent>,
    ) -> Result<(), FsError> {
        let view = self.bound_view(owner, &[]);
        let is_of_file = |version| self.versions.get(&version).is_some_and(|used| used.ino == ino);
        let is_callers = |version| view.is_some_and(|view| view.owns(version));
        match runs.find(|run| !is_of_file(run.version) && !is_callers(run.version)) {
            Some(run) => Err(refused(format!("write version {} to the file {}", run.version.0, ino.0))),
            None => Ok(()),
        }
    }

    /// Attributes that only root may set stay root's; the lists are the owner's to set.
    fn check_xattr(&self, ino: Ino, name: &XattrName) -> Result<(), FsError> {
        let attr = self.attr_of(ino).ok_or(FsError::Stale { ino })?;
        let is_list = [ACCESS_ACL, DEFAULT_ACL].contains(&name.as_bytes());
        if is_list && attr.uid == 0 {
            return Err(refused(format!("change the permissions of {}", ino.0)));
        }
        if !is_list && !name.as_bytes().starts_with(b"user.") {
            return Err(refused(format!("change the extended attribute {name}")));
        }
        self.require(ino, if is_list { 0 } else { WRITE }, "write the file")
    }

    fn attr_of(&self, ino: Ino) -> Option<&Attr> {
        self.inode(ino).ok().map(|inode| &inode.attr)
    }

    fn require(&self, ino: Ino, bits: u16, what: &str) -> Result<(), FsError> {
        match self.attr_of(ino) {
            Some(attr) if attr.permits_without_root(bits) => Ok(()),
            Some(_) => Err(refused(format!("{what} {}", ino.0))),
            None => Err(FsError::Stale { ino }),
        }
    }

    fn require_any(&self, ino: Ino, choices: &[u16]) -> Result<(), FsError> {
        match self.attr_of(ino) {
            Some(attr) if !choices.iter().any(|bits| attr.permits_without_root(*bits)) => {
                Err(refused(format!("open the file {}", ino.0)))
            }
            _ => Ok(()),
        }
    }

    /// In a directory with the sticky bit, names are changed by the owner of the directory and that of the file.
    fn check_sticky(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        let is_roots = |attr: &Attr| attr.uid == 0;
        let directory = self.attr_of(parent).filter(|attr| attr.mode & STICKY != 0 && is_roots(attr));
        let is_refused = directory.is_some() && self.entry(parent, name).is_some_and(|inode| is_roots(&inode.attr));
        if is_refused { Err(refused(format!("change root's name in the directory {}", parent.0))) } else { Ok(()) }
    }

    fn check_new(&self, node: &NewNode, parent: Option<Ino>) -> Result<(), FsError> {
        let passes_group_on = |attr: &Attr| attr.mode & SET_GID != 0;
        let has_own_group = parent.and_then(|parent| self.attr_of(parent)).is_some_and(passes_group_on);
        if matches!(node.kind, FileKind::BlockDevice | FileKind::CharDevice) {
            return Err(refused("make devices".into()));
        }
        if node.uid == 0 || (node.gid == 0 && !has_own_group) {
            return Err(refused("make something that belongs to root".into()));
        }
        // The directory may be about to pass its group on.
        let is_roots_group = parent.and_then(|parent| self.attr_of(parent)).is_some_and(|attr| attr.gid == 0);
        check_group_of_program(node.kind, node.mode, if is_roots_group { 0 } else { node.gid })
    }

    fn check_set(&self, ino: Ino, set: &SetAttr) -> Result<(), FsError> {
        let attr = self.attr_of(ino).ok_or(FsError::Stale { ino })?;
        if set.uid.is_some_and(|uid| uid != attr.uid) {
            return Err(refused(format!("give {} to another user", ino.0)));
        }
        if set.gid.is_some_and(|gid| gid == 0 && gid != attr.gid) {
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
}

/// Elsewhere a program with this bit would run in root's group.
fn check_group_of_program(kind: FileKind, mode: u16, gid: u32) -> Result<(), FsError> {
    if gid == 0 && mode & SET_GID != 0 && kind != FileKind::Directory {
        return Err(refused("make a program that runs in root's group".into()));
    }
    Ok(())
}

fn refused(what: String) -> FsError {
    FsError::NotPermitted { reason: format!("root has no power on this client's machine, and nobody else may {what}") }
}
