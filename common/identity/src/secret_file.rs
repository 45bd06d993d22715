//! A file with a private key or an invitation: for its owner alone, and replaced durably.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use chordfs_files::replace_secret_durably;
use pem::{EncodeConfig, LineEnding, Pem};

use crate::error::IdentityError;

/// Reads the file. Refuses one that others may read: what it holds is no secret.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let about = |error| IdentityError::File { path: path.to_owned(), error };
    if fs::metadata(path).map_err(about)?.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::TooOpen { path: path.to_owned() });
    }
    fs::read(path).map_err(about)
}

/// Replaces the file durably. At no moment can another user read it.
pub(crate) fn replace(path: &Path, parts: &[Pem]) -> Result<(), IdentityError> {
    let text = pem::encode_many_config(parts, EncodeConfig::new().set_line_ending(LineEnding::LF));
    let replaced = replace_secret_durably(path, text.as_bytes());
    replaced.map_err(|error| IdentityError::File { path: path.to_owned(), error })
}
