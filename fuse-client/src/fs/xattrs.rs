//! Extended attributes. Those of an inode are fetched all at once: there are few in most cases, and the kernel asks for
//! one after the other.

use std::sync::Arc;

use bytes::Bytes;
use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Change, Ino, InodeFlags, Query, XattrMode, XattrName, Xattrs},
};

use super::{FileSystem, unexpected};

impl FileSystem {
    /// The value of an extended attribute from memory; `None` if it is not known whether there is one.
    pub fn cached_xattr(&self, ino: Ino, name: &XattrName) -> Option<Result<Bytes, FsError>> {
        self.cached_xattrs(ino).map(|xattrs| value_of(&xattrs, name))
    }

    pub async fn xattr(&self, ino: Ino, name: &XattrName) -> Result<Bytes, FsError> {
        value_of(&*self.xattrs(ino).await?, name)
    }

    /// The names of all extended attributes from memory, each with a NUL at its end.
    pub fn cached_xattr_names(&self, ino: Ino) -> Option<Vec<u8>> {
        self.cached_xattrs(ino).map(|xattrs| names_of(&xattrs))
    }

    pub async fn xattr_names(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        Ok(names_of(&*self.xattrs(ino).await?))
    }

    pub async fn set_xattr(&self, ino: Ino, name: XattrName, value: Bytes, mode: XattrMode) -> Result<(), FsError> {
        self.change_xattrs(ino, Change::SetXattr { ino, name, value, mode }).await
    }

    pub async fn remove_xattr(&self, ino: Ino, name: XattrName) -> Result<(), FsError> {
        self.change_xattrs(ino, Change::RemoveXattr { ino, name }).await
    }

    async fn change_xattrs(&self, ino: Ino, change: Change) -> Result<(), FsError> {
        self.commit_deferred(ino).await?;
        let stamp = self.cache.stamp();
        let _under_way = self.cache.begin_own_change(Vec::new(), vec![ino]);
        let attr = self.change_attr(change).await;
        let attr = attr.inspect_err(|_| self.cache.forget_attr(ino)).map_err(|error| self.stale_if_gone(ino, error))?;
        self.record_change(stamp, &attr);
        Ok(())
    }

    /// Permission bits that were set before must not come after a list that sets them.
    async fn commit_deferred(&self, ino: Ino) -> Result<(), FsError> {
        if self.live_data(ino).is_none_or(|data| !data.has_deferred()) {
            return Ok(());
        }
        let _opened = self.open_file(ino).await?;
        self.commit(ino, Durability::Memory).await
    }

    async fn xattrs(&self, ino: Ino) -> Result<Arc<Xattrs>, FsError> {
        self.commit_deferred(ino).await?;
        let stamp = self.cache.stamp();
        match self.namespace.query(Query::Xattrs { ino }).await.map_err(|error| self.stale_if_gone(ino, error))? {
            Answer::Xattrs { xattrs, .. } => {
                let xattrs = Arc::new(xattrs);
                self.cache.store_xattrs(stamp, ino, xattrs.clone());
                Ok(xattrs)
            }
            other => Err(unexpected("reading extended attributes", &other)),
        }
    }

    fn cached_xattrs(&self, ino: Ino) -> Option<Arc<Xattrs>> {
        match self.cache.flags(ino) {
            Some(InodeFlags { has_xattrs: false, .. }) => Some(Arc::default()),
            _ => self.cache.xattrs(ino),
        }
    }
}

fn value_of(xattrs: &Xattrs, name: &XattrName) -> Result<Bytes, FsError> {
    xattrs.get(name).cloned().ok_or(FsError::NoXattr)
}

fn names_of(xattrs: &Xattrs) -> Vec<u8> {
    xattrs.keys().flat_map(|name| [name.as_bytes(), &[0]]).flatten().copied().collect()
}
