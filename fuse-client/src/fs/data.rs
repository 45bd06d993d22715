//! Reading and writing an open file. Every handle of an inode sees the same data; `transfer` fetches and stores it.

use chordfs_net::session::EventAcknowledgement;
use chordfs_types::{fs_error::FsError, namespace::Ino};

use super::FileSystem;

/// The position of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAt {
    pub offset: u64,
    /// The file was opened with O_APPEND: `offset` is the end of the file as known to the kernel.
    pub append: bool,
}

impl FileSystem {
    /// Reads from memory; `None` if bytes have to be fetched. A read across the end is short, a hole reads as zeros.
    pub fn try_read(&self, ino: Ino, offset: u64, len: u32) -> Option<Result<Vec<u8>, FsError>> {
        match self.open_data(ino) {
            Ok(file) => file.data.try_read(offset, len).map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    pub async fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>, FsError> {
        self.open_data(ino)?.data.read(offset, len).await
    }

    /// Writes without waiting. `None` if the memory for dirty bytes is full, or the end of the file has to be queried
    /// for an append: the caller then uses [`Self::write`].
    pub fn try_write(&self, ino: Ino, at: WriteAt, bytes: &[u8]) -> Option<Result<(), FsError>> {
        let file = match self.open_data(ino) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        if needs_current_size(&file, at) {
            return None;
        }
        let offset = self.write_offset(ino, &file, at);
        file.count_write();
        file.data.try_write(offset, bytes)
    }

    pub async fn write(&self, ino: Ino, at: WriteAt, bytes: Vec<u8>) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        if needs_current_size(&file, at) {
            self.refresh_open_file(ino, &file).await?;
        }
        let offset = self.write_offset(ino, &file, at);
        file.count_write();
        file.data.write(offset, bytes).await
    }

    /// The offset of a write. An append goes to the end of the file as known to this mount, which may differ from the
    /// kernel's: another mount may have extended or truncated the file. The kernel's page then holds the appended bytes
    /// at the wrong offset and is invalidated.
    fn write_offset(&self, ino: Ino, file: &super::OpenFile, at: WriteAt) -> u64 {
        if !at.append {
            return at.offset;
        }
        let end = file.size();
        if end != at.offset {
            self.pages.invalidate(ino);
            self.notices.pages(ino, EventAcknowledgement::none());
        }
        end
    }
}

/// Whether the size has to be queried before an append, because another mount may have changed it. If the kernel's size
/// exceeds the one known here, one of the two is outdated.
fn needs_current_size(file: &super::OpenFile, at: WriteAt) -> bool {
    at.append && (file.is_outdated() || at.offset > file.size())
}
