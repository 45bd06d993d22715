//! Recordings: which folders are recorded, and the operations below them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::{
    disk::{Disk, FileId, Operation, move_contents},
    system_calls,
};

/// How many recordings run, so that a process without one pays nothing.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static TABLE: Mutex<Option<RecordingTable>> = Mutex::new(None);

#[derive(Default)]
pub(crate) struct RecordingTable {
    recordings: HashMap<PathBuf, Journal>,
    pub(crate) open: HashMap<libc::c_int, OpenFile>,
}

/// An open descriptor of a recorded file or folder.
#[derive(Clone)]
pub(crate) struct OpenFile {
    pub(crate) root: PathBuf,
    pub(crate) target: OpenTarget,
}

#[derive(Clone)]
pub(crate) enum OpenTarget {
    File { file: FileId, appends: bool },
    Folder(PathBuf),
}

pub(crate) struct Journal {
    start: Disk,
    operations: Vec<Operation>,
    /// Attempted operations, failed ones included.
    attempts: usize,
    failing: Option<(usize, usize, libc::c_int)>,
    files: BTreeMap<PathBuf, FileId>,
    next_file: FileId,
}

impl Journal {
    fn new(start: Disk) -> Self {
        let files = start.names().map(|(path, file)| (path.to_owned(), file)).collect();
        let next_file = start.next_file();
        Self { start, operations: Vec::new(), attempts: 0, failing: None, files, next_file }
    }

    /// Counts an operation; returns the error that it fails with, if any.
    pub(crate) fn attempt(&mut self) -> Result<(), libc::c_int> {
        let step = self.attempts;
        self.attempts += 1;
        match self.failing {
            Some((from, to, errno)) if (from..to).contains(&step) => Err(errno),
            _ => Ok(()),
        }
    }

    pub(crate) fn record(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    pub(crate) fn file(&self, path: &Path) -> Option<FileId> {
        self.files.get(path).copied()
    }

    pub(crate) fn create(&mut self, path: &Path, is_folder: bool) -> FileId {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(path.to_owned(), file);
        self.record(Operation::Create { path: path.to_owned(), file, is_folder });
        file
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(file) = self.files.remove(from) {
            move_contents(&mut self.files, from, to);
            self.files.insert(to.to_owned(), file);
            self.record(Operation::Rename { from: from.to_owned(), to: to.to_owned() });
        }
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        self.files.remove(path);
        self.record(Operation::Remove { path: path.to_owned() });
    }
}

impl RecordingTable {
    /// The recording that `path` belongs to, its root, and the path relative to that.
    pub(crate) fn at(&mut self, path: &Path) -> Option<(PathBuf, PathBuf, &mut Journal)> {
        let (root, journal) = self.recordings.iter_mut().find(|(root, _)| path.starts_with(root))?;
        let below = path.strip_prefix(root).expect("it starts with the root").to_owned();
        Some((root.clone(), below, journal))
    }

    pub(crate) fn of_descriptor(&mut self, fd: libc::c_int) -> Option<(OpenTarget, &mut Journal)> {
        let open = self.open.get(&fd)?.clone();
        Some((open.target, self.recordings.get_mut(&open.root)?))
    }
}

/// The recordings, unless there is none.
pub(crate) fn table() -> Option<MutexGuard<'static, Option<RecordingTable>>> {
    (RUNNING.load(SeqCst) > 0).then(|| TABLE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A running recording of one folder. It ends on drop.
pub struct Recording {
    root: PathBuf,
}

impl Recording {
    /// Records the folder `root`; everything that it contains counts as synced.
    pub fn start(root: &Path) -> Self {
        Self::of(Disk::of_folder(root), root)
    }

    /// Writes what a program sees on `disk` into the empty folder `root` and records from there, as if the program
    /// that wrote it had been killed: what it had not synced still is not.
    pub fn resume(disk: Disk, root: &Path) -> Self {
        disk.materialize(root);
        Self::of(disk, root)
    }

    fn of(disk: Disk, root: &Path) -> Self {
        RUNNING.fetch_add(1, SeqCst);
        let this = Self { root: root.to_owned() };
        this.with_table(|table| table.recordings.insert(root.to_owned(), Journal::new(disk)));
        this
    }

    /// How many operations were recorded so far.
    pub fn steps(&self) -> usize {
        self.with(|journal| journal.operations.len())
    }

    /// How many operations were attempted so far, failed ones included.
    pub fn attempts(&self) -> usize {
        self.with(|journal| journal.attempts)
    }

    /// Lets the attempts from `from` up to, but not including, `to` fail with `errno`.
    pub fn fail(&self, from: usize, to: usize, errno: i32) {
        self.with(|journal| journal.failing = Some((from, to, errno)));
    }

    /// Drops from the page cache what failed syncs did not write, as the kernel does when it needs memory.
    pub fn evict(&self) {
        let disk = self.disk();
        self.with(|journal| journal.record(Operation::Evict));
        for (path, bytes) in disk.evicted() {
            system_calls::overwrite(&self.root.join(path), &bytes);
        }
    }

    /// The disk after so many operations.
    pub fn disk_after(&self, steps: usize) -> Disk {
        self.with(|journal| {
            let mut disk = journal.start.clone();
            journal.operations[..steps].iter().for_each(|operation| disk.apply(operation));
            disk
        })
    }

    /// The disk now.
    pub fn disk(&self) -> Disk {
        self.disk_after(self.steps())
    }

    /// The operations from `from` on as text, for the message of a failed test.
    pub fn describe(&self, from: usize, to: usize) -> String {
        self.with(|journal| {
            let text = |operation: &Operation| match operation {
                Operation::Write { file, at, bytes } => format!("write {file} at {at}: {} bytes", bytes.len()),
                other => format!("{other:?}"),
            };
            journal.operations[from..to.min(journal.operations.len())].iter().map(text).collect::<Vec<_>>().join("\n")
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Journal) -> T) -> T {
        self.with_table(|table| work(table.recordings.get_mut(&self.root).expect("it runs until the drop")))
    }

    fn with_table<T>(&self, work: impl FnOnce(&mut RecordingTable) -> T) -> T {
        work(TABLE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.with_table(|table| {
            table.recordings.remove(&self.root);
            table.open.retain(|_, open| open.root != self.root);
        });
        RUNNING.fetch_sub(1, SeqCst);
    }
}
