//! The ring's memory across restarts: a node's id and address and the peers it knows, in `ring.json` in the data
//! folder.
//!
//! The file is written whole to a temporary file which then takes the name, so a crash leaves the old or the new one.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chordfs_log::warn_limited;
use chordfs_types::ring_id::{NodeRef, RingId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

const FILE: &str = "ring.json";
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRing {
    format: u32,
    pub id: RingId,
    /// True once the node has been at this position in a ring. It may hold chunks for that position, so it keeps the
    /// id.
    pub settled: bool,
    pub known: Vec<NodeRef>,
    /// The node's last address in the ring, for tools that read the folder of a stopped node. Files of older versions
    /// lack it.
    #[serde(default)]
    pub address: Option<SocketAddr>,
}

#[derive(Debug, Error)]
pub enum SavedError {
    #[error("cannot read {}: {source}; check the owner and permissions of the data folder", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}; check permissions of, and space in, the data folder", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is damaged ({source}); remove it to let the node choose a new position", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("{} has format {found}, this program knows {FORMAT}; use the program that wrote it", path.display())]
    Format { path: PathBuf, found: u32 },
}

impl SavedRing {
    pub fn new(id: RingId) -> Self {
        Self { format: FORMAT, id, settled: false, known: Vec::new(), address: None }
    }

    pub fn with_id(self, id: RingId) -> Self {
        Self { id, ..self }
    }

    /// `None` if the node has never run.
    pub async fn read(folder: &Path) -> Result<Option<Self>, SavedError> {
        let path = folder.join(FILE);
        let bytes = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SavedError::Read { path, source }),
        };
        match serde_json::from_slice::<Format>(&bytes) {
            Ok(Format { format }) if format != FORMAT => Err(SavedError::Format { path, found: format }),
            _ => serde_json::from_slice(&bytes).map(Some).map_err(|source| SavedError::Damaged { path, source }),
        }
    }

    async fn write(&self, folder: &Path) -> Result<(), SavedError> {
        let bytes = serde_json::to_vec_pretty(self).expect("plain data always encodes");
        let path = folder.join(FILE);
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || chordfs_files::replace_durably(&target, &bytes)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(SavedError::Write { path, source }),
            Err(error) => Err(SavedError::Write { path, source: io::Error::other(error) }),
        }
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Writes changes in a task of its own. Of several changes in quick succession only the last is written.
pub(super) struct Saver {
    latest: watch::Sender<SavedRing>,
}

impl Saver {
    /// Writes the file before it returns, but only if it differs: an unwritable data folder is an error at the start,
    /// and a node whose disk is full can still restart.
    pub(super) async fn start(folder: PathBuf, first: SavedRing) -> Result<Self, SavedError> {
        if SavedRing::read(&folder).await?.as_ref() != Some(&first) {
            first.write(&folder).await?;
        }
        let (latest, mut changes) = watch::channel(first);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let saved = changes.borrow_and_update().clone();
                if let Err(error) = saved.write(&folder).await {
                    warn_limited!(%error, "the id and the known peers were not saved");
                }
            }
        });
        Ok(Self { latest })
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SavedRing)) {
        self.latest.send_if_modified(|saved| {
            let before = saved.clone();
            change(saved);
            *saved != before
        });
    }

    pub(super) fn is_settled(&self) -> bool {
        self.latest.borrow().settled
    }

    /// Whether this node has been in a ring with other nodes.
    pub(super) fn remembers_peers(&self) -> bool {
        let saved = self.latest.borrow();
        saved.settled && !saved.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_saved_ring_reads_back() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(SavedRing::read(folder.path()).await.expect("no file is no error"), None);
        let known = vec![NodeRef { ip: [10, 0, 0, 7].into(), port: 5057, id: RingId(u32::MAX) }];
        let address = Some(SocketAddr::from(([10, 0, 0, 1], 5057)));
        let saved = SavedRing { settled: true, known, address, ..SavedRing::new(RingId(7)) };
        saved.write(folder.path()).await.expect("it can be written");
        assert_eq!(SavedRing::read(folder.path()).await.expect("it reads"), Some(saved));
    }

    #[tokio::test]
    async fn a_file_from_before_addresses_were_kept_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let older = r#"{"format": 1, "id": 7, "settled": true, "known": []}"#;
        std::fs::write(folder.path().join(FILE), older).expect("it can be written");
        let read = SavedRing::read(folder.path()).await.expect("it reads").expect("it is there");
        assert_eq!(read, SavedRing { settled: true, ..SavedRing::new(RingId(7)) });
    }

    #[tokio::test]
    async fn a_damaged_or_newer_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        for (contents, wanted) in
            [("{\"format\": 1, ", "damaged"), ("{\"format\": 2}", "has format 2"), ("7", "damaged")]
        {
            std::fs::write(folder.path().join(FILE), contents).expect("it can be written");
            let error = SavedRing::read(folder.path()).await.expect_err("it is not sound").to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unwritable_folder_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing");
        let error = Saver::start(missing, SavedRing::new(RingId(1))).await.err().expect("there is no such folder");
        assert!(error.to_string().contains("cannot write"), "{error}");
    }
}
