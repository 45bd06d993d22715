//! What the scrub has done, for people, programs and metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use chordfs_store::Scrubbed;
use chordfs_types::admin::{PassReport, ScrubStatus};
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

    /// A step of a pass was read: `pass` is how far it has got with it.
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

    /// `damaged`: found since the start, as the store counts them.
    pub(super) fn repairing(&mut self, damaged: u64, repaired: u64, obsolete: u64, lost: u64) {
        counter!("chordfs_scrub_damaged_total").absolute(damaged);
        counter!("chordfs_scrub_mended_total").increment(repaired);
        gauge!("chordfs_scrub_lost_chunks").set(lost as f64);
        self.status.damaged = damaged;
        self.status.repaired += repaired;
        self.status.obsolete += obsolete;
        self.status.unrecoverable = lost;
    }

    pub(super) fn orphans(&mut self, collected: u64, kept: Option<String>) {
        counter!("chordfs_scrub_orphans_total").increment(collected);
        self.status.orphans += collected;
        self.status.orphans_kept = kept;
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
