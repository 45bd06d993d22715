//! The node's id as a voter. It stands for what the node has promised in the namespace's elections, so it may be used
//! only together with the log that remembers these promises.

use anyhow::Result;
use chordfs_namespace::has_log;
use chordfs_store::DataFolder;
use tracing::warn;

/// Gives the folder a new id if the log that belongs to the present one is gone: the others then meet a new node, which
/// they may choose as a voter, and replace the former one.
pub(super) fn keep_or_renew(folder: DataFolder) -> Result<DataFolder> {
    if folder.is_new() || has_log(folder.path()) {
        return Ok(folder);
    }
    let former = folder.node_uid();
    let renewed = folder.renew_uid()?;
    warn!(
        former = format!("{former:016x}"),
        now = format!("{renewed:016x}"),
        "the namespace's log is gone, and with it this node's votes: it continues as a new node under a new id"
    );
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A voter whose log had been removed came back under its old id, without a memory of its votes.
    #[test]
    fn an_id_is_kept_only_together_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let start = || keep_or_renew(DataFolder::open(dir.path()).unwrap()).unwrap().node_uid();
        let first = start();
        let log = dir.path().join("namespace");
        std::fs::create_dir(&log).unwrap();
        std::fs::write(log.join("identity"), "").unwrap();
        assert_eq!(start(), first);
        std::fs::remove_dir_all(&log).unwrap();
        assert_ne!(start(), first);
    }
}
