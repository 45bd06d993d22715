//! Where a path's last name lies: its folder is found or made, and its entry looked up or removed.
//!
//! The folders of a path may be symlinks, as in `path`. A symlink in the last place is the entry itself, as for
//! `rename(2)` and `unlink(2)`.

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Change, EntryName, FileKind, Ino, NewNode, Reply},
};

use super::{FileService, entry_attr, path, unexpected};

/// Permission bits of the folders that an upload makes.
const FOLDER_MODE: u16 = 0o755;

impl FileService {
    /// The entry at `path`, if there is one. Errors: `NotDirectory` if a file lies above it.
    pub async fn entry(&self, path: &[EntryName]) -> Result<Option<Attr>, FsError> {
        let (name, folders) = split(path)?;
        match self.folder(folders).await {
            Ok(folder) => self.lookup(folder, name).await,
            Err(FsError::NoEntry) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file, or an empty folder, and returns what it was. A file that this node is sending is sent to its
    /// end.
    pub async fn remove(&self, path: &[EntryName]) -> Result<Attr, FsError> {
        let (name, folders) = split(path)?;
        let parent = self.folder(folders).await?;
        let attr = self.lookup(parent, name).await?.ok_or(FsError::NoEntry)?;
        if attr.kind == FileKind::Directory {
            self.namespace.apply(Change::Rmdir { parent, name: name.clone() }).await?;
            return Ok(attr);
        }
        self.unlink(parent, name).await?;
        Ok(attr)
    }

    /// Removes a name that is no folder's. A file that this node is sending is sent to its end.
    pub(super) async fn unlink(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        match self.namespace.apply(Change::Unlink { parent, name: name.clone(), hold: false }).await? {
            Reply::Removed { attr: removed } => {
                // The feed does not report this session's own changes.
                self.read.hold_some(&*self.namespace, removed.map(|removed| removed.ino)).await;
                Ok(())
            }
            other => Err(unexpected("Unlink", &other)),
        }
    }

    /// The folder of `path`, which is made if it is missing, with those above it. Of several callers all succeed.
    pub(super) async fn make_folder_of(&self, path: &[EntryName]) -> Result<Ino, FsError> {
        let (_, folders) = split(path)?;
        match self.folder(folders).await {
            Err(FsError::NoEntry) => self.make_folders(folders).await,
            found => found,
        }
    }

    async fn folder(&self, path: &[EntryName]) -> Result<Ino, FsError> {
        if path.is_empty() {
            return Ok(Ino::ROOT);
        }
        Ok(directory(path::resolve(&*self.namespace, path).await?)?.ino)
    }

    async fn make_folders(&self, folders: &[EntryName]) -> Result<Ino, FsError> {
        let mut folder = Ino::ROOT;
        for (at, name) in folders.iter().enumerate() {
            folder = match self.folder(&folders[..=at]).await {
                Err(FsError::NoEntry) => self.make_folder(folder, name.clone()).await?,
                found => found?,
            };
        }
        Ok(folder)
    }

    async fn make_folder(&self, parent: Ino, name: EntryName) -> Result<Ino, FsError> {
        let node = NewNode { kind: FileKind::Directory, mode: FOLDER_MODE, ..self.new_node(0) };
        let make = Change::Make { parent, name, node, exclusive: false };
        let (attr, _) = entry_attr(self.namespace.apply(make).await?)?;
        Ok(directory(attr)?.ino)
    }
}

/// The last name, and those above it. Errors: `IsDirectory` for the root, which has no name.
pub(super) fn split(path: &[EntryName]) -> Result<(&EntryName, &[EntryName]), FsError> {
    path.split_last().ok_or(FsError::IsDirectory)
}

fn directory(attr: Attr) -> Result<Attr, FsError> {
    if attr.kind == FileKind::Directory { Ok(attr) } else { Err(FsError::NotDirectory) }
}
