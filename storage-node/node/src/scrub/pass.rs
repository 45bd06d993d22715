//! Reading every record once in each period, in the order in which they lie.
//!
//! Where a pass stands is written down every so often, so a node that is restarted goes on there and a store so large
//! that it is never read at one stretch is still read to its end. Records move to later places only, so none is passed
//! over by that but what is stored behind the reader's back, which the next pass sees.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_types::admin::PassReport;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use super::{
    ScrubShared,
    pace::{Pace, PassProgress},
    report::unix_now,
};
use crate::blocking::with_store;

/// Read at a time.
const STEP_BYTES: u64 = 8 << 20;
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// How often an empty store is looked at.
const WHILE_EMPTY: Duration = Duration::from_secs(10);
/// A step that the disk refused is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

pub(super) struct PassReader {
    shared: Arc<ScrubShared>,
    asked: watch::Receiver<u64>,
    pass: Pass,
    saved: Instant,
}

/// A pass under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pass {
    /// Where to go on.
    token: u64,
    report: PassReport,
    /// The number under which it was asked for by a person, who waits: then it does not spread over the period.
    #[serde(skip)]
    asked: Option<u64>,
}

impl Pass {
    fn begin(asked: Option<u64>) -> Self {
        Self { token: 0, report: PassReport { began: unix_now(), ..PassReport::default() }, asked }
    }
}

impl PassReader {
    pub(super) fn new(shared: Arc<ScrubShared>) -> Self {
        let asked = shared.asked.subscribe();
        let pass = load(&file(&shared)).unwrap_or_else(|| Pass::begin(None));
        Self { shared, asked, pass, saved: Instant::now() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let pause = self.step().await;
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = self.asked.changed() => {
                    let asked = *self.asked.borrow_and_update();
                    self.pass = Pass::begin(Some(asked));
                }
            }
        }
    }

    /// Reads on; says how long to wait before the next step.
    async fn step(&mut self) -> Duration {
        let (began, token) = (Instant::now(), self.pass.token);
        let total_bytes = self.shared.parts.store.stats().live_bytes;
        let progress = |report: &PassReport| PassProgress {
            elapsed: Duration::from_secs(unix_now().saturating_sub(report.began)),
            done_bytes: report.bytes,
            total_bytes,
        };
        let pace = self.pace();
        if let Some(wait) = self.wait_for_beginning(pace, total_bytes) {
            return wait;
        }
        // A long pause comes in parts, so that a pass keeps up with a store that grows.
        let early = pace.pause(0, Duration::ZERO, progress(&self.pass.report));
        if !early.is_zero() {
            return early;
        }
        let read = with_store(&self.shared.parts.store, move |store| store.scrub_step(token, STEP_BYTES)).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                warn!(%error, "the scrub cannot read on; trying again");
                return AFTER_FAILURE;
            }
        };
        let report = &mut self.pass.report;
        (report.chunks, report.bytes) = (report.chunks + read.chunks, report.bytes + read.bytes);
        report.damaged += read.damaged;
        self.shared.report.lock().read(&read, report, total_bytes);
        match read.next {
            Some(next) => {
                self.pass.token = next;
                self.save_now_and_then();
                pace.pause(read.bytes, began.elapsed(), progress(&self.pass.report))
            }
            None => self.end(pace),
        }
    }

    /// A pass that was put off is kept in mind over a restart; one put off beyond all measure is a clock set back. With
    /// nothing stored the period has not begun, or the first chunks would be read only in the one after it.
    fn wait_for_beginning(&mut self, pace: Pace, total_bytes: u64) -> Option<Duration> {
        let report = &mut self.pass.report;
        if total_bytes == 0 && self.pass.token == 0 && self.pass.asked.is_none() {
            report.began = unix_now();
            return Some(WHILE_EMPTY.min(pace.period));
        }
        let wait = Duration::from_secs(report.began.saturating_sub(unix_now()));
        if wait > pace.period {
            report.began = unix_now();
            return None;
        }
        (!wait.is_zero()).then_some(wait)
    }

    fn pace(&self) -> Pace {
        let settings = &self.shared.parts.settings;
        let period = if self.pass.asked.is_some() { Duration::ZERO } else { settings.period };
        Pace { period, bytes_per_second: settings.bytes_per_second }
    }

    /// The next pass begins when the period is over.
    fn end(&mut self, pace: Pace) -> Duration {
        let report = &mut self.pass.report;
        report.ended = Some(unix_now());
        let PassReport { chunks, bytes, damaged, .. } = *report;
        info!(chunks, bytes, damaged, "every stored chunk was read and checked");
        // Damage found by the open has no name; what it hit is missing here and there.
        self.shared.parts.repair.notify_one();
        let elapsed = Duration::from_secs(unix_now().saturating_sub(report.began));
        let asked = self.pass.asked;
        let rest = if asked.is_some() { self.shared.parts.settings.period } else { pace.rest(elapsed) };
        {
            let mut report = self.shared.report.lock();
            let done = asked.unwrap_or(report.status(0).asked_done);
            report.ended(&self.pass.report, done);
        }
        self.pass = Pass::begin(None);
        // It begins in the future, should it be looked at before.
        self.pass.report.began += rest.as_secs();
        self.save();
        rest.max(Duration::from_millis(100))
    }

    fn save_now_and_then(&mut self) {
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save();
        }
    }

    /// A crash costs what was read since; so does a file that cannot be written.
    fn save(&mut self) {
        self.saved = Instant::now();
        let path = file(&self.shared);
        let text = serde_json::to_vec(&self.pass).expect("plain data always encodes");
        if let Err(error) = chordfs_files::replace_without_sync(&path, &text) {
            debug!(path = %path.display(), %error, "where the scrub stands was not written down");
        }
    }
}

fn file(shared: &ScrubShared) -> PathBuf {
    shared.parts.folder.join("pass")
}

/// Anything that cannot be read is a pass that begins anew.
fn load(path: &PathBuf) -> Option<Pass> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_pass_stands_survives_a_restart_and_damage_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        assert_eq!(load(&path), None);
        let mut pass = Pass::begin(Some(3));
        (pass.token, pass.report.bytes) = (77, 1000);
        let text = serde_json::to_vec(&pass).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(load(&path), Some(Pass { asked: None, ..pass }), "nobody waits any more");
        for len in 0..text.len() {
            std::fs::write(&path, &text[..len]).unwrap();
            assert_eq!(load(&path), None, "cut at {len}");
        }
    }
}
