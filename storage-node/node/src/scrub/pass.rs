//! Reading every record once in each period, in the order in which the records are stored.
//!
//! The position of a pass is saved at intervals, so that a restarted node continues there, and even a store that is too
//! large to be read between two restarts is read to its end. Records only move to later positions, so a pass misses
//! none except those that are stored behind it meanwhile, and the next pass reads those.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_log::warn_limited;
use chordfs_types::admin::PassReport;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info};

use super::{
    ScrubShared,
    pace::{Pace, PassProgress},
    report::unix_now_secs,
};
use crate::blocking::with_store;

/// Bytes read at a time.
const STEP_BYTES: u64 = 8 << 20;
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// The pause while the store is empty.
const EMPTY_PAUSE: Duration = Duration::from_secs(10);
/// The pause before a step that failed is retried.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct PassReader {
    shared: Arc<ScrubShared>,
    asked: watch::Receiver<u64>,
    pass: Pass,
    saved: Instant,
}

/// A pass under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pass {
    /// The store's position of the next record to read.
    token: u64,
    report: PassReport,
    /// The number of the request, if an operator requested this pass: then it is not spread over the period.
    #[serde(skip)]
    asked: Option<u64>,
}

impl Pass {
    fn begin(asked: Option<u64>) -> Self {
        Self { token: 0, report: PassReport { began: unix_now_secs(), ..PassReport::default() }, asked }
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

    /// Reads the next records. Returns how long to wait before the next step.
    async fn step(&mut self) -> Duration {
        let (began, token) = (Instant::now(), self.pass.token);
        let total_bytes = self.shared.parts.store.stats().live_bytes;
        let progress = |report: &PassReport| PassProgress {
            elapsed: Duration::from_secs(unix_now_secs().saturating_sub(report.began)),
            done_bytes: report.bytes,
            total_bytes,
        };
        let pace = self.pace();
        if let Some(wait) = self.wait_for_beginning(pace, total_bytes) {
            return wait;
        }
        // A long pause is taken in parts, so that a pass adapts to a growing store.
        let early = pace.pause(0, Duration::ZERO, progress(&self.pass.report));
        if !early.is_zero() {
            return early;
        }
        let read = with_store(&self.shared.parts.store, move |store| store.scrub_step(token, STEP_BYTES)).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                warn_limited!(%error, "the scrub cannot read the store; it tries again");
                return FAILURE_PAUSE;
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

    /// How long the pass has to wait for its scheduled beginning, which is kept over a restart. A beginning more than a
    /// period ahead means that the clock was set back, and does not count. While the store is empty the period does not
    /// begin: otherwise the first chunks would be read only in the next period.
    fn wait_for_beginning(&mut self, pace: Pace, total_bytes: u64) -> Option<Duration> {
        let report = &mut self.pass.report;
        if total_bytes == 0 && self.pass.token == 0 && self.pass.asked.is_none() {
            report.began = unix_now_secs();
            return Some(EMPTY_PAUSE.min(pace.period));
        }
        let wait = Duration::from_secs(report.began.saturating_sub(unix_now_secs()));
        if wait > pace.period {
            report.began = unix_now_secs();
            return None;
        }
        (!wait.is_zero()).then_some(wait)
    }

    fn pace(&self) -> Pace {
        let settings = &self.shared.parts.settings;
        let period = if self.pass.asked.is_some() { Duration::ZERO } else { settings.period };
        Pace { period, bytes_per_second: settings.bytes_per_second }
    }

    /// Ends the pass, and schedules the next one for the end of the period.
    fn end(&mut self, pace: Pace) -> Duration {
        let report = &mut self.pass.report;
        report.ended = Some(unix_now_secs());
        let PassReport { chunks, bytes, damaged, .. } = *report;
        info!(chunks, bytes, damaged, "every stored chunk was read and checked");
        // Damage that was found when the store was opened has no name: only repair can find the missing chunks.
        self.shared.parts.repair.notify_one();
        let elapsed = Duration::from_secs(unix_now_secs().saturating_sub(report.began));
        let asked = self.pass.asked;
        let rest = if asked.is_some() { self.shared.parts.settings.period } else { pace.rest(elapsed) };
        {
            let mut report = self.shared.report.lock();
            let done = asked.unwrap_or(report.status(0).asked_done);
            report.ended(&self.pass.report, done);
        }
        self.pass = Pass::begin(None);
        // The beginning lies in the future; `wait_for_beginning` waits for it.
        self.pass.report.began += rest.as_secs();
        self.save();
        rest.max(Duration::from_millis(100))
    }

    fn save_now_and_then(&mut self) {
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save();
        }
    }

    /// Saves the position. After a crash, or if this fails, the pass continues from the last saved position.
    fn save(&mut self) {
        self.saved = Instant::now();
        let path = file(&self.shared);
        let text = serde_json::to_vec(&self.pass).expect("plain data always encodes");
        if let Err(error) = chordfs_files::replace_without_sync(&path, &text) {
            debug!(path = %path.display(), %error, "cannot save the position of the scrub");
        }
    }
}

fn file(shared: &ScrubShared) -> PathBuf {
    shared.parts.folder.join("pass")
}

/// `None` if the file is missing or damaged: then a new pass begins.
fn load(path: &PathBuf) -> Option<Pass> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_survives_a_restart_and_a_damaged_file_begins_a_new_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        assert_eq!(load(&path), None);
        let mut pass = Pass::begin(Some(3));
        (pass.token, pass.report.bytes) = (77, 1000);
        let text = serde_json::to_vec(&pass).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(load(&path), Some(Pass { asked: None, ..pass }), "the request does not survive");
        for len in 0..text.len() {
            std::fs::write(&path, &text[..len]).unwrap();
            assert_eq!(load(&path), None, "cut at {len}");
        }
    }
}
