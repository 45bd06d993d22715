//! Exclusive creation and renames, from two mounts at the same moment. Exactly one of two creators of a name wins, and
//! exactly one of two renames. The history of the winners is compared with the files at the end, so an operation that
//! was lost or done twice is found.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

use super::{FinalCheck, Record, overwrites::close, trees::names_in};

/// The number of names in one folder; then the worker creates a new folder.
const ROUNDS: u32 = 200;

pub(super) struct Names {
    mounts: [PathBuf; 2],
    /// The files that must exist, by path below the mount, with their contents, which name the creator.
    history: BTreeMap<PathBuf, String>,
    /// Folders in which all operations succeeded, so that all their names are in the history.
    known: Vec<PathBuf>,
}

impl Names {
    pub(super) fn new(one: PathBuf, two: PathBuf) -> Self {
        Self { mounts: [one, two], history: BTreeMap::new(), known: Vec::new() }
    }

    pub(super) fn run(mut self, record: &Record) -> FinalCheck {
        for number in 0.. {
            if record.is_stopped() {
                break;
            }
            let folder = PathBuf::from(format!("names-{number}"));
            let path = self.mounts[0].join(&folder);
            if record.attempt("mkdir", &path, || fs::create_dir(&path)).is_some() && self.fill(record, &folder) {
                self.known.push(folder);
            }
        }
        Box::new(move |record, fresh| self.check(record, fresh))
    }

    /// Returns whether all operations in the folder succeeded.
    fn fill(&mut self, record: &Record, folder: &Path) -> bool {
        let mut all = true;
        for round in 0..ROUNDS {
            if record.is_stopped() {
                break;
            }
            all &= self.one_round(record, folder, round).is_some();
        }
        all
    }

    fn one_round(&mut self, record: &Record, folder: &Path, round: u32) -> Option<()> {
        let name = folder.join(format!("lock-{round}"));
        let creator = self.race(record, "exclusive create", &name, libc::EEXIST, |mount, side| {
            create(&mount.join(&name), &mark(side, &name))
        })?;
        let target = |side: usize| folder.join(format!("won-{round}-by-{side}"));
        let mover = self.race(record, "rename", &name, libc::ENOENT, |mount, side| {
            fs::rename(mount.join(&name), mount.join(target(side)))
        })?;
        self.history.insert(target(mover), mark(creator, &name));
        Some(())
    }

    /// Runs `work` in both mounts at once. Returns the winner; None if one failed, or not exactly one won.
    fn race(
        &self,
        record: &Record,
        operation: &'static str,
        name: &Path,
        lost: i32,
        work: impl Fn(&Path, usize) -> io::Result<()> + Sync,
    ) -> Option<usize> {
        let attempt = |side: usize| {
            let mount = &self.mounts[side];
            record.expect_one_of(operation, &mount.join(name), &[lost], || work(mount, side))
        };
        let (one, two) = thread::scope(|scope| {
            let other = scope.spawn(|| attempt(1));
            (attempt(0), other.join().expect("attempts do not panic"))
        });
        match (one?, two?) {
            (Ok(()), Err(_)) => Some(0),
            (Err(_), Ok(())) => Some(1),
            both => {
                record.wrong(operation, name, format!("exactly one had to win: {both:?}"));
                None
            }
        }
    }

    fn check(&self, record: &Record, mount: &Path) {
        for (name, contents) in &self.history {
            let path = mount.join(name);
            match record.attempt("read at the end", &path, || fs::read_to_string(&path)) {
                Some(found) if found != *contents => {
                    record.wrong("read at the end", &path, format!("{found:?} is not {contents:?}"));
                }
                _ => {}
            }
        }
        for folder in &self.known {
            self.check_folder(record, mount, folder);
        }
    }

    /// Checks that the folder contains no other names.
    fn check_folder(&self, record: &Record, mount: &Path, folder: &Path) {
        let path = mount.join(folder);
        let Some(found) = record.attempt("readdir at the end", &path, || names_in(&path)) else { return };
        for name in found.iter().map(|name| folder.join(name)) {
            if !self.history.contains_key(&name) {
                record.wrong("readdir at the end", &mount.join(&name), "no worker moved it here".into());
            }
        }
    }
}

fn mark(side: usize, name: &Path) -> String {
    format!("{} of mount {side}", name.display())
}

fn create(path: &Path, contents: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(contents.as_bytes())?;
    close(file)
}
