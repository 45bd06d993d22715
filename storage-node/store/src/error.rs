//! Why a call of the store fails.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::folder::FolderError;

#[derive(Debug, Error)]
pub enum StoreError {
    /// The call has stored no chunk. Deleting still works.
    #[error("no space left for chunks in {}: {why}; delete files or give it a larger disk", path.display())]
    NoSpace { path: PathBuf, why: String },
    #[error("{step} {}: {source}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    /// The call may have stored other chunks.
    #[error("chunk {index} of version {version} is stored here with other bytes, and a chunk never changes")]
    Conflict { version: u64, index: u32 },
    /// The call did not complete: it panicked, or the process is stopping.
    #[error("the store failed: {reason}")]
    Aborted { reason: String },
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl StoreError {
    pub fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned(), why: format!("{step}: {source}") }
            }
            _ => Self::Io { step, path: path.to_owned(), source },
        }
    }
}
