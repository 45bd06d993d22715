//! Verified load: programs that work in two mounts all the time, compare every byte they read with what must be there,
//! and record each operation that fails, while a test disturbs the ring.
//!
//! Each worker is a file: `overwrites` (one big file, random ranges, fsync), `fio` (random writes by an independent
//! program), `trees` (a tree copied and compared), `names` (exclusive creation and renames, from both mounts at once)
//! and, where a test asks for them, `programs` (tar and git). A worker continues after a failure, with new files if the contents of the old ones are uncertain; so a report
//! counts all failures, not only the first.

mod fio;
mod names;
mod overwrites;
mod programs;
mod record;
mod trees;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{JoinHandle, spawn},
    time::Duration,
};

use crate::wait::wait_for;

pub use self::record::{Failure, Record, Report};
use self::{fio::Fio, names::Names, overwrites::Overwrites, programs::Programs, record::Log, trees::Trees};

/// Two mounts of one ring, and which of them is a worker's own.
#[derive(Clone)]
struct Mounts {
    own: PathBuf,
    other: PathBuf,
    /// Distinguishes the files of this worker from those of the other one of its kind.
    label: char,
}

/// Checks a worker's files at the end, through a mount that has nothing cached.
type FinalCheck = Box<dyn FnOnce(&Record, &Path) + Send>;

pub struct Load {
    log: Arc<Log>,
    workers: Vec<JoinHandle<FinalCheck>>,
}

impl Load {
    /// Starts all workers. `seed` decides all sizes and places.
    pub fn start(one: &Path, two: &Path, seed: u64) -> Self {
        let log = Arc::new(Log::new());
        let both = [('a', one, two), ('b', two, one)];
        let mut workers = vec![start(&log, "names", {
            let (one, two) = (one.to_owned(), two.to_owned());
            move |record| Names::new(one, two).run(record)
        })];
        for (label, own, other) in both {
            let mounts = Mounts { own: own.to_owned(), other: other.to_owned(), label };
            let seed = seed * 2 + u64::from(label == 'b');
            let (files, jobs) = (mounts.clone(), mounts.clone());
            workers.push(start(&log, "overwrites", move |record| Overwrites::new(files, seed).run(record)));
            workers.push(start(&log, "fio", move |record| Fio::new(jobs, seed).run(record)));
            workers.push(start(&log, "trees", move |record| Trees::new(mounts, seed).run(record)));
        }
        Self { log, workers }
    }

    /// Starts the workers that run tar and git, too.
    pub fn add_programs(&mut self, one: &Path, two: &Path) {
        for (label, own, other) in [('a', one, two), ('b', two, one)] {
            let mounts = Mounts { own: own.to_owned(), other: other.to_owned(), label };
            self.workers.push(start(&self.log, "programs", move |record| Programs::new(mounts).run(record)));
        }
    }

    /// Waits until each worker has done `count` more operations; panics if one fails or stops.
    #[track_caller]
    pub fn progress(&self, count: u64) {
        let before = self.log.counts();
        wait_for(&format!("{count} more operations of every worker"), Duration::from_secs(90), || {
            self.log.report().assert_clean();
            let done: Vec<_> = self.log.counts().iter().zip(&before).map(|(now, then)| now - then).collect();
            if done.iter().all(|done| *done >= count) { Ok(()) } else { Err(format!("{done:?}")) }
        });
    }

    /// Lets the load run for that time, and panics as soon as an operation fails.
    #[track_caller]
    pub fn run_for(&self, time: Duration) {
        let end = std::time::Instant::now() + time;
        wait_for("the load runs", time + Duration::from_secs(1), || {
            self.log.report().assert_clean();
            if std::time::Instant::now() >= end { Ok(()) } else { Err("not yet".into()) }
        });
    }

    pub fn report(&self) -> Report {
        self.log.report()
    }

    /// Ends all workers and checks all their files through `fresh`.
    #[track_caller]
    pub fn finish(mut self, fresh: &Path) -> Report {
        self.log.stop();
        let checks: Vec<_> =
            self.workers.drain(..).map(|worker| worker.join().expect("workers do not panic")).collect();
        let record = self.log.record("final check");
        checks.into_iter().for_each(|check| check(&record, fresh));
        self.log.report()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.log.stop();
        if std::thread::panicking() {
            eprintln!("--- the load: {}", self.log.report());
        }
    }
}

fn start(
    log: &Arc<Log>,
    worker: &'static str,
    work: impl FnOnce(&Record) -> FinalCheck + Send + 'static,
) -> JoinHandle<FinalCheck> {
    let record = log.record(worker);
    spawn(move || work(&record))
}
