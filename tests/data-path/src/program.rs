//! What a program does in a mount: it opens a few files that all mounts share, and reads, writes, syncs, cuts, renames
//! and removes them, with pauses, one operation after the other.

use std::{sync::Arc, time::Duration};

use chordfs_types::{
    fs_error::FsError,
    namespace::{EntryName, Ino, RenameMode, SetAttr, Time, Truncate},
};
use fuse_client::fs::{Caller, CreationMode, EntryLocation, FileRange};
use tokio::{sync::watch, time::sleep};

use crate::{
    mount::Mount,
    operation::Operation,
    oracle::{CELL_BYTES, CHUNK_CELLS, FILE_CELLS},
    random::Random,
    rivalry::{self, Rivalry},
};

const NAMES: [&str; 3] = ["a", "b", "c"];
const OWNER: Caller = Caller { uid: 0, gid: 0 };
const MODE: CreationMode = CreationMode { bits: 0o644, umask: 0 };
const MOST_OPEN: usize = 3;

pub(crate) struct Program {
    mount: Arc<Mount>,
    random: Random,
    open: Vec<OpenFile>,
    stop: watch::Receiver<bool>,
    operations: u64,
    /// Out of a hundred operations, those that set sizes, and those that remove or replace names.
    truncations: u64,
    removals: u64,
    rivalry: Option<Rivalry>,
}

#[derive(Clone, Copy)]
struct OpenFile {
    ino: Ino,
    handle: u64,
}

pub(crate) fn names() -> impl Iterator<Item = EntryName> {
    NAMES.iter().map(|name| entry_name(name))
}

fn entry_name(name: &'static str) -> EntryName {
    EntryName::new(name.as_bytes()).expect("it is a plain name")
}

impl Program {
    pub(crate) fn new(mount: Arc<Mount>, stream: u64, stop: watch::Receiver<bool>) -> Self {
        let mut random = Random::new(mount.world.seed, stream);
        let removals = if random.chance(25) { 20 } else { 4 };
        let truncations = if random.chance(25) { 25 } else { 6 };
        let rivalry = Rivalry::of(&mount, stream);
        let (truncations, removals) = match rivalry {
            None => (truncations, removals),
            Some(Rivalry::Empties) => (30, 1),
            Some(Rivalry::Follows | Rivalry::Writes) => (1, 1),
        };
        Self { mount, random, open: Vec::new(), stop, operations: 0, truncations, removals, rivalry }
    }

    /// Runs until it is told to stop, closes what it has open, and returns how many operations it made.
    pub(crate) async fn run(mut self) -> u64 {
        while !*self.stop.borrow() {
            let pause = self.random.spread(1, 3000);
            let _ = tokio::time::timeout(Duration::from_millis(pause), self.stop.changed()).await;
            self.step().await;
        }
        while let Some(file) = self.open.pop() {
            self.close(file).await;
        }
        self.operations
    }

    async fn step(&mut self) {
        self.operations += 1;
        if self.open.is_empty() || (self.open.len() < MOST_OPEN && self.random.chance(10)) {
            return self.open_or_create().await;
        }
        let at = self.random.below(self.open.len() as u64) as usize;
        let file = self.open[at];
        if self.random.chance(self.truncations) {
            return self.truncate(file).await;
        }
        if self.random.chance(self.removals) {
            return if self.random.chance(50) { self.unlink().await } else { self.rename().await };
        }
        match self.rivalry {
            Some(Rivalry::Follows) if self.random.chance(70) => return self.follow(file).await,
            Some(Rivalry::Writes) if self.random.chance(30) => return self.fsync(file).await,
            _ => {}
        }
        match self.random.below(100) {
            0..40 => self.write(file).await,
            40..66 => self.read(file).await,
            66..76 => self.fsync(file).await,
            76..86 => {
                self.open.swap_remove(at);
                self.close(file).await;
            }
            86..90 => self.set_times(file).await,
            90..92 => self.allocate(file).await,
            92..97 => self.follow(file).await,
            _ => sleep(Duration::from_secs(self.random.between(2, 6))).await,
        }
    }

