//! Where programs on a node's machine find its operator's token.
//!
//! ```text
//! DATA/operator-token              the token and a line feed, mode 0600, in the node's data folder
//! RUNTIME/IP:PORT.operator-token   a symbolic link to that file while the node runs; IP:PORT is its ring plane
//! ```
//!
//! RUNTIME is the folder `CHORDFS_RUNTIME_DIR`, or else `/run/chordfs` for root and `XDG_RUNTIME_DIR/chordfs` for other
//! users. The link spares an operator on the machine from naming the file; the mode of the file decides who can read
//! it.

use std::{
    env, fs, io,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

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

/// Finds the token of the node at `node` if it runs on this machine and this user may read it. A loopback address finds
/// the only node with that port: it may listen on all addresses.
pub fn find_token(node: SocketAddr) -> Option<OperatorToken> {
    let folder = runtime_folder()?;
    let exact = read_token(&link_path(&folder, node)).ok();
    exact.or_else(|| if node.ip().is_loopback() { only_token_of_port(&folder, node.port()) } else { None })
}

fn only_token_of_port(folder: &Path, port: u16) -> Option<OperatorToken> {
    let end = format!(":{port}.operator-token");
    let links = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let of_port = links.filter(|link| link.to_string_lossy().ends_with(&end));
    let mut tokens = of_port.filter_map(|link| read_token(&link).ok());
    tokens.next().filter(|_| tokens.next().is_none())
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
    let of_user = || Some(PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?).join("chordfs"));
    given.or_else(of_root).or_else(of_user).filter(|folder| folder.is_absolute())
}
