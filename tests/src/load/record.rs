//! The operations of the workers, and their failures with errno, path and time, so that they can be found in a node's
//! log.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use std::sync::Mutex;

#[derive(Clone, Debug)]
pub struct Failure {
    pub worker: &'static str,
    pub operation: &'static str,
    pub path: PathBuf,
    /// The time of the failure, and how long the operation took until then.
    pub at: SystemTime,
    pub took: Duration,
    /// None: it succeeded, with a wrong result.
    pub errno: Option<i32>,
    pub why: String,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub operations: u64,
    pub failures: Vec<Failure>,
    /// The operation that took longest.
    pub slowest: Option<(Duration, String)>,
}

impl Report {
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations, {} failed", self.operations, self.failures.len())?;
        if let Some((took, what)) = &self.slowest {
            write!(f, ", slowest {took:.1?}: {what}")?;
        }
        self.failures.iter().take(30).try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, operation, path, took, errno, why, .. } = self;
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let (hour, minute, second) = (since / 3_600_000 % 24, since / 60_000 % 60, since / 1000 % 60);
        write!(f, "{hour:02}:{minute:02}:{second:02}.{:03}Z {worker}: {operation} ", since % 1000)?;
        write!(f, "{}, after {took:.1?}, errno {errno:?}: {why}", path.display())
    }
}

pub(super) struct Log {
    stopped: AtomicBool,
    counts: Mutex<Vec<Arc<AtomicU64>>>,
    rest: Mutex<Report>,
}

/// One worker's way to write into the log.
pub struct Record {
    log: Arc<Log>,
    worker: &'static str,
    done: Arc<AtomicU64>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { stopped: AtomicBool::new(false), counts: Mutex::default(), rest: Mutex::default() }
    }

    pub(super) fn record(self: &Arc<Self>, worker: &'static str) -> Record {
        let done = Arc::new(AtomicU64::new(0));
        self.counts.lock().expect("no thread panics while it holds the lock").push(done.clone());
        Record { log: self.clone(), worker, done }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Operations of each worker, in the order in which they started.
    pub(super) fn counts(&self) -> Vec<u64> {
        let counts = self.counts.lock().expect("no thread panics while it holds the lock");
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    pub(super) fn report(&self) -> Report {
        let rest = self.rest.lock().expect("no thread panics while it holds the lock").clone();
        Report { operations: self.counts().iter().sum(), ..rest }
    }
}

impl Record {
    /// A record outside of a `Load`, for a test's own operations.
    pub fn alone(worker: &'static str) -> Self {
        Arc::new(Log::new()).record(worker)
    }

    pub fn report(&self) -> Report {
        self.log.report()
    }

    pub fn is_stopped(&self) -> bool {
        self.log.stopped.load(Ordering::Relaxed)
    }

    /// Counts more operations that were done inside an attempted one.
    pub fn count(&self, operations: u64) {
        self.done.fetch_add(operations, Ordering::Relaxed);
    }

    /// Does one operation; its failure goes into the log.
    pub fn attempt<T>(&self, operation: &'static str, path: &Path, work: impl FnOnce() -> io::Result<T>) -> Option<T> {
        self.expect_one_of(operation, path, &[], work)?.ok()
    }

    /// Makes all that was done before outlive the mount: the other one sees it then even if this one is stopped or killed
    /// right away.
    pub fn keep(&self, folder: &Path) -> Option<()> {
        self.attempt("fsync the folder", folder, || File::open(folder)?.sync_all())
    }

    /// Does one operation for which an errno of `expected` is right too; that errno is the inner error.
    pub fn expect_one_of<T>(
        &self,
        operation: &'static str,
        path: &Path,
        expected: &[i32],
        work: impl FnOnce() -> io::Result<T>,
    ) -> Option<Result<T, i32>> {
        let begun = Instant::now();
        let result = work();
        let took = begun.elapsed();
        self.done.fetch_add(1, Ordering::Relaxed);
        self.note_time(operation, path, took);
        match result {
            Ok(value) => Some(Ok(value)),
            Err(error) => match error.raw_os_error().filter(|errno| expected.contains(errno)) {
                Some(errno) => Some(Err(errno)),
                None => {
                    self.fail(operation, path, took, error.raw_os_error(), error.to_string());
                    None
                }
            },
        }
    }

    /// An operation succeeded with a wrong result.
    pub fn wrong(&self, operation: &'static str, path: &Path, why: String) {
        self.fail(operation, path, Duration::ZERO, None, why);
    }

    fn note_time(&self, operation: &str, path: &Path, took: Duration) {
        let mut rest = self.log.rest.lock().expect("no thread panics while it holds the lock");
        if rest.slowest.as_ref().is_none_or(|(longest, _)| took > *longest) {
            rest.slowest = Some((took, format!("{}: {operation} {}", self.worker, path.display())));
        }
    }

    fn fail(&self, operation: &'static str, path: &Path, took: Duration, errno: Option<i32>, why: String) {
        let (worker, path, at) = (self.worker, path.to_owned(), SystemTime::now());
        let failure = Failure { worker, operation, path, at, took, errno, why };
        self.log.rest.lock().expect("no thread panics while it holds the lock").failures.push(failure);
    }
}
