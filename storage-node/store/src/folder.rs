//! The data folder of a node: its lock, its format, and the number that identifies this disk's data.
//!
//! The chunk store and the namespace's log share one folder and its lock, so the folder is a value of its own: opened
//! once, cheap to clone, locked as long as any clone lives. The contents of the sub-folders belong to the store and to
//! the namespace.
//!
//! ```text
//! DIR/FORMAT   "chordfs data folder, format 1\n"; written first, so a folder with data always has it
//! DIR/LOCK     empty; held with flock(2) by the process that uses the folder
//! DIR/uid      16 hexadecimal digits: the node uid, random, made at the first open
//! ```

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use chordfs_files::{create_folder_durably, replace_durably, sync_folder};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use thiserror::Error;

/// The format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
const FORMAT_PREFIX: &str = "chordfs data folder, format ";

#[derive(Debug, Error)]
pub enum FolderError {
    #[error("{}: not a folder", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{}: another process has this data folder open; stop it, or choose another folder", path.display())]
    InUse { path: PathBuf },
    #[error("{}: not writable ({source}); check its owner, its mode and that it is not mounted read-only", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
    #[error("{}: the data has format {found}, this program knows formats up to {FORMAT_VERSION}; use a newer program", path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{}: not a chordfs data folder ({why})", path.display())]
    Foreign { path: PathBuf, why: &'static str },
    #[error("{step} {}: {source}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
}

/// An open, locked data folder. The lock is released with the last clone.
#[derive(Clone, Debug)]
pub struct DataFolder {
    inner: Arc<OpenFolder>,
}

#[derive(Debug)]
struct OpenFolder {
    path: PathBuf,
    node_uid: AtomicU64,
    is_new: bool,
    _lock: Flock<File>,
}

impl DataFolder {
    /// Opens the folder `path`, and creates it if it does not exist. Changes nothing in a folder that it refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FolderError> {
        let path = path.as_ref();
        make_folder(path)?;
        let lock = take_lock(path)?;
        check_format(path)?;
        protect(path).map_err(io_error("remove the permissions of others from", path))?;
        let (node_uid, is_new) = match read_uid(path)? {
            Some(uid) => (uid, false),
            None => {
                // A process that was killed may have left FORMAT visible and not durable. A power cut must not take it
                // and keep the uid: a folder with a uid and no FORMAT is refused.
                sync_folder(path).map_err(io_error("sync the folder", path))?;
                (make_uid(path)?, true)
            }
        };
        Ok(Self {
            inner: Arc::new(OpenFolder { path: path.to_owned(), node_uid: node_uid.into(), is_new, _lock: lock }),
        })
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Identifies this disk's data: a folder that was emptied gets another number, even on the same machine.
    pub fn node_uid(&self) -> u64 {
        self.inner.node_uid.load(Relaxed)
    }

    /// Whether the folder got its uid when it was opened.
    pub fn is_new(&self) -> bool {
        self.inner.is_new
    }

    /// Gives the folder another uid and returns it: to its peers this node is then one that they have never met. For a
    /// node that no longer has what it promised under the former one.
    pub fn renew_uid(&self) -> Result<u64, FolderError> {
        let node_uid = make_uid(self.path())?;
        self.inner.node_uid.store(node_uid, Relaxed);
        Ok(node_uid)
    }

    /// Returns the path of the sub-folder `name`, and creates it if it does not exist.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf, FolderError> {
        let path = self.inner.path.join(name);
        make_folder(&path)?;
        Ok(path)
    }
}

fn make_folder(path: &Path) -> Result<(), FolderError> {
    match create_folder_durably(path, 0o700) {
        Ok(()) => Ok(()),
        Err(_) if fs::metadata(path).is_ok_and(|found| !found.is_dir()) => {
            Err(FolderError::NotAFolder { path: path.to_owned() })
        }
        Err(source) => Err(open_error("make folder", path, source)),
    }
}

