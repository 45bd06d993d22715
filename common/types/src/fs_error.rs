//! Everything that can go wrong with a file operation, and the one table from failure to errno.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{chunk::NameError, ino::Ino};

/// Peers and mounts branch on the variant and on [`FsError::errno`]; the texts are for people.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum FsError {
    /// The name does not exist, or the directory was removed.
    #[error("no such file or directory")]
    NoEntry,
    /// Also returned when the file was restarted since it was opened.
    #[error("inode {} does not exist any more, or not as it was opened", ino.0)]
    Stale {
        /// If the file was only restarted, it can be opened again.
        ino: Ino,
    },
    /// Returned to a change that must not replace anything.
    #[error("the name is taken")]
    Exists,
    /// A name was looked up in another kind of inode, or a directory would replace one.
    #[error("not a directory")]
    NotDirectory,
    /// A directory has no contents, and neither unlinking nor another kind of inode may remove it.
    #[error("is a directory")]
    IsDirectory,
    /// Only an empty directory can be removed or replaced.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Applies to the directories of both sides of an exchange.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// An inode has at most 2^31 - 1 names, and a directory about as many subdirectories.
    #[error("too many links")]
    TooManyLinks,
    /// The limit in bytes depends on the file's chunk size.
    #[error("the file would be too large: a file has at most 2^32 - 1 chunks")]
    FileTooLarge,
    /// Also returned for the NAME of a new file and for a symlink's target.
    #[error("{0}")]
    Name(NameError),
    /// The request contradicts itself or the tables; sending it again unchanged cannot help.
    #[error("{reason}")]
    Invalid {
        /// A sentence for the log of the sender.
        reason: String,
    },
    /// The namespace forbids it to all users; the kernels check the permissions of each.
    #[error("not permitted: {reason}")]
    NotPermitted {
        /// A sentence for the log of the sender.
        reason: String,
    },
    /// Another commit came first; read chunk `index` again and merge the bytes into it.
    #[error("chunk {index} has changed meanwhile")]
    Conflict {
        /// The first chunk that has to be stored again.
        index: u32,
    },
    /// The client has to open another session; what the old one held was released.
    #[error("the session is unknown or has expired")]
    NoSession,
    /// The session has acknowledged the reply, which was then forgotten.
    #[error("an operation of this session was sent out of order")]
    OutOfOrder,
    /// A holder refused to store a chunk, because its disk is full.
    #[error("no space left on the storage nodes")]
    NoSpace,
    /// Reserved; no operation returns it at present.
    #[error("read-only file system")]
    ReadOnly,
    /// Other clients can do it, for example a mount where HTTP cannot.
    #[error("not supported: {what}")]
    Unsupported {
        /// The operation and the kind of object.
        what: String,
    },
    /// The call may succeed later, when a holder is back.
    #[error("no holder of a chunk answered in time: {detail}")]
    NoReplica {
        /// Which chunk or holder, and the last error.
        detail: String,
    },
    /// The operation may have been applied all the same.
    #[error("the namespace did not answer in time: {detail}")]
    NoQuorum {
        /// The reason that the last node gave, or how long was waited.
        detail: String,
    },
    /// A program error, or a peer that breaks the protocol.
    #[error("internal error: {detail}")]
    Internal {
        /// For a report of the error.
        detail: String,
    },
    /// Chunks that were acknowledged, and that all storage nodes report as missing. Sending the call again cannot help.
    #[error("data that was written before is lost: {detail}")]
    Lost {
        /// Which chunks, and the nodes that were asked.
        detail: String,
    },
    /// The chunks can be stored on their holders, and be committed without their data.
    #[error("the log keeps too many chunks that their holders do not have yet")]
    LogFull,
    /// Also returned to a change that must replace one.
    #[error("no such extended attribute")]
    NoXattr,
    /// The limit is on all extended attributes of one inode together.
    #[error("the extended attributes of one file would take more than {limit} bytes")]
    XattrsTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// Another program holds a lock on some of the bytes.
    #[error("the file is locked by another program")]
    WouldBlock,
    /// The holder of the lock waits for one of this program.
    #[error("waiting for the lock would last for ever")]
    Deadlock,
    /// The limit is on each file.
    #[error("too many locks")]
    NoLocks,
    /// A signal came while a program waited.
    #[error("interrupted by a signal")]
    Interrupted,
}

impl FsError {
    /// Whether a change that failed with this may have been applied all the same.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::NoQuorum { .. } | Self::NoSession)
    }

    /// Without a `_` arm, so that a new variant has to choose.
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
            Self::NoSpace | Self::XattrsTooLarge { .. } => libc::ENOSPC,
            Self::NoXattr => libc::ENODATA,
            Self::WouldBlock => libc::EAGAIN,
            Self::Deadlock => libc::EDEADLK,
            Self::NoLocks => libc::ENOLCK,
            Self::Interrupted => libc::EINTR,
            Self::ReadOnly => libc::EROFS,
            Self::Unsupported { .. } => libc::ENOTSUP,
            // These arrive here only after all retries.
            Self::Conflict { .. }
            | Self::OutOfOrder
            | Self::NoReplica { .. }
            | Self::NoQuorum { .. }
            | Self::Internal { .. }
            | Self::Lost { .. }
            | Self::LogFull => libc::EIO,
        }
    }
}
