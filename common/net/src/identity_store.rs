//! The identities of a user who mounts rings of other machines.
//!
//! ```text
//! FOLDER/RING.pem     certificate, the ring's authority, private key, mode 0600; RING: the authority's fingerprint
//! FOLDER/RING.nodes   ring addresses of nodes of that ring, one on each line
//! ```
//! FOLDER is `CHORDFS_IDENTITIES`, or else `/etc/chordfs/identities` for root and `chordfs/identities` in
//! `XDG_STATE_HOME` (`~/.local/state`) for other users.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chordfs_files::{create_folder_durably, replace_durably};
use chordfs_identity::{Credentials, IdentityError};
use chordfs_log::warn_limited;

const FOLDER_MODE: u32 = 0o700;

/// An identity, and its file.
pub struct StoredIdentity {
    pub credentials: Credentials,
    pub path: PathBuf,
    nodes: Vec<SocketAddr>,
}

impl StoredIdentity {
    /// Whether one of these nodes is known to be of its ring.
    pub fn knows_any_of(&self, nodes: &[SocketAddr]) -> bool {
        self.nodes.iter().any(|node| nodes.contains(node))
    }
}

/// Keeps an identity in place of a former one of the same ring. Returns its file.
pub fn keep(credentials: &Credentials, nodes: &[SocketAddr]) -> Result<PathBuf, IdentityError> {
    let folder = folder().ok_or(IdentityError::NoFolder)?;
    keep_in(&folder, credentials, nodes)
}

fn keep_in(folder: &Path, credentials: &Credentials, nodes: &[SocketAddr]) -> Result<PathBuf, IdentityError> {
    let about = |path: &Path| {
        let path = path.to_owned();
        move |error| IdentityError::File { path, error }
    };
    create_folder_durably(folder, FOLDER_MODE).map_err(about(folder))?;
    let path = folder.join(format!("{}.pem", credentials.authority_fingerprint()));
    let lines: String = nodes.iter().map(|node| format!("{node}\n")).collect();
    replace_durably(&path.with_extension("nodes"), lines.as_bytes()).map_err(about(&path))?;
    credentials.save(&path)?;
    Ok(path)
}

/// All identities that this user has and that can be read.
pub fn all() -> Vec<StoredIdentity> {
    folder().map_or_else(Vec::new, |folder| all_in(&folder))
}

fn all_in(folder: &Path) -> Vec<StoredIdentity> {
    let paths = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "pem"));
    let read = files.filter_map(|path| {
        let credentials =
            Credentials::load(&path).inspect_err(|error| warn_limited!(%error, "an identity is not used"));
        let nodes = fs::read_to_string(path.with_extension("nodes")).unwrap_or_default();
        let nodes = nodes.lines().filter_map(|line| line.parse().ok()).collect();
        Some(StoredIdentity { credentials: credentials.ok()?, path, nodes })
    });
    read.collect()
}

fn folder() -> Option<PathBuf> {
    let given = env::var_os("CHORDFS_IDENTITIES").map(PathBuf::from);
    let of_root = || nix::unistd::geteuid().is_root().then(|| PathBuf::from("/etc/chordfs/identities"));
    let state = || env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state"));
    let of_user = || Some(state().or_else(home)?.join("chordfs/identities"));
    given.or_else(of_root).or_else(of_user).filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, SystemTime},
    };

    use chordfs_identity::{CertificateAuthority, NewKey, Role, Validity, new_identity};

    use super::*;

    fn credentials(authority: &CertificateAuthority) -> Credentials {
        let (key, identity) = (NewKey::generate().unwrap(), new_identity(Role::Client, "somebody", None).unwrap());
        let validity = Validity::starting(SystemTime::now(), Duration::from_secs(3600));
        let certificate = authority.issue(&key.request().unwrap(), &identity, validity).unwrap();
        key.certified(&certificate, authority.certificate()).unwrap()
    }

    #[test]
    fn a_user_has_one_identity_for_each_ring_for_himself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("identities");
        let authority = || CertificateAuthority::create(SystemTime::now()).unwrap();
        let (one, other) = (authority(), authority());
        let node = |port| SocketAddr::from(([10, 0, 0, 1], port));
        keep_in(&folder, &credentials(&one), &[node(1)]).unwrap();
        let newest = credentials(&one);
        let path = keep_in(&folder, &newest, &[node(1), node(2)]).unwrap();
        keep_in(&folder, &credentials(&other), &[node(3)]).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let all = all_in(&folder);
        assert_eq!(all.len(), 2);
        let found: Vec<_> = all.iter().filter(|stored| stored.knows_any_of(&[node(9), node(2)])).collect();
        assert_eq!((found.len(), found[0].credentials.owner()), (1, newest.owner()));
        assert!(all_in(&folder.join("missing")).is_empty());
    }
}
