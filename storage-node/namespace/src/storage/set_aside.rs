//! Putting a node's whole log aside. The node has then no memory of its votes, and Raft is safe only as long as a voter
//! keeps its promises: the caller has to give the node a new id.

use std::{
    io,
    path::{Path, PathBuf},
};

use chordfs_files::rename_durably;

use super::log_file::free_name;

const FOLDER: &str = "namespace";

/// Whether the node with the data folder `data` has a log, or had one and still has its folder.
pub fn has_log(data: &Path) -> bool {
    data.join(FOLDER).join(super::log_store::IDENTITY).exists()
}

/// Renames the namespace's folder in `data`; nothing is deleted. Returns its new name, or `None` if there is no such
/// folder.
pub fn set_log_aside(data: &Path) -> io::Result<Option<PathBuf>> {
    let folder = data.join(FOLDER);
    if !folder.exists() {
        return Ok(None);
    }
    let aside = free_name(&folder);
    rename_durably(&folder, &aside)?;
    Ok(Some(aside))
}
