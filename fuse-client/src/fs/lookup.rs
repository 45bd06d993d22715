//! Looking up names, and reading and setting attributes. The attributes of an open file are set through its data, in
//! order with its commits, so that the commit of bytes written earlier does not overwrite times set here.

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Attr, Change, EntryName, FileKind, Ino, Query, SetAttr, permission},
};

use super::{Caller, FileSystem, handle::OpenFile, unexpected};
use crate::cache::Dentry;

impl FileSystem {
    /// Looks up a name in the cache. `None` if it is not cached; `NoEntry` if it is known to be absent.
    pub fn cached_lookup(&self, parent: Ino, name: &EntryName) -> Option<Result<Attr, FsError>> {
        match self.cache.name(parent, name)? {
            Dentry::Absent => Some(Err(FsError::NoEntry)),
            Dentry::Present(ino) => Some(Ok(self.cached_attr(ino)?)),
        }
    }

    pub async fn lookup(&self, parent: Ino, name: &EntryName) -> Result<Attr, FsError> {
        let was_removed = self.removed.contains(parent);
        let stamp = self.cache.stamp();
        match self.query_attr(Query::Lookup { parent, name: name.clone() }).await {
            Ok(attr) => {
                self.cache.store_name(stamp, parent, name, Some(&attr));
                self.look_ahead(parent, name);
                Ok(self.with_uncommitted(attr))
            }
            Err(FsError::NoEntry) => {
                self.cache.store_name(stamp, parent, name, None);
                Err(FsError::NoEntry)
            }
            Err(error @ FsError::Stale { ino }) => {
                Err(self.removed.error_in(parent, was_removed, self.stale_if_gone(ino, error)))
            }
            Err(error) => Err(error),
        }
    }

    pub fn cached_attr(&self, ino: Ino) -> Option<Attr> {
        let mut attr = self.cache.attr(ino)?;
        if self.opens.get(ino).is_some_and(|file| !file.knows_its_attr()) {
            return None;
        }
        if let Some(data) = self.live_data(ino) {
            data.overlay(&mut attr);
        }
        self.atimes.overlay(&mut attr);
        Some(attr)
    }

    pub async fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        if let Some(removed) = self.removed.get(ino) {
            return Ok(removed);
        }
        let stamp = self.cache.stamp();
        match self.query_attr(Query::GetAttr { ino }).await.map_err(|error| self.stale_if_gone(ino, error)) {
            Ok(attr) => {
                self.cache.store_attr(stamp, &attr);
                Ok(self.with_uncommitted(attr))
            }
            Err(error @ FsError::Stale { .. }) => self.removed.mark(ino).ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Checks that a user other than root may open the file, of a machine on which root has no power.
    pub async fn check_open_without_root(&self, ino: Ino, can_write: bool) -> Result<(), FsError> {
        let bits = if can_write { permission::WRITE } else { permission::READ };
        let attr = self.attr(ino).await?;
        // The ring checks by the list.
        if attr.flags.has_acl || attr.permits_without_root(bits) {
            return Ok(());
        }
        Err(FsError::NotPermitted { reason: "root has no power on this machine over root's files".into() })
    }

    /// Sets the given attributes and leaves the others unchanged.
    pub async fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        if set == SetAttr::default() {
            return self.attr(ino).await;
        }
        if set.atime.is_some() {
            self.atimes.forget(ino);
        }
        // The list of a file changes with its permission bits, and only the namespace knows it.
        let may_defer = set.mode.is_none() || self.cache.flags(ino).is_some_and(|flags| !flags.has_acl);
        if may_defer && self.live_data(ino).is_some_and(|data| data.defer(&set)) {
            return Ok(self.with_uncommitted(self.attr(ino).await?));
        }
        let stamp = self.cache.stamp();
        let _under_way = self.cache.begin_own_change(Vec::new(), vec![ino]);
        let attr = match self.opens.get(ino) {
            Some(file) => self.set_attr_of_open(ino, &file, set).await,
            None if truncates_above_zero(&set) || self.transfer.uncommitted_file(ino).is_some() => {
                self.set_attr_of_closed(ino, set).await
            }
            None => self.set_attr_at_namespace(ino, set).await,
        };
        // Without an answer it may have been made, and no event tells of this mount's own changes.
        let attr = attr.inspect_err(|_| self.cache.forget_attr(ino)).map_err(|error| self.stale_if_gone(ino, error))?;
        self.record_change(stamp, &attr);
        Ok(self.with_uncommitted(attr))
    }

    /// Takes the set-id bits from a file that `writer` is about to write; see [`Self::mode_without_set_id`].
    pub async fn drop_set_id(&self, ino: Ino, writer: Caller) -> Result<(), FsError> {
        if let mode @ Some(_) = self.mode_without_set_id(ino, writer).await? {
            self.set_attr(ino, SetAttr { mode, ..SetAttr::default() }).await?;
            // It expects this of a write to its pages, and not of one that goes past them.
            self.invalidate_kernel_attr(ino).await;
        }
        Ok(())
    }

    /// Whether a file that is about to be written could be a set-id program.
    pub fn may_have_set_id(&self, ino: Ino) -> bool {
        self.opens.get(ino).is_none_or(|file| {
            let mode = file.data.mode();
            mode != permission::without_set_id(mode, false)
        })
    }

    /// The mode of a file that is written or given to somebody else: it makes no program run as another user or in
    /// another group. `None` if the mode stays as it is.
    pub async fn mode_without_set_id(&self, ino: Ino, writer: Caller) -> Result<Option<u16>, FsError> {
        let attr = match self.cached_attr(ino) {
            Some(attr) => attr,
            None => self.attr(ino).await?,
        };
        let may_keep_group = writer.uid == 0 || writer.gid == attr.gid;
        let without = permission::without_set_id(attr.mode, may_keep_group);
        Ok((attr.kind != FileKind::Directory && without != attr.mode).then_some(without))
    }

    pub async fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.note_read(ino);
        match self.namespace.query(Query::ReadLink { ino }).await.map_err(|error| self.stale_if_gone(ino, error))? {
            Answer::Target(target) => Ok(target.to_vec()),
            other => Err(unexpected("reading a symlink", &other)),
        }
    }

    /// A commit sets the mtime to the time of its writes, so bytes already written are committed before a new mtime.
    async fn set_attr_of_open(&self, ino: Ino, file: &OpenFile, set: SetAttr) -> Result<Attr, FsError> {
        if set.mtime.is_some() && file.data.is_dirty() {
            self.commit(ino, Durability::Memory).await?;
        }
        file.data.set_attr(set).await
    }

    /// A truncation changes the contents: an opening that is under way must not attach what they were before.
    async fn set_attr_at_namespace(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        let truncates = set.truncate.is_some();
        let attr = self.change_attr(Change::SetAttr { ino, set }).await;
        if truncates {
            self.invalidate_data(ino);
        }
        attr
    }

    /// Sets attributes through the file's data: a new end within a chunk needs that chunk's bytes, and bytes that could
    /// not be committed before must not be committed over the change.
    async fn set_attr_of_closed(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        let attr = self.attr(ino).await?;
        if attr.kind == FileKind::Directory {
            return Err(FsError::IsDirectory);
        }
        let opened = self.open_file(ino).await?;
        self.set_attr_of_open(ino, &opened.file(), set).await
    }
}

fn truncates_above_zero(set: &SetAttr) -> bool {
    set.truncate.as_ref().is_some_and(|truncate| truncate.size > 0)
}