/// Removes all permissions of group and others from `path` and everything below it: the folder holds the files of all
/// users, whatever their modes in the mount. Folders made by earlier versions were readable.
fn protect(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !0o077))?;
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // The root of an ext4 file system has this folder, which belongs to root.
            if entry.file_name() != "lost+found" {
                protect(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn take_lock(folder: &Path) -> Result<Flock<File>, FolderError> {
    let path = folder.join("LOCK");
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.map_err(|source| open_error("open", folder, source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => FolderError::InUse { path: folder.to_owned() },
        other => FolderError::Io { step: "lock", path, source: other.into() },
    })
}

fn check_format(folder: &Path) -> Result<(), FolderError> {
    let path = folder.join("FORMAT");
    match fs::read_to_string(&path) {
        Ok(text) => check_format_text(folder, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin_format(folder),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(FolderError::Foreign { path: folder.to_owned(), why: "its file FORMAT is not text" })
        }
        Err(source) => Err(FolderError::Io { step: "read", path, source }),
    }
}

fn check_format_text(folder: &Path, text: &str) -> Result<(), FolderError> {
    let number = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(1..=FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => Err(FolderError::NewerFormat { path: folder.to_owned(), found }),
        _ => Err(FolderError::Foreign { path: folder.to_owned(), why: "its file FORMAT names no chordfs format" }),
    }
}

fn begin_format(folder: &Path) -> Result<(), FolderError> {
    if folder.join("chunks").exists() || folder.join("uid").exists() {
        return Err(FolderError::Foreign { path: folder.to_owned(), why: "it has data but no file FORMAT" });
    }
    write_whole(folder, "FORMAT", &format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n"))
}

fn read_uid(folder: &Path) -> Result<Option<u64>, FolderError> {
    let path = folder.join("uid");
    match fs::read_to_string(&path) {
        Ok(text) => u64::from_str_radix(text.trim_end(), 16)
            .map(Some)
            .map_err(|_| FolderError::Foreign { path: folder.to_owned(), why: "its file uid holds no number" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FolderError::Io { step: "read", path, source }),
    }
}

fn make_uid(folder: &Path) -> Result<u64, FolderError> {
    let uid = rand::random::<u64>();
    write_whole(folder, "uid", &format!("{uid:016x}\n"))?;
    Ok(uid)
}

/// Writes a file that is complete or absent after a crash.
fn write_whole(folder: &Path, name: &str, text: &str) -> Result<(), FolderError> {
    let path = folder.join(name);
    replace_durably(&path, text.as_bytes()).map_err(|source| open_error("write", &path, source))
}

fn open_error(step: &'static str, path: &Path, source: io::Error) -> FolderError {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    match source.kind() {
        NotADirectory => FolderError::NotAFolder { path: path.to_owned() },
        PermissionDenied | ReadOnlyFilesystem => FolderError::NotWritable { path: path.to_owned(), source },
        _ => FolderError::Io { step, path: path.to_owned(), source },
    }
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use chordfs_power_cut::{Random, Recording};

    use super::*;

    #[test]
    fn the_uid_stays_and_differs_between_folders() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uid = DataFolder::open(one.path().join("deep/er")).unwrap().node_uid();
        assert_eq!(DataFolder::open(one.path().join("deep/er")).unwrap().node_uid(), uid);
        assert_ne!(DataFolder::open(other.path()).unwrap().node_uid(), uid);
        let renewed = DataFolder::open(one.path().join("deep/er")).unwrap().renew_uid().unwrap();
        assert_ne!(renewed, uid);
        assert_eq!(DataFolder::open(one.path().join("deep/er")).unwrap().node_uid(), renewed);
    }

    #[test]
    fn the_uid_is_the_former_or_the_new_one_whenever_the_power_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let recording = Recording::start(dir.path());
        let former = DataFolder::open(dir.path().join("data")).unwrap().node_uid();
        let opened = recording.steps();
        let renewed = DataFolder::open(dir.path().join("data")).unwrap().renew_uid().unwrap();
        for step in 0..=recording.steps() {
            for seed in 0..8 {
                let after = tempfile::tempdir().unwrap();
                recording.disk_after(step).power_cut(&mut Random::new(seed)).materialize(after.path());
                let found = DataFolder::open(after.path().join("data")).unwrap();
                let is_known = [former, renewed].contains(&found.node_uid());
                assert!(is_known || (step < opened && found.is_new()), "step {step}, seed {seed}");
            }
        }
    }

    /// Earlier versions left 0755 and 0644 behind: every user of the machine could read every file of the ring.
    #[test]
    fn other_users_can_read_nothing_even_in_a_folder_that_existed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, inside) = (dir.path().join("node"), dir.path().join("node/chunks"));
        let segment = inside.join("1.seg");
        drop(DataFolder::open(&folder).unwrap());
        fs::create_dir(&inside).unwrap();
        fs::write(&segment, "bytes").unwrap();
        for (path, mode) in [(&folder, 0o755), (&inside, 0o775), (&segment, 0o644)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        drop(DataFolder::open(&folder).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&inside), mode(&segment)), (0o700, 0o700, 0o600));
        assert_eq!(mode(&folder.join("uid")) & 0o077, 0);
    }

    #[test]
    fn a_second_open_is_refused_and_names_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataFolder::open(dir.path()).unwrap();
        let error = DataFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, FolderError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
        drop(first);
        DataFolder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_and_an_unknown_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open_with = |text: &[u8]| {
            fs::write(dir.path().join("FORMAT"), text).unwrap();
            DataFolder::open(dir.path()).unwrap_err()
        };
        let newer = open_with(b"chordfs data folder, format 2\n");
        assert!(matches!(newer, FolderError::NewerFormat { found: 2, .. }), "{newer}");
        for strange in [&b"hello"[..], b"", b"chordfs data folder, format x", b"\xff\xfe"] {
            let error = open_with(strange);
            assert!(matches!(error, FolderError::Foreign { .. }), "{error}");
        }
        assert!(!dir.path().join("uid").exists(), "a refused folder stays as it was");
    }

    #[test]
    fn data_without_a_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("chunks")).unwrap();
        assert!(matches!(DataFolder::open(dir.path()), Err(FolderError::Foreign { .. })));
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = DataFolder::open(&path).unwrap_err();
            assert!(matches!(error, FolderError::NotAFolder { .. }), "{error}");
        }
    }
}
