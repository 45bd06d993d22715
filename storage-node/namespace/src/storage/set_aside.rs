//! Putting a node's whole log aside. The node has then no memory of its votes, and Raft is safe only as long as a voter
//! keeps its promises: the caller has to give the node a new id.
//!
//! An operator's request keeps the log under another name, since it may be the only copy of all names. The log of a
//! node that the members have removed is deleted: a majority has all that is in it.

use std::{
    io,
    path::{Path, PathBuf},
};

use chordfs_files::rename_durably;

use super::log_file::free_name;

const FOLDER: &str = "namespace";

/// What is being deleted.
const REMOVED: &str = "namespace.removed";

/// Whether the node with the data folder `data` has a log, or had one and still has its folder.
pub fn has_log(data: &Path) -> bool {
    data.join(FOLDER).join(super::log_store::IDENTITY).exists()
}

/// Deletes the namespace's folder in `data`, or ends a deletion that was interrupted. Either all of the log is there
/// afterwards, under its name, or nothing.
pub(crate) fn delete_log(data: &Path) -> io::Result<()> {
    finish_deletion(data)?;
    let folder = data.join(FOLDER);
    if folder.exists() {
        rename_durably(&folder, &data.join(REMOVED))?;
    }
    finish_deletion(data)
}

/// Ends a deletion that was interrupted.
pub(crate) fn finish_deletion(data: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(data.join(REMOVED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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
