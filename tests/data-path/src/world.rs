//! What all parts of one simulation share: the time, the trace, the first failure, and random numbers.

use std::{
    collections::VecDeque,
    fmt::{self, Display, Formatter},
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::Instant};

use crate::{faults::Faults, random::Random};

/// How many events a failure shows; `DATA_PATH_EVENTS=n` shows more.
const SHOWN: usize = 150;

pub(crate) struct World {
    pub seed: u64,
    pub faults: Faults,
    start: Instant,
    random: Mutex<Random>,
    trace: Mutex<Trace>,
    failure: Mutex<Option<String>>,
    failed: Notify,
    calm_since: Mutex<Option<Duration>>,
}

#[derive(Default)]
struct Trace {
    events: VecDeque<String>,
    count: u64,
    hash: u64,
    shown: usize,
}

/// Two runs of one seed that have equal digests did the same at the same times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDigest {
    pub events: u64,
    hash: u64,
}

impl Display for TraceDigest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, {:016x}", self.events, self.hash)
    }
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            seed,
            faults,
            start: Instant::now(),
            random: Mutex::new(Random::new(seed, 1)),
            trace: Mutex::new(Trace { shown: shown(), ..Trace::default() }),
            failure: Mutex::default(),
            failed: Notify::new(),
            calm_since: Mutex::default(),
        }
    }

    /// Time since the simulation began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// From now on no operation has a reason to fail.
    pub(crate) fn begin_calm(&self) {
        self.note("calm");
        *self.calm_since.lock() = Some(self.now());
    }

    pub(crate) fn calm_since(&self) -> Option<Duration> {
        *self.calm_since.lock()
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock())
    }

    pub(crate) fn note(&self, event: impl Into<String>) {
        let line = format!("{:>11.6} {}", self.now().as_secs_f64(), event.into());
        let mut trace = self.trace.lock();
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        trace.count += 1;
        if trace.events.len() == trace.shown {
            trace.events.pop_front();
        }
        trace.events.push_back(line);
    }

    pub(crate) fn digest(&self) -> TraceDigest {
        let trace = self.trace.lock();
        TraceDigest { events: trace.count, hash: trace.hash }
    }

    /// Ends the run; only the first failure counts.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        let mut failure = self.failure.lock();
        if failure.is_some() {
            return;
        }
        self.note(format!("VIOLATION: {what}"));
        *failure = Some(what);
        self.failed.notify_one();
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Resolves at the first failure.
    pub(crate) async fn failed(&self) {
        self.failed.notified().await;
    }

    pub(crate) fn last_events(&self) -> String {
        let trace = self.trace.lock();
        trace.events.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn shown() -> usize {
    std::env::var("DATA_PATH_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(SHOWN)
}
