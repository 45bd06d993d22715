//! A disk as of one moment: the bytes and names that were synced, and the changes that were not.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::random::Random;

/// The units in which a write may reach the disk: real sectors, and smaller ones, which tear small records too.
const SECTORS: [usize; 3] = [8, 64, 512];

/// The number of a file or folder; it stays when the name changes.
pub(crate) type FileId = usize;

/// A change, or a sync. Paths are relative to the recorded folder.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create {
        path: PathBuf,
        file: FileId,
        is_folder: bool,
    },
    Write {
        file: FileId,
        at: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        file: FileId,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Sync {
        file: FileId,
    },
    /// A sync that failed: the kernel forgets that the file has bytes to be written.
    FailedSync {
        file: FileId,
    },
    SyncFolder {
        path: PathBuf,
    },
    /// The kernel needs memory and drops the pages that a failed sync left clean: they read as the disk has them.
    Evict,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<FileState>,
    /// What a program sees.
    names: Names,
    synced_names: Names,
    /// Changes of names since their folder was synced.
    pending_names: Vec<NameChange>,
}

type Names = BTreeMap<PathBuf, FileId>;

#[derive(Clone, Debug, Default)]
struct FileState {
    is_folder: bool,
    /// What a program sees.
    bytes: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<ByteChange>,
    /// What a failed sync did not write: still in the page cache, but no later sync writes it.
    cache_only: Vec<Range<usize>>,
}

#[derive(Clone, Debug)]
enum ByteChange {
    Write { at: u64, bytes: Vec<u8>, lost: bool },
    SetLen(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, FileId),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, FileId),
}

impl Disk {
    /// Reads the folder `root`, of which everything counts as synced.
    pub(crate) fn of_folder(root: &Path) -> Self {
        let mut disk = Self::default();
        disk.read(root, Path::new(""));
        disk.synced_names = disk.names.clone();
        disk
    }

    fn read(&mut self, root: &Path, below: &Path) {
        for entry in fs::read_dir(root.join(below)).expect("the recorded folder can be read") {
            let path = below.join(entry.expect("an entry can be read").file_name());
            let whole = root.join(&path);
            let is_folder = whole.is_dir();
            let bytes = if is_folder { Vec::new() } else { fs::read(&whole).expect("a file can be read") };
            self.names.insert(path.clone(), self.files.len());
            self.files.push(FileState { is_folder, synced: bytes.clone(), bytes, ..FileState::default() });
            if is_folder {
                self.read(root, &path);
            }
        }
    }

    pub(crate) fn next_file(&self) -> FileId {
        self.files.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&Path, FileId)> {
        self.names.iter().map(|(path, file)| (path.as_path(), *file))
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { path, file, is_folder } => {
                assert_eq!(*file, self.files.len(), "files are numbered in the order of their creation");
                self.files.push(FileState { is_folder: *is_folder, ..FileState::default() });
                self.change_name(NameChange::Add(path.clone(), *file));
            }
            Operation::Write { file, at, bytes } => {
                self.files[*file].change(ByteChange::Write { at: *at, bytes: bytes.clone(), lost: false });
            }
            Operation::SetLen { file, len } => self.files[*file].change(ByteChange::SetLen(*len)),
            Operation::Rename { from, to } => {
                if let Some(file) = self.names.get(from).copied() {
                    self.change_name(NameChange::Rename(from.clone(), to.clone(), file));
                }
            }
            Operation::Remove { path } => self.change_name(NameChange::Remove(path.clone())),
            Operation::Sync { file } => self.files[*file].sync(),
            Operation::FailedSync { file } => self.files[*file].fail_sync(),
            Operation::SyncFolder { path } => self.sync_folder(path),
            Operation::Evict => self.files.iter_mut().for_each(FileState::evict),
        }
    }

    /// The paths of the files with pages that [`Operation::Evict`] changes, and their contents after it.
    pub(crate) fn evicted(&self) -> Vec<(&Path, Vec<u8>)> {
        let with_lost_pages = self.names().filter(|(_, file)| !self.files[*file].cache_only.is_empty());
        with_lost_pages.map(|(path, file)| (path, self.files[file].bytes_after_evict())).collect()
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn sync_folder(&mut self, folder: &Path) {
        let covered = |change: &NameChange| change.target().parent() == Some(folder);
        self.pending_names
            .iter()
            .filter(|change| covered(change))
            .for_each(|change| change.apply(&mut self.synced_names));
        self.pending_names.retain(|change| !covered(change));
    }

    /// What the disk holds after a power cut: everything synced, and any part of the rest.
    pub fn power_cut(&self, random: &mut Random) -> Self {
        let mut names = self.synced_names.clone();
        // A journal keeps the order of changes; without one, each may be missing.
        let in_order = random.chance(50).then(|| random.below(self.pending_names.len() as u64 + 1) as usize);
        let percent = [0, 50, 90, 100][random.below(4) as usize];
        for (at, change) in self.pending_names.iter().enumerate() {
            if in_order.map_or_else(|| random.chance(percent), |kept| at < kept) {
                change.apply(&mut names);
            }
        }
        // Without its folder a file is gone. Folders come first, so a folder without a folder is gone before its files.
        for path in names.keys().cloned().collect::<Vec<_>>() {
            if path.parent().is_some_and(|folder| folder != Path::new("") && !names.contains_key(folder)) {
                names.remove(&path);
            }
        }
        let files = self.files.iter().map(|file| file.power_cut(random)).collect();
        Self { files, synced_names: names.clone(), names, pending_names: Vec::new() }
    }

    /// Writes what a program sees into the empty folder `root`.
    pub fn materialize(&self, root: &Path) {
        // A folder comes before what it contains.
        for (path, file) in &self.names {
            let (path, file) = (root.join(path), &self.files[*file]);
            let made = if file.is_folder { fs::create_dir(&path) } else { fs::write(&path, &file.bytes) };
            made.expect("a file can be made");
        }
    }
}

