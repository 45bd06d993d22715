//! Marks to which namespace this node's chunks belong. Another namespace knows none of them, and must not delete them.
//!
//! A ring may lose its namespace and begin a new one, or a node be moved with its chunks from one ring to another. Then
//! every chunk looks like an orphan. So the first namespace that a node follows is recorded beside its chunks, and
//! orphans are collected only while all members of the ring report the same namespace, because orphans are deleted on
//! all of them.
//!
//! ```text
//! DIR/scrub/namespace   16 hexadecimal digits; removing it lets the namespace that the node follows now decide about
//!                       these chunks
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use thiserror::Error;

pub(super) struct NamespaceMarker {
    path: PathBuf,
    writing: Mutex<()>,
}

#[derive(Debug, Error)]
pub(super) enum MarkerError {
    #[error("the chunks here belong to the namespace {marked:016x}, but the ring has the namespace {current:016x}; if they may be deleted, remove {}", path.display())]
    Other { marked: u64, current: u64, path: PathBuf },
    #[error("cannot read or write the namespace of the chunks here in {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl NamespaceMarker {
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join("namespace"), writing: Mutex::default() }
    }

    /// `None` if no namespace has been followed yet.
    pub(super) fn get(&self) -> Result<Option<u64>, MarkerError> {
        let failed = |source| MarkerError::Io { path: self.path.clone(), source };
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(failed)?,
        };
        let digits = text.trim_end();
        let id = u64::from_str_radix(digits, 16).ok().filter(|id| format!("{id:016x}") == digits);
        id.map(Some).ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "not 16 hexadecimal digits")))
    }

    /// Records `current` if it is the first namespace that the node follows. Errors: another one is recorded.
    pub(super) fn follow(&self, current: u64) -> Result<(), MarkerError> {
        let _guard = self.writing.lock();
        match self.get()? {
            Some(marked) if marked == current => Ok(()),
            Some(marked) => Err(MarkerError::Other { marked, current, path: self.path.clone() }),
            None => self.write(current).map_err(|source| MarkerError::Io { path: self.path.clone(), source }),
        }
    }

    /// The file is on disk when this returns, before any chunk is judged.
    fn write(&self, id: u64) -> io::Result<()> {
        chordfs_files::replace_durably(&self.path, format!("{id:016x}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_namespace_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let marker = NamespaceMarker::new(dir.path());
        assert_eq!(marker.get().unwrap(), None);
        marker.follow(0xabc).unwrap();
        marker.follow(0xabc).unwrap();
        assert!(matches!(marker.follow(0xabd), Err(MarkerError::Other { marked: 0xabc, current: 0xabd, .. })));
        assert_eq!(NamespaceMarker::new(dir.path()).get().unwrap(), Some(0xabc));
        std::fs::remove_file(dir.path().join("namespace")).unwrap();
        marker.follow(0xabd).unwrap();
    }

    #[test]
    fn a_damaged_marker_matches_no_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let marker = NamespaceMarker::new(dir.path());
        for text in ["", "0000000000000abg\n", "abc\n", "0000000000000abc0\n"] {
            std::fs::write(dir.path().join("namespace"), text).unwrap();
            assert!(marker.get().is_err() && marker.follow(0xabc).is_err(), "{text:?}");
        }
    }
}
