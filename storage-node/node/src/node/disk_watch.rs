//! Watches whether the data folder can be written: a file system that turned read-only after an error, or a disk that
//! no longer answers, shows in the node's status within seconds, and not only at the next write. A full disk is no
//! problem here: it shows in the free space.

use chordfs_log::{info_limited, warn_limited};
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A disk that takes longer for one small file does not work.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// Written and removed at each look.
const FILE: &str = "disk-check";

/// The problem of the disk at present.
#[derive(Default)]
pub struct DiskWatch {
    problem: Mutex<Option<String>>,
}

impl DiskWatch {
    /// Why the data folder cannot be used; `None` if it can.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Watches the folder until the node stops.
    pub async fn run(&self, folder: PathBuf, stop: CancellationToken) {
        tokio::select! { () = self.watch(&folder) => {}, () = stop.cancelled() => {} }
    }

    async fn watch(&self, folder: &Path) {
        let mut reminded = Instant::now();
        loop {
            let problem = look(folder).await;
            let changed = *self.problem.lock() != problem;
            match &problem {
                Some(problem) if changed || reminded.elapsed() >= REMIND_EVERY => {
                    reminded = Instant::now();
                    warn_limited!("the disk of this node cannot be used: {problem}");
                }
                None if changed => info_limited!("the disk of this node can be used again"),
                _ => {}
            }
            *self.problem.lock() = problem;
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The problem, for people. A look that hangs is awaited to its end, so that no second one hangs beside it.
async fn look(folder: &Path) -> Option<String> {
    let path = folder.to_owned();
    let mut written: JoinHandle<io::Result<()>> = spawn_blocking(move || write_and_remove(&path));
    match timeout(ANSWER_DEADLINE, &mut written).await {
        Ok(Ok(written)) => problem(folder, written),
        Ok(Err(_)) => None,
        Err(_) => Some(format!("{} has not answered for {} s", folder.display(), ANSWER_DEADLINE.as_secs())),
    }
}

fn write_and_remove(folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    let written = std::fs::write(&path, [0; 512]);
    std::fs::remove_file(&path)
        .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    written
}

fn problem(folder: &Path, written: io::Result<()>) -> Option<String> {
    let error = written.err()?;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => None,
        ErrorKind::ReadOnlyFilesystem => Some(format!(
            "{} is on a file system that is read-only; see the kernel's log, repair the disk, start the node again",
            folder.display()
        )),
        _ => Some(format!("{} cannot be written: {error}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_cannot_be_used_is_a_problem() {
        let folder = Path::new("/data");
        let of = |kind: ErrorKind| problem(folder, Err(kind.into()));
        assert_eq!(problem(folder, Ok(())), None);
        assert_eq!(of(ErrorKind::StorageFull), None);
        assert!(of(ErrorKind::ReadOnlyFilesystem).unwrap().contains("read-only"));
        assert!(of(ErrorKind::Other).unwrap().starts_with("/data cannot be written"));
    }

    #[tokio::test]
    async fn a_folder_that_vanishes_and_returns_shows_in_the_status() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(look(&folder).await, None);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the file is removed");
        std::fs::remove_dir(&folder).unwrap();
        assert!(look(&folder).await.unwrap().contains("cannot be written"));
    }
}
