//! This node's token: made at its first start, and again after it was revoked.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use chordfs_files::replace_secret_durably;
use chordfs_net::operator_token::{read_token, token_path};
use chordfs_types::operator::OperatorToken;

const OWNER_ONLY: u32 = 0o600;

/// Returns the token of the node with this data folder, and makes one at the first start.
pub(super) fn load_or_make(data: &Path) -> io::Result<OperatorToken> {
    let path = token_path(data);
    match read_token(&path) {
        Ok(token) => {
            fs::set_permissions(&path, fs::Permissions::from_mode(OWNER_ONLY))?;
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(data),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(io::Error::new(error.kind(), format!("{error}; remove the file, and the node makes a new token")))
        }
        Err(error) => Err(error),
    }
}

/// Makes a new token, which replaces the former one.
pub(super) fn make(data: &Path) -> io::Result<OperatorToken> {
    let token = OperatorToken::from_random(rand::random());
    replace_secret_durably(&token_path(data), format!("{}\n", token.reveal()).as_bytes())?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stays_is_for_the_owner_alone_and_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_make(dir.path()).unwrap();
        let path = token_path(dir.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_make(dir.path()).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = make(dir.path()).unwrap();
        assert!(second != first && load_or_make(dir.path()).unwrap() == second);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(token_path(dir.path()), "chordfs").unwrap();
        let error = load_or_make(dir.path()).unwrap_err().to_string();
        assert!(error.contains("operator-token") && error.contains("remove the file"), "{error}");
        assert_eq!(fs::read(token_path(dir.path())).unwrap(), b"chordfs");
    }
}
