//! How far a drain has got, how fast it is, and when it will be done, as shown by `status` and `storage-node drain`.
#![deny(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use chordfs_types::{
    admin::{DrainPhase, DrainStatus},
    rate_limit::RateLimit,
};

use crate::{arc_comparison::CopyAmount, repair_progress::Meter};

/// For how long a node's work shows a drain that was refused or cancelled.
const SHOWN_FOR: Duration = Duration::from_secs(300);

/// A drain from its beginning to its end.
pub struct DrainProgress {
    phase: DrainPhase,
    left: CopyAmount,
    sent: Meter,
    limit: RateLimit,
    reason: Option<String>,
    /// When it was refused or cancelled.
    ended: Option<Instant>,
}

impl DrainProgress {
    pub fn begin(limit: RateLimit) -> Self {
        let (left, sent) = (CopyAmount::default(), Meter::default());
        Self { phase: DrainPhase::Copying, left, sent, limit, reason: None, ended: None }
    }

    pub fn phase(&self) -> DrainPhase {
        self.phase
    }

    pub fn enter(&mut self, phase: DrainPhase) {
        self.phase = phase;
    }

    pub fn limit_to(&mut self, limit: RateLimit) {
        self.limit = limit;
    }

    /// Records an estimate of what is left to send.
    pub fn found(&mut self, left: CopyAmount) {
        self.left = left;
    }

    pub fn sent(&mut self, moved: CopyAmount, now: Instant) {
        self.left = self.left.without(moved);
        self.sent.add(moved, now);
    }

    /// Ends a drain that did not succeed; the remaining count no longer matters.
    pub fn end(&mut self, phase: DrainPhase, reason: String, now: Instant) {
        (self.phase, self.reason, self.left) = (phase, Some(reason), CopyAmount::default());
        self.ended = Some(now);
    }

    /// Returns whether the node's work shows this drain. One that was refused or cancelled vanishes after a while:
    /// nothing is under way, and its reason may no longer hold.
    pub fn is_shown(&self, now: Instant) -> bool {
        self.ended.is_none_or(|ended| now.saturating_duration_since(ended) < SHOWN_FOR)
    }

    pub fn status(&self, now: Instant) -> DrainStatus {
        let flow = self.sent.flow(self.left, now);
        DrainStatus {
            phase: self.phase,
            chunks_left: flow.chunks_left,
            bytes_left: flow.bytes_left,
            chunks_sent: flow.chunks_moved,
            bytes_sent: flow.bytes_moved,
            bytes_per_second: flow.bytes_per_second,
            seconds_left: flow.seconds_left,
            limit: self.limit.0,
            reason: self.reason.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_drain_reports_its_rate_and_the_time_left() {
        let (mut progress, start) = (DrainProgress::begin(RateLimit(Some(2000))), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        progress.found(CopyAmount { chunks: 100, bytes: 40_000 });
        assert_eq!(progress.status(start).seconds_left, None, "nothing has moved yet");
        for second in 0..5 {
            progress.sent(CopyAmount { chunks: 5, bytes: 2_000 }, at(second));
        }
        let status = progress.status(at(5));
        assert_eq!((status.chunks_left, status.bytes_left), (75, 30_000));
        assert_eq!((status.chunks_sent, status.bytes_sent, status.bytes_per_second), (25, 10_000, 2_000));
        assert_eq!((status.seconds_left, status.limit), (Some(15), Some(2000)));
    }

    #[test]
    fn a_cancelled_drain_has_nothing_left_to_send() {
        let mut progress = DrainProgress::begin(RateLimit(None));
        progress.found(CopyAmount { chunks: 7, bytes: 700 });
        let now = Instant::now();
        progress.end(DrainPhase::Cancelled, "cancelled".into(), now);
        assert!(progress.is_shown(now) && progress.is_shown(now + SHOWN_FOR / 2));
        assert!(!progress.is_shown(now + SHOWN_FOR), "it is old");
        let status = progress.status(Instant::now());
        assert_eq!((status.phase, status.chunks_left, status.bytes_left), (DrainPhase::Cancelled, 0, 0));
        assert_eq!(status.reason.as_deref(), Some("cancelled"));
    }

    #[test]
    fn the_status_of_an_older_node_reads() {
        let text = r#"{"phase": "copying", "chunks_left": 1, "bytes_left": 2, "chunks_sent": 3, "bytes_sent": 4,
                       "reason": null}"#;
        let status: DrainStatus = serde_json::from_str(text).expect("it reads");
        assert_eq!((status.bytes_left, status.bytes_per_second, status.limit), (2, 0, None));
    }
}
