//! Marks to which namespace this node's chunks belong. Another namespace knows none of them, and must not have them
//! deleted.
//!
//! A ring may lose its namespace and begin a new one, or a node be moved with its chunks from one ring to another. Then
//! everything looks like an orphan. So the first namespace that a node follows is written down beside its chunks, and
//! orphans are looked for only while every member of the ring says that it belongs to the same one: what a node gives
//! up is deleted on all of them.
//!
//! ```text
//! DIR/scrub/namespace   16 hexadecimal digits; a person who removes it says that the chunks here may be judged by the
//!                       namespace that the node follows now
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
    #[error("the chunks here are of the namespace {marked:016x}, and the ring has another, {current:016x}; if they may be deleted, remove {}", path.display())]
    Other { marked: u64, current: u64, path: PathBuf },
    #[error("{}: {source}; so nobody knows which namespace the chunks here are of", path.display())]
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

    /// The node follows `current`: written down if it is the first.
    pub(super) fn follow(&self, current: u64) -> Result<(), MarkerError> {
        let _turn = self.writing.lock();
        match self.get()? {
            Some(marked) if marked == current => Ok(()),
            Some(marked) => Err(MarkerError::Other { marked, current, path: self.path.clone() }),
            None => self.write(current).map_err(|source| MarkerError::Io { path: self.path.clone(), source }),
        }
    }

    /// On the disk when this returns: nothing is judged before.
    fn write(&self, id: u64) -> io::Result<()> {
        chordfs_files::replace_durably(&self.path, format!("{id:016x}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_namespace_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mark = NamespaceMarker::new(dir.path());
        assert_eq!(mark.get().unwrap(), None);
        mark.follow(0xabc).unwrap();
        mark.follow(0xabc).unwrap();
        assert!(matches!(mark.follow(0xabd), Err(MarkerError::Other { marked: 0xabc, current: 0xabd, .. })));
        assert_eq!(NamespaceMarker::new(dir.path()).get().unwrap(), Some(0xabc));
        std::fs::remove_file(dir.path().join("namespace")).unwrap();
        mark.follow(0xabd).unwrap();
    }

    #[test]
    fn a_damaged_mark_is_no_mark_of_any_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let mark = NamespaceMarker::new(dir.path());
        for text in ["", "0000000000000abg\n", "abc\n", "0000000000000abc0\n"] {
            std::fs::write(dir.path().join("namespace"), text).unwrap();
            assert!(mark.get().is_err() && mark.follow(0xabc).is_err(), "{text:?}");
        }
    }
}
