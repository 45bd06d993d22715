//! Where programs on a node's machine find its operator's token.
//!
//! ```text
//! DATA/operator-token              the token and a line feed, mode 0600, in the node's data folder
//! RUNTIME/IP:PORT.operator-token   a symbolic link to that file while the node runs; IP:PORT is its ring plane
//! ```
//!
//! RUNTIME is the folder `CHORDFS_RUNTIME_DIR`, or else `/run/chordfs` for root, and for other users
//! `XDG_RUNTIME_DIR/chordfs`, or `.local/state/chordfs/run` in `HOME` where there is no such variable. The link spares
//! an operator on the machine from naming the file; the mode of the file decides who can read it. A link that is left
//! behind leads to a file that is still the node's.

use std::{
    env, fs, io,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use chordfs_identity::{CertificateAuthority, Fingerprint, IdentityError};
use chordfs_types::operator::OperatorToken;

/// The token's file in a node's data folder.
pub fn token_path(data: &Path) -> PathBuf {
    data.join("operator-token")
}

/// Reads a token's file. The error names the file.
pub fn read_token(path: &Path) -> io::Result<OperatorToken> {
    let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(about)?;
    text.parse().map_err(|expected| about(io::Error::new(io::ErrorKind::InvalidData, expected)))
}

/// The file with the ring's certificate authority, in a node's data folder.
pub fn authority_path(data: &Path) -> PathBuf {
    data.join("identity").join("authority.pem")
}

/// A node that runs on this machine, and whose files this user may read.
pub struct LocalNode {
    pub token: OperatorToken,
    /// By which its ring is recognized; `None`: the ring has no identities.
    pub authority: Result<Option<Fingerprint>, IdentityError>,
}

/// Finds the token of the node at `node` if it runs on this machine and this user may read it. A loopback address finds
/// the only node with that port: it may listen on all addresses.
pub fn find_token(node: SocketAddr) -> Option<OperatorToken> {
    Some(find_local_node(node)?.token)
}

/// Like [`find_token`], with what else a program on this machine may know.
pub fn find_local_node(node: SocketAddr) -> Option<LocalNode> {
    let folder = runtime_folder()?;
    let exact = read_local_node(&link_path(&folder, node));
    exact.or_else(|| if node.ip().is_loopback() { only_node_with_port(&folder, node.port()) } else { None })
}

fn only_node_with_port(folder: &Path, port: u16) -> Option<LocalNode> {
    let end = format!(":{port}.operator-token");
    let links = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let of_port = links.filter(|link| link.to_string_lossy().ends_with(&end));
    let mut nodes = of_port.filter_map(|link| read_local_node(&link));
    nodes.next().filter(|_| nodes.next().is_none())
}

fn read_local_node(link: &Path) -> Option<LocalNode> {
    let token = read_token(link).ok()?;
    let data = fs::canonicalize(link).ok()?;
    let authority = match CertificateAuthority::load(&authority_path(data.parent()?)) {
        Ok(authority) => Ok(Some(authority.fingerprint())),
        Err(IdentityError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Some(LocalNode { token, authority })
}

/// Links to the token of a node that starts. Returns the link; `None` if this user has no runtime folder.
pub fn link_token(data: &Path, node: SocketAddr) -> io::Result<Option<PathBuf>> {
    let Some(folder) = runtime_folder() else { return Ok(None) };
    fs::create_dir_all(&folder)?;
    let link = link_path(&folder, node);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(fs::canonicalize(token_path(data))?, &link)?,
    }
    Ok(Some(link))
}

/// Removes the link of a node that stops, unless another node has replaced it.
pub fn unlink_token(data: &Path, node: SocketAddr) {
    let Some(link) = runtime_folder().map(|folder| link_path(&folder, node)) else { return };
    if fs::read_link(&link).is_ok_and(|target| Some(target) == fs::canonicalize(token_path(data)).ok()) {
        // A link that stays is replaced at the next start.
        let _ = fs::remove_file(link);
    }
}

fn link_path(folder: &Path, node: SocketAddr) -> PathBuf {
    folder.join(format!("{node}.operator-token"))
}

fn runtime_folder() -> Option<PathBuf> {
    let given = env::var_os("CHORDFS_RUNTIME_DIR").map(PathBuf::from);
    let of_root = || nix::unistd::geteuid().is_root().then(|| PathBuf::from("/run/chordfs"));
    let of_login = || Some(PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?).join("chordfs"));
    let at_home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state/chordfs/run"));
    given.or_else(of_root).or_else(of_login).or_else(at_home).filter(|folder| folder.is_absolute())
}
