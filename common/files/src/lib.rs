//! Durable files and names: replacing a small file as a whole, so that a crash leaves its old or its new contents and
//! never a mixture; new folders; bytes whose sync has failed.
//!
//! New contents are written to `PATH.new`, which is then renamed to `PATH`. All calls block.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// How much [`write_again`] reads and writes at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Replaces the file at `path`. When this returns, the new contents are on disk under that name.
pub fn replace_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    rename_durably(&temporary, path)
}

/// Replaces the file at `path`, which is for its owner alone: at no moment can another user read it. When this returns,
/// the new contents are on disk under that name.
pub fn replace_secret_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    rename_durably(&temporary, path)
}

/// Replaces the file at `path` without waiting for the disk: after a crash of the process it has the old or the new
/// contents, after a crash of the machine it may also be damaged. For contents that are cheap to lose.
pub fn replace_without_sync(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    fs::write(&temporary, contents)?;
    fs::rename(&temporary, path)
}

/// Renames a file whose contents are on disk already. When this returns, the new name is on disk as well.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_name(to)
}

/// Makes the name `path` of a new file or folder durable.
pub fn sync_name(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes created, renamed and removed names in a folder durable: a new file survives a power cut only once its folder
/// has been synced too.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates the folder at `path`, and those above it that are missing, with `mode`, unless they exist. When this
/// returns, their names are on disk, also if a killed process had created them.
pub fn create_folder_durably(path: &Path, mode: u32) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above.filter(|above| !above.exists()) {
        create_folder_durably(above, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => above.map_or(Ok(()), sync_own_name)?,
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        Err(_) => {}
    }
    sync_own_name(path)
}

/// Like [`sync_name`], unless this user may not read the parent folder: someone else has then made `path`.
fn sync_own_name(path: &Path) -> io::Result<()> {
    match sync_name(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Writes bytes of a file to where they are. After a failed sync, or one of a killed process of which nobody knows, the
/// kernel may take bytes for written that are only in its memory; only written again do they reach the disk with the
/// next sync.
pub fn write_again(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min(range.end - range.start) as usize];
    let mut at = range.start;
    while at < range.end {
        let piece = &mut piece[..PIECE_BYTES.min(range.end - at) as usize];
        file.read_exact_at(piece, at)?;
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use chordfs_power_cut::{Random, Recording};

    use super::*;

    #[test]
    fn a_file_is_replaced_and_no_other_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.json");
        for (replace, contents) in [
            (replace_durably as fn(&Path, &[u8]) -> io::Result<()>, b"first".as_slice()),
            (replace_without_sync, b"second"),
            (replace_durably, b""),
        ] {
            replace(&path, contents).unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    /// Also a file of a node's id, address or namespace, or the state of a pool.
    #[test]
    fn a_power_cut_at_any_step_leaves_the_old_or_the_new_contents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/uid");
        let recording = Recording::start(folder.path());
        create_folder_durably(path.parent().unwrap(), 0o700).unwrap();
        let mut moments = vec![recording.steps()];
        for contents in ["first", "second, and longer", "third"] {
            replace_durably(&path, contents.as_bytes()).unwrap();
            moments.push(recording.steps());
        }
        for step in 0..=recording.steps() {
            for seed in 0..6 {
                let after = tempfile::tempdir().unwrap();
                recording.disk_after(step).power_cut(&mut Random::new(seed)).materialize(after.path());
                let found = fs::read_to_string(after.path().join("deep/er/uid")).ok();
                let done = moments.iter().filter(|moment| **moment <= step).count();
                let expected = [None, None, Some("first"), Some("second, and longer"), Some("third"), Some("third")];
                assert!(expected[done..=done + 1].contains(&found.as_deref()), "step {step}, seed {seed}: {found:?}");
            }
        }
    }

    #[test]
    fn a_longer_temporary_file_that_a_crash_left_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uid");
        fs::write(folder.path().join("uid.new"), "half of a longer file").unwrap();
        replace_durably(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
