//! Reading and writing an open file. Every handle of an inode sees the same data; `transfer` fetches and stores it.

use chordfs_types::{fs_error::FsError, namespace::Ino};

use super::FileSystem;

impl FileSystem {
    /// Reads from memory; `None` if bytes have to be fetched. A read across the end is short, a hole reads as zeros.
    pub fn try_read(&self, ino: Ino, offset: u64, len: u32) -> Option<Result<Vec<u8>, FsError>> {
        if self.notes_each_read() {
            self.note_read(ino);
        }
        match self.open_data(ino) {
            Ok(file) => file.data.try_read(offset, len).map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    pub async fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>, FsError> {
        self.open_data(ino)?.data.read(offset, len).await
    }

    /// Writes without waiting. `None` if the memory for dirty bytes is full: the caller then uses [`Self::write`].
    pub fn try_write(&self, ino: Ino, offset: u64, bytes: &[u8]) -> Option<Result<(), FsError>> {
        match self.open_data(ino) {
            Ok(file) => {
                file.count_write();
                file.data.try_write(offset, bytes)
            }
            Err(error) => Some(Err(error)),
        }
    }

    pub async fn write(&self, ino: Ino, offset: u64, bytes: Vec<u8>) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        file.count_write();
        file.data.write(offset, bytes).await
    }
}
