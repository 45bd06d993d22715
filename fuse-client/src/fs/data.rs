//! Reading and writing an open file. Every handle of an inode sees the same data; how bytes come and go is `transfer`'s
//! business.

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Change, Commit, Ino},
};

use super::FileSystem;

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAt {
    pub offset: u64,
    /// The file was opened with O_APPEND: `offset` is where the kernel believes the end is.
    pub append: bool,
}

impl FileSystem {
    /// A read across the end is short, a hole reads as zeros.
    pub fn try_read(&self, ino: Ino, offset: u64, len: u32) -> Option<Result<Vec<u8>, FsError>> {
        match self.open_data(ino) {
            Ok(file) => file.data.try_read(offset, len).map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    pub async fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>, FsError> {
        self.open_data(ino)?.data.read(offset, len).await
    }

    /// `None`: memory for dirty bytes is used up, or the end to append at has to be asked for; use [`Self::write`].
    pub fn try_write(&self, ino: Ino, at: WriteAt, bytes: &[u8]) -> Option<Result<(), FsError>> {
        let file = match self.open_data(ino) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        if must_ask(&file, at) {
            return None;
        }
        let offset = self.end_or_offset(ino, &file, at);
        file.note_write();
        file.data.try_write(offset, bytes)
    }

    pub async fn write(&self, ino: Ino, at: WriteAt, bytes: Vec<u8>) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        if must_ask(&file, at) {
            self.ask_again(ino, &file).await?;
        }
        let offset = self.end_or_offset(ino, &file, at);
        file.note_write();
        file.data.write(offset, bytes).await
    }

    /// Makes the file at least `offset + len` bytes long, which is all of posix_fallocate(3) that shows: space is not
    /// set aside.
    pub async fn allocate(&self, ino: Ino, offset: u64, len: u64) -> Result<(), FsError> {
        let end = offset.checked_add(len).ok_or(FsError::FileTooLarge)?;
        let file = self.open_data(ino)?;
        let stamp = self.cache.stamp();
        self.commit(ino, Durability::Memory).await?;
        let commit = Commit { size_at_least: end, ..Commit::default() };
        let attr = self.change_attr(Change::Commit { ino, commit }).await.map_err(|error| self.gone(ino, error))?;
        self.ask_again(ino, &file).await?;
        self.changed(stamp, &attr);
        Ok(())
    }

    /// An append goes behind everything known here, even where the kernel has not heard yet what another mount has
    /// added, or cut off; then its page holds our bytes at the wrong place and has to go.
    fn end_or_offset(&self, ino: Ino, file: &super::OpenFile, at: WriteAt) -> u64 {
        if !at.append {
            return at.offset;
        }
        let end = file.size();
        if end != at.offset {
            self.pages.foreign(ino);
            self.notices.pages(ino);
        }
        end
    }
}

/// Whether the end to append at has to be asked for: another mount may have moved it. Where the kernel takes the file
/// for longer than it is known here, one of the two has not heard of that yet.
fn must_ask(file: &super::OpenFile, at: WriteAt) -> bool {
    at.append && (file.is_outdated() || at.offset > file.size())
}
