//! Cutting damage off a log, on an operator's request: the log is shorter then, although the node is still one of the
//! former voters until the recovery that follows has made it the only one. So the folder is marked from the first
//! change to the end of that recovery, and a node with a marked folder does not start.

use std::{io, path::Path};

use chordfs_files::sync_folder;

use super::small_file;

const MARK: &str = "cutting";

pub(super) fn begin(dir: &Path) -> io::Result<()> {
    small_file::write(dir, MARK, &())
}

/// Ends a cut; the node may start from now on.
pub(super) fn end(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_folder(dir),
    }
}

/// Fails if a recovery has cut damage off and has not come to its end.
pub(super) fn refuse_if_under_way(dir: &Path) -> io::Result<()> {
    if !dir.join(MARK).exists() {
        return Ok(());
    }
    let text = format!(
        "{}: a recovery has cut damage off this log and was interrupted. Finish it with `storage-node recover \
         --sole-survivor --cut-damage`",
        dir.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}
