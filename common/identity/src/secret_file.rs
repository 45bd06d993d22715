//! A file with a private key: for its owner alone, and replaced durably.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use chordfs_files::rename_durably;
use pem::{EncodeConfig, LineEnding, Pem};

use crate::error::IdentityError;

const OWNER_ONLY: u32 = 0o600;

/// Reads the file. Refuses one that others may read: the key in it is no secret.
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
    write(path, text.as_bytes()).map_err(|error| IdentityError::File { path: path.to_owned(), error })
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    rename_durably(unfinished, path)
}
