//! The results of the scrub, for people, programs and metrics.

use chordfs_store::Scrubbed;
use chordfs_types::{
    admin::{PassReport, ScrubStatus},
    namespace::Time,
};
use metrics::{counter, gauge};

use super::ScrubSettings;

#[derive(Default)]
pub(super) struct Report {
    status: ScrubStatus,
}

impl Report {
    pub(super) fn new(settings: &ScrubSettings) -> Self {
        let waiting = Some("the namespace was not asked yet".to_owned());
        let period_secs = settings.period.as_secs();
        Self { status: ScrubStatus { period_secs, orphans_kept: waiting, ..ScrubStatus::default() } }
    }

    pub(super) fn status(&self, waiting: u64) -> ScrubStatus {
        ScrubStatus { waiting, ..self.status.clone() }
    }

    /// Counts a step of a pass; `pass` is the progress of the pass including this step.
    pub(super) fn read(&mut self, step: &Scrubbed, pass: &PassReport, total_bytes: u64) {
        counter!("chordfs_scrub_chunks_total").increment(step.chunks);
        counter!("chordfs_scrub_bytes_total").increment(step.bytes);
        (self.status.pass, self.status.total_bytes) = (pass.clone(), total_bytes);
    }

    pub(super) fn ended(&mut self, pass: &PassReport, asked_done: u64) {
        gauge!("chordfs_scrub_last_pass_end_seconds").set(pass.ended.unwrap_or(0) as f64);
        self.status.last = Some(pass.clone());
        self.status.asked_done = asked_done;
    }

    /// `damaged`: the number of records that the store has found damaged since the start.
    pub(super) fn repairing(&mut self, damaged: u64, repaired: u64, obsolete: u64, unrecoverable: u64) {
        counter!("chordfs_scrub_damaged_total").absolute(damaged);
        counter!("chordfs_scrub_mended_total").increment(repaired);
        gauge!("chordfs_scrub_lost_chunks").set(unrecoverable as f64);
        self.status.damaged = damaged;
        self.status.repaired += repaired;
        self.status.obsolete += obsolete;
        self.status.unrecoverable = unrecoverable;
    }

    pub(super) fn orphans(&mut self, collected: u64, kept: Option<String>) {
        counter!("chordfs_scrub_orphans_total").increment(collected);
        self.status.orphans += collected;
        self.status.orphans_kept = kept;
    }
}

/// The wall clock's time in seconds since 1970.
pub fn unix_now_secs() -> u64 {
    u64::try_from(Time::now().secs).unwrap_or(0)
}