impl FileState {
    fn change(&mut self, change: ByteChange) {
        change.apply(&mut self.bytes);
        // A page that is written again is written to the disk by the next sync.
        let again = match &change {
            ByteChange::Write { at, bytes, .. } => *at as usize..*at as usize + bytes.len(),
            ByteChange::SetLen(len) => *len as usize..usize::MAX,
        };
        let parts = |lost: Range<usize>| [lost.start..lost.end.min(again.start), lost.start.max(again.end)..lost.end];
        self.cache_only = self.cache_only.drain(..).flat_map(parts).filter(|part| !part.is_empty()).collect();
        self.pending.push(change);
    }

    fn sync(&mut self) {
        // What an earlier sync failed to write is not written by a later one.
        for change in self.pending.drain(..).filter(|change| !change.is_lost()) {
            change.apply(&mut self.synced);
        }
    }

    fn fail_sync(&mut self) {
        for change in &mut self.pending {
            if let ByteChange::Write { lost, at, bytes } = change
                && !*lost
            {
                *lost = true;
                self.cache_only.push(*at as usize..*at as usize + bytes.len());
            }
        }
    }

    fn evict(&mut self) {
        self.bytes = self.bytes_after_evict();
        self.cache_only.clear();
        self.pending.retain(|change| !change.is_lost());
    }

    fn bytes_after_evict(&self) -> Vec<u8> {
        let (mut on_disk, mut bytes) = (self.synced.clone(), self.bytes.clone());
        self.pending.iter().filter(|change| !change.is_lost()).for_each(|change| change.apply(&mut on_disk));
        on_disk.resize(bytes.len(), 0);
        for lost in &self.cache_only {
            let lost = lost.start.min(bytes.len())..lost.end.min(bytes.len());
            bytes[lost.clone()].copy_from_slice(&on_disk[lost]);
        }
        bytes
    }

    fn power_cut(&self, random: &mut Random) -> Self {
        let mut bytes = self.synced.clone();
        let sector = SECTORS[random.below(3) as usize];
        let percent = [0, 20, 50, 90, 100][random.below(5) as usize];
        for change in &self.pending {
            match change {
                ByteChange::Write { at, bytes: new, .. } => {
                    write_sectors(&mut bytes, *at, new, sector, random, percent)
                }
                ByteChange::SetLen(_) if random.chance(percent) => change.apply(&mut bytes),
                ByteChange::SetLen(_) => {}
            }
        }
        // The length may reach the disk before the bytes.
        if random.chance(30) && self.bytes.len() > bytes.len() && !self.pending.is_empty() {
            bytes.resize(self.bytes.len(), 0);
        }
        Self { is_folder: self.is_folder, synced: bytes.clone(), bytes, ..Self::default() }
    }
}

fn write_sectors(bytes: &mut Vec<u8>, at: u64, new: &[u8], sector: usize, random: &mut Random, percent: u64) {
    let mut from = at as usize;
    let end = from + new.len();
    while from < end {
        let next = (from / sector * sector + sector).min(end);
        // A sector may be torn: its front is written, its end is as before.
        let written = match random.chance(percent) {
            true => next,
            false if random.chance(5) => from + random.below((next - from) as u64) as usize,
            false => from,
        };
        if written > from {
            write_at(bytes, from, &new[from - at as usize..written - at as usize]);
        }
        from = next;
    }
}

fn write_at(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Moves what is in the folder `from`, if it is one, to the folder `to`.
pub(crate) fn move_contents<T>(names: &mut BTreeMap<PathBuf, T>, from: &Path, to: &Path) {
    let inside: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in inside {
        let below = path.strip_prefix(from).expect("it starts with it").to_owned();
        if let Some(value) = names.remove(&path) {
            names.insert(to.join(below), value);
        }
    }
}

impl ByteChange {
    fn is_lost(&self) -> bool {
        matches!(self, Self::Write { lost: true, .. })
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes: new, .. } => write_at(bytes, *at as usize, new),
            Self::SetLen(len) => bytes.resize(*len as usize, 0),
        }
    }
}

impl NameChange {
    fn target(&self) -> &Path {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => path,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                    move_contents(names, from, to);
                }
                names.insert(to.clone(), *file);
            }
        }
    }
}
