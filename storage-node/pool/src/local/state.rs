//! The pool's own record of its nodes, so that a pool that is started again finds the processes that still run.
//!
//! ```text
//! DIR/pool.json   {"format": 1, "nodes": [{"number", "pid", "started", "leaving"}]}
//! DIR/pool.lock   empty; held with flock(2) by the pool
//! DIR/N/          the folder of node N
//! DIR/N.log       the log of node N
//! ```
//! `started` is the process's start in ticks since boot: a pid alone could be another program's by now. The
//! contents are written to a temporary file that then takes the name, so a crash leaves the old or the new file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedNode {
    /// Counts from 1, and determines folder and ports.
    pub number: u16,
    /// 0 if the node has not been started yet.
    pub pid: u32,
    pub started: u64,
    pub leaving: LeaveStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LeaveStage {
    No,
    /// The node drains.
    Draining,
    /// The node is out of the ring: its folder may be removed as soon as its process has ended.
    Left,
}

#[derive(Serialize, Deserialize)]
struct SavedPool {
    format: u32,
    nodes: Vec<SavedNode>,
}

pub(super) struct StateFile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateFile {
    /// Opens the file in the folder, which is created if it is missing. Returns the nodes sorted by their numbers.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<SavedNode>)> {
        chordfs_files::create_folder_durably(folder, 0o755)
            .with_context(|| format!("make the folder {}", folder.display()))?;
        let lock = lock(folder)?;
        let path = folder.join("pool.json");
        let mut nodes = read(&path)?;
        nodes.sort_by_key(|node| node.number);
        Ok((Self { path, _lock: lock }, nodes))
    }

    pub(super) fn write(&self, nodes: Vec<SavedNode>) -> Result<()> {
        let text = serde_json::to_vec_pretty(&SavedPool { format: FORMAT, nodes })?;
        let written = chordfs_files::replace_durably(&self.path, &text);
        written.with_context(|| format!("write {}", self.path.display()))
    }
}

fn lock(folder: &Path) -> Result<Flock<File>> {
    let path = folder.join("pool.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => bail!("another pool runs in {}; stop that one first", folder.display()),
        Err((_, errno)) => Err(errno).with_context(|| format!("lock {}", path.display())),
    }
}

fn read(path: &Path) -> Result<Vec<SavedNode>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let damaged = || format!("{} is damaged; the nodes' folders beside it are intact", path.display());
    let saved: SavedPool = serde_json::from_slice(&text).with_context(damaged)?;
    if saved.format != FORMAT {
        bail!("{} has format {}, this program knows {FORMAT}", path.display(), saved.format);
    }
    Ok(saved.nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_reads_back_and_only_one_pool_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, nodes) = StateFile::open(folder.path()).unwrap();
        assert!(nodes.is_empty());
        let node = |number| SavedNode { number, pid: 7, started: 9, leaving: LeaveStage::Draining };
        file.write(vec![node(2), node(1)]).unwrap();
        let refused = StateFile::open(folder.path()).err().expect("it is locked").to_string();
        assert!(refused.contains("another pool"), "{refused}");
        drop(file);
        assert_eq!(StateFile::open(folder.path()).unwrap().1, [node(1), node(2)]);
    }

    #[test]
    fn a_damaged_file_is_reported_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (text, wanted) in [("{", "damaged"), (r#"{"format": 2, "nodes": []}"#, "format 2")] {
            fs::write(folder.path().join("pool.json"), text).unwrap();
            let refused = StateFile::open(folder.path()).err().expect("damaged").to_string();
            assert!(refused.contains(wanted), "{refused}");
            assert_eq!(fs::read_to_string(folder.path().join("pool.json")).unwrap(), text);
        }
    }
}