    fn some_name(&mut self) -> EntryName {
        if self.rivalry.is_some() && self.random.chance(rivalry::PERCENT) {
            return entry_name(NAMES[0]);
        }
        entry_name(NAMES[self.random.below(NAMES.len() as u64) as usize])
    }

    async fn open_or_create(&mut self) {
        let name = self.some_name();
        let fs = &self.mount.fs;
        let looked_up = match fs.cached_lookup(Ino::ROOT, &name) {
            Some(known) => known,
            None => fs.lookup(Ino::ROOT, &name).await,
        };
        match looked_up {
            Ok(attr) => self.open_file(attr.ino).await,
            Err(FsError::NoEntry) => self.create(&name).await,
            Err(_) => {}
        }
    }

    async fn open_file(&mut self, ino: Ino) {
        let index = self.mount.oracle.begin_open();
        let began = Operation::begin(&self.mount, "open", ino);
        match self.mount.fs.open(ino, true).await {
            Ok(opened) => self.opened(ino, opened.handle, index),
            Err(error) => return began.failed(&error),
        }
        began.ended();
    }

    async fn create(&mut self, name: &EntryName) {
        let index = self.mount.oracle.begin_open();
        let created = self.mount.fs.create(Ino::ROOT, name, MODE, false, OWNER).await;
        if let Ok((attr, handle)) = created {
            self.opened(attr.ino, handle, index);
        }
    }

    fn opened(&mut self, ino: Ino, handle: u64, index: u64) {
        self.mount.oracle.opened(self.mount.number, ino, index, self.mount.session.id());
        self.open.push(OpenFile { ino, handle });
    }

    async fn close(&mut self, file: OpenFile) {
        let began = Operation::begin(&self.mount, "close", file.ino);
        let moment = self.mount.oracle.moment();
        let fs = &self.mount.fs;
        let flushed = if fs.try_flush(file.ino, file.handle) { Ok(()) } else { fs.flush(file.ino, file.handle).await };
        match flushed {
            Ok(()) => self.flushed(file.ino, moment, false),
            Err(error) => began.failed(&error),
        }
        began.ended();
        self.mount.oracle.closed(self.mount.number, file.ino);
        if !fs.try_release(file.ino, file.handle) {
            fs.release(file.ino, file.handle).await;
        }
    }

    async fn fsync(&mut self, file: OpenFile) {
        let began = Operation::begin(&self.mount, "fsync", file.ino);
        let moment = self.mount.oracle.moment();
        match self.mount.fs.fsync(file.ino, file.handle).await {
            Ok(()) => self.flushed(file.ino, moment, true),
            Err(error) => {
                began.failed(&error);
                self.mount.oracle.fsync_failed(self.mount.number, file.ino);
            }
        }
        began.ended();
    }

    fn flushed(&self, ino: Ino, moment: u64, is_fsync: bool) {
        let Mount { oracle, plane, namespace, number, .. } = &*self.mount;
        oracle.flushed(*number, ino, moment, is_fsync, plane, namespace);
    }

    async fn write(&mut self, file: OpenFile) {
        let (first, cells) = self.some_cells();
        let value = self.mount.oracle.fresh_value();
        let bytes = value.to_le_bytes().repeat(cells * CELL_BYTES as usize / 8);
        let began = Operation::begin(&self.mount, &format!("write of {value} to cells {first}+{cells}"), file.ino);
        let write = self.mount.oracle.begin_write(self.mount.number, file.ino, first..first + cells, value);
        let offset = first as u64 * CELL_BYTES;
        let fs = &self.mount.fs;
        let written = match fs.try_write(file.ino, offset, &bytes) {
            Some(written) => written,
            None => fs.write(file.ino, offset, bytes).await,
        };
        self.mount.oracle.end_write(&write, written.is_ok());
        if let Err(error) = written {
            began.failed(&error);
        }
        began.ended();
    }

