//! Everything that can go wrong with a file operation, and the one table from failure to errno.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{chunk::NameError, ino::Ino};

#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum FsError {
    #[error("no such file or directory")]
    NoEntry,
    /// Also returned when the file was restarted since it was opened.
    #[error("inode {} does not exist any more, or not as it was opened", ino.0)]
    Stale { ino: Ino },
    #[error("the name is taken")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    #[error("too many links")]
    TooManyLinks,
    #[error("the file would be too large: a file has at most 2^32 - 1 chunks")]
    FileTooLarge,
    #[error("{0}")]
    Name(NameError),
    #[error("{reason}")]
    Invalid { reason: String },
    #[error("not permitted: {reason}")]
    NotPermitted { reason: String },
    /// Another commit came first; read chunk `index` again and merge the bytes into it.
    #[error("chunk {index} has changed meanwhile")]
    Conflict { index: u32 },
    #[error("the session is unknown or has expired")]
    NoSession,
    #[error("an operation of this session was sent out of order")]
    OutOfOrder,
    #[error("no space left on the storage nodes")]
    NoSpace,
    #[error("read-only file system")]
    ReadOnly,
    #[error("not supported: {what}")]
    Unsupported { what: String },
    #[error("no holder of a chunk answered in time: {detail}")]
    NoReplica { detail: String },
    #[error("the namespace did not answer in time: {detail}")]
    NoQuorum { detail: String },
    #[error("internal error: {detail}")]
    Internal { detail: String },
}

impl FsError {
    /// No `_` arm: a new variant has to choose.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoEntry => libc::ENOENT,
            Self::Stale { .. } | Self::NoSession => libc::ESTALE,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::IntoItself | Self::Invalid { .. } => libc::EINVAL,
            Self::TooManyLinks => libc::EMLINK,
            Self::FileTooLarge => libc::EFBIG,
            Self::Name(NameError::TooLong { .. }) => libc::ENAMETOOLONG,
            Self::Name(_) => libc::EINVAL,
            Self::NotPermitted { .. } => libc::EPERM,
            Self::NoSpace => libc::ENOSPC,
            Self::ReadOnly => libc::EROFS,
            Self::Unsupported { .. } => libc::ENOTSUP,
            // Retries were spent before these arrive here.
            Self::Conflict { .. }
            | Self::OutOfOrder
            | Self::NoReplica { .. }
            | Self::NoQuorum { .. }
            | Self::Internal { .. } => libc::EIO,
        }
    }
}
