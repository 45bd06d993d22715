//! Why a key, a certificate or a token cannot be used.

use std::{io, path::PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{path} has no {missing}; restore the file from a copy, or, if it is the identity of a mount, remove it and use a new invitation", path = path.display())]
    Incomplete { path: PathBuf, missing: &'static str },
    #[error("others may read {path}, which holds a secret: make it readable for its owner alone (chmod 600)", path = path.display())]
    TooOpen { path: PathBuf },
    #[error("the certificate cannot be read: {reason}")]
    Certificate { reason: String },
    #[error("the certificate is not one of chordfs: {reason}")]
    Foreign { reason: &'static str },
    #[error("the request for a certificate is refused: {reason}")]
    Request { reason: String },
    #[error("a key or a certificate cannot be made: {reason}")]
    Make { reason: String },
    #[error("TLS refuses the key or the certificate: {reason}")]
    Tls { reason: String },
    #[error("there is no folder for identities: set HOME, XDG_STATE_HOME or CHORDFS_IDENTITIES")]
    NoFolder,
    #[error("this is no invitation: {reason}")]
    Invitation { reason: &'static str },
}