    async fn read(&mut self, file: OpenFile) {
        let (first, cells) = self.some_cells();
        let began = Operation::begin(&self.mount, &format!("read of cells {first}+{cells}"), file.ino);
        let ticket = self.mount.oracle.begin_read(self.mount.number, file.ino);
        let (offset, len) = (first as u64 * CELL_BYTES, (cells as u64 * CELL_BYTES) as u32);
        let fs = &self.mount.fs;
        let read = match fs.try_read(file.ino, offset, len) {
            Some(read) => read,
            None => fs.read(file.ino, offset, len).await,
        };
        match read {
            Ok(bytes) => self.mount.oracle.end_read(&ticket, first, cells, &bytes),
            Err(error) => began.failed(&error),
        }
        began.ended();
    }

    /// Reads again and again, as a program that waits for news in a file.
    async fn follow(&mut self, file: OpenFile) {
        for _ in 0..self.random.between(5, 40) {
            if *self.stop.borrow() {
                return;
            }
            self.read(file).await;
            sleep(Duration::from_millis(self.random.spread(2, 500))).await;
        }
    }

    async fn truncate(&mut self, file: OpenFile) {
        let faults = self.mount.world.faults;
        let to_nothing = self.random.chance(if self.rivalry.is_some() { 90 } else { 40 });
        let cells = if to_nothing { 0 } else { self.random.below(FILE_CELLS as u64) as usize };
        if !(if to_nothing { faults.truncate_to_nothing } else { faults.attributes_while_writing }) {
            return;
        }
        let began = Operation::begin(&self.mount, &format!("truncation to {cells} cells"), file.ino);
        let cut = self.mount.oracle.begin_write(self.mount.number, file.ino, cells..FILE_CELLS, 0);
        let truncate = Some(Truncate { size: cells as u64 * CELL_BYTES, tail: None });
        let set = SetAttr { truncate, atime: Some(cut.mark()), ..SetAttr::default() };
        let done = self.mount.fs.set_attr(file.ino, set).await;
        self.mount.oracle.end_write(&cut, done.is_ok());
        if let Err(error) = done {
            began.failed(&error);
        }
        began.ended();
    }

    async fn set_times(&mut self, file: OpenFile) {
        if !self.mount.world.faults.attributes_while_writing {
            return;
        }
        let began = Operation::begin(&self.mount, "utimes", file.ino);
        let mtime = Some(Time { secs: 1_000_000, nanos: 0 });
        if let Err(error) = self.mount.fs.set_attr(file.ino, SetAttr { mtime, ..SetAttr::default() }).await {
            began.failed(&error);
        }
        began.ended();
    }

    async fn allocate(&mut self, file: OpenFile) {
        if !self.mount.world.faults.attributes_while_writing {
            return;
        }
        let cells = self.random.between(1, FILE_CELLS as u64);
        let range = FileRange { offset: 0, len: cells * CELL_BYTES };
        let began = Operation::begin(&self.mount, &format!("allocation of {cells} cells"), file.ino);
        if let Err(error) = self.mount.fs.allocate(file.ino, range, false).await {
            began.failed(&error);
        }
        began.ended();
    }

    async fn unlink(&mut self) {
        let name = self.some_name();
        let _ = self.mount.fs.unlink(Ino::ROOT, &name).await;
    }

    async fn rename(&mut self) {
        let (from, to) = (self.some_name(), self.some_name());
        let from = EntryLocation { parent: Ino::ROOT, name: from };
        let to = EntryLocation { parent: Ino::ROOT, name: to };
        let _ = self.mount.fs.rename(&from, &to, RenameMode::Replace).await;
    }

    /// Whole chunks as often as parts.
    fn some_cells(&mut self) -> (usize, usize) {
        if self.random.chance(50) {
            let chunks = FILE_CELLS / CHUNK_CELLS;
            let first = self.random.below(chunks as u64) as usize;
            let count = self.random.between(1, (chunks - first).min(3) as u64) as usize;
            return (first * CHUNK_CELLS, count * CHUNK_CELLS);
        }
        let first = self.random.below(FILE_CELLS as u64) as usize;
        (first, self.random.between(1, (FILE_CELLS - first).min(12) as u64) as usize)
    }
}
