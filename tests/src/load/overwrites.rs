//! Random overwrites with fsync, read back and compared, byte by byte, through the own mount and, once closed, through
//! the other one. Every 16 bytes are stamped with their file, their write and their offset, so a wrong byte shows
//! whether it is old, zero or from another file.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{FinalCheck, Mounts, Record};

const STAMP: usize = 16;
/// Files that are kept for the final check; older ones are removed.
const KEPT: usize = 3;

pub(super) struct Overwrites {
    mounts: Mounts,
    random: StdRng,
    finished: VecDeque<Model>,
}

/// The contents that a file must have.
#[derive(Clone)]
struct Model {
    name: String,
    number: u32,
    generation: u32,
    bytes: Vec<u8>,
}

impl Overwrites {
    pub(super) fn new(mounts: Mounts, seed: u64) -> Self {
        Self { mounts, random: StdRng::seed_from_u64(seed), finished: VecDeque::new() }
    }

    pub(super) fn run(mut self, record: &Record) -> FinalCheck {
        for number in 0.. {
            if record.is_stopped() {
                break;
            }
            let name = format!("overwritten-{}-{number}", self.mounts.label);
            let mut model = Model { name, number, generation: 0, bytes: Vec::new() };
            if self.one_file(record, &mut model).is_some() {
                self.finished.push_back(model);
            }
            self.remove_old(record);
        }
        let finished = self.finished;
        Box::new(move |record, fresh| {
            for model in finished {
                model.compare(record, "read at the end", fresh);
            }
        })
    }

    /// None: an operation failed, and the contents of the file are uncertain.
    fn one_file(&mut self, record: &Record, model: &mut Model) -> Option<()> {
        let path = self.mounts.own.join(&model.name);
        let stamps = self.random.random_range(4_000..100_000);
        let file = record.attempt("create", &path, || OpenOptions::new().write(true).create_new(true).open(&path))?;
        self.write(record, &file, model, 0, stamps)?;
        for round in 0..6 {
            for _ in 0..8 {
                let len = self.random.random_range(1..4_000.min(stamps));
                let at = self.random.random_range(0..stamps - len);
                self.write(record, &file, model, at, len)?;
            }
            record.attempt("fsync", &path, || file.sync_all())?;
            model.compare(record, "read", &self.mounts.own)?;
            if record.is_stopped() && round > 0 {
                break;
            }
        }
        record.attempt("close", &path, || close(file))?;
        model.compare(record, "read elsewhere", &self.mounts.other)
    }

    /// Stamps `at..at + len`, in the file and the model.
    fn write(&self, record: &Record, file: &File, model: &mut Model, at: usize, len: usize) -> Option<()> {
        let range = model.stamp(at, len);
        let path = self.mounts.own.join(&model.name);
        record.attempt("write", &path, || file.write_all_at(&model.bytes[range.clone()], range.start as u64))
    }

    fn remove_old(&mut self, record: &Record) {
        while self.finished.len() > KEPT {
            let old = self.finished.pop_front().expect("there are more than none");
            let path = self.mounts.own.join(old.name);
            record.attempt("remove", &path, || fs::remove_file(&path));
        }
    }
}

impl Model {
    fn stamp(&mut self, at: usize, len: usize) -> std::ops::Range<usize> {
        self.generation += 1;
        let range = at * STAMP..(at + len) * STAMP;
        self.bytes.resize(self.bytes.len().max(range.end), 0);
        for (place, stamp) in self.bytes[range.clone()].chunks_exact_mut(STAMP).enumerate() {
            stamp[..4].copy_from_slice(&self.number.to_be_bytes());
            stamp[4..8].copy_from_slice(&self.generation.to_be_bytes());
            stamp[8..].copy_from_slice(&((range.start + place * STAMP) as u64).to_be_bytes());
        }
        range
    }

    fn compare(&self, record: &Record, operation: &'static str, mount: &Path) -> Option<()> {
        let path: PathBuf = mount.join(&self.name);
        let found = record.attempt(operation, &path, || fs::read(&path))?;
        if found == self.bytes {
            return Some(());
        }
        record.wrong(operation, &path, self.difference(&found));
        None
    }

    fn difference(&self, found: &[u8]) -> String {
        let wrong = self.bytes.chunks(STAMP).zip(found.chunks(STAMP)).enumerate().filter(|(_, (a, b))| a != b);
        let places: Vec<_> = wrong.map(|(at, _)| at * STAMP).collect();
        let Some(&first) = places.first() else {
            return format!("{} bytes instead of {}", found.len(), self.bytes.len());
        };
        let show =
            |bytes: &[u8]| bytes[first..].iter().take(STAMP).map(|byte| format!("{byte:02x}")).collect::<String>();
        let (is, must) = (show(found), show(&self.bytes));
        let (count, last, len) = (places.len(), places.last().expect("there is a first"), self.bytes.len());
        format!(
            "{count} stamps differ, from {first} to {last} of {len} bytes ({} found): {is} is not {must}",
            found.len()
        )
    }
}

/// close(2), with its error.
pub(super) fn close(file: File) -> io::Result<()> {
    Ok(nix::unistd::close(file)?)
}
