//! Work under way on a node, as its parts report it and `storage-node status` shows it.
//!
//! Every part reports only what it knows: all fields may be missing, here and in what another node sends, so that nodes
//! of different versions read each other.

use serde::{Deserialize, Serialize};

use super::{DrainPhase, DrainStatus, RepairStatus, ScrubStatus, TransferProgress};

/// What a node is busy with; a part that has nothing to do is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Copies that the holders of this node's arc still lack, counted once for each holder; `None` before the first
    /// look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under_replicated: Option<u64>,
    /// Sending those copies to the holders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<TransferWork>,
    /// This node has joined and fetches the chunks of its arcs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filling: Option<TransferWork>,
    /// This node hands over all its chunks, and leaves then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<TransferWork>,
    /// `None` if nothing was read yet and no damage was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubWork>,
}

/// Copies that are being sent or fetched, as one cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransferWork {
    /// Copies, estimated until the arcs have been compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_left: Option<u64>,
    /// Bytes of these copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_left: Option<u64>,
    /// Mean of the last ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// `None` while nothing moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Why there is no progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The scrub, which checks all records against their checksums again and again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubWork {
    /// Bytes checked in the present pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_bytes: Option<u64>,
    /// Bytes of the store when the pass last read; a store that grows moves the end of the pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Counted since the node started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<u64>,
    /// Counted since the node started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<u64>,
    /// Damaged records of which no node has a sound copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrecoverable: Option<u64>,
    /// Since the last completed pass ended; `None` if none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_since_last_pass: Option<u64>,
}

impl Work {
    /// The work of repair and scrub, and of the drain if one is under way. `now`: seconds since 1970.
    pub fn of(repair: &RepairStatus, drain: Option<&DrainStatus>, scrub: &ScrubStatus, now: u64) -> Self {
        let RepairStatus { incoming, outgoing, compared, .. } = repair;
        Self {
            under_replicated: compared.then_some(outgoing.chunks_left),
            repair: transfer_work(outgoing),
            filling: transfer_work(incoming),
            drain: drain.map(drain_work),
            scrub: scrub_work(scrub, now),
        }
    }
}

/// `None` where nothing was read yet and no damage was found.
fn scrub_work(scrub: &ScrubStatus, now: u64) -> Option<ScrubWork> {
    let ScrubStatus { pass, last, damaged, repaired, .. } = scrub;
    if pass.began == 0 && last.is_none() && *damaged == 0 {
        return None;
    }
    // The report of a pass stays until the next has begun to read.
    let under_way = pass.began > 0 && last.as_ref().is_none_or(|last| last.began != pass.began);
    Some(ScrubWork {
        checked_bytes: under_way.then_some(pass.bytes),
        total_bytes: under_way.then_some(scrub.total_bytes.max(pass.bytes)),
        damaged: Some(*damaged),
        repaired: Some(*repaired),
        unrecoverable: (scrub.unrecoverable > 0).then_some(scrub.unrecoverable),
        seconds_since_last_pass: last.as_ref().and_then(|last| Some(now.saturating_sub(last.ended?))),
    })
}

/// A refused or cancelled drain reports only its reason.
fn drain_work(drain: &DrainStatus) -> TransferWork {
    if matches!(drain.phase, DrainPhase::Refused | DrainPhase::Cancelled) {
        return TransferWork { problem: drain.reason.clone(), ..TransferWork::default() };
    }
    TransferWork {
        chunks_left: Some(drain.chunks_left),
        bytes_left: Some(drain.bytes_left),
        bytes_per_second: Some(drain.bytes_per_second),
        seconds_left: drain.seconds_left,
        problem: None,
    }
}

/// `None` where nothing is left to move.
fn transfer_work(progress: &TransferProgress) -> Option<TransferWork> {
    (progress.chunks_left > 0).then_some(TransferWork {
        chunks_left: Some(progress.chunks_left),
        bytes_left: Some(progress.bytes_left),
        bytes_per_second: Some(progress.bytes_per_second),
        seconds_left: progress.seconds_left,
        problem: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::PassReport;

    #[test]
    fn remaining_repair_is_shown_once_arcs_were_compared() {
        assert_eq!(
            Work::of(&RepairStatus::default(), None, &ScrubStatus::default(), 0),
            Work::default(),
            "no arc was compared yet"
        );
        let outgoing = TransferProgress {
            chunks_left: 12,
            bytes_left: 4096,
            seconds_left: Some(3),
            ..TransferProgress::default()
        };
        let work = Work::of(
            &RepairStatus { outgoing, compared: true, ..RepairStatus::default() },
            None,
            &ScrubStatus::default(),
            0,
        );
        assert_eq!(work.under_replicated, Some(12));
        assert_eq!(work.repair.and_then(|moving| moving.seconds_left), Some(3));
        assert_eq!(work.filling, None);
        let done =
            Work::of(&RepairStatus { compared: true, ..RepairStatus::default() }, None, &ScrubStatus::default(), 0);
        assert_eq!((done.under_replicated, done.repair), (Some(0), None));
    }

    fn drain(phase: DrainPhase) -> DrainStatus {
        DrainStatus {
            phase,
            chunks_left: 3,
            bytes_left: 300,
            chunks_sent: 1,
            bytes_sent: 100,
            bytes_per_second: 50,
            seconds_left: Some(6),
            limit: None,
            reason: None,
        }
    }

    fn of_drain(drain: &DrainStatus) -> Option<TransferWork> {
        Work::of(&RepairStatus::default(), Some(drain), &ScrubStatus::default(), 0).drain
    }

    #[test]
    fn a_drain_shows_its_speed_and_its_end() {
        let wanted = TransferWork {
            chunks_left: Some(3),
            bytes_left: Some(300),
            bytes_per_second: Some(50),
            seconds_left: Some(6),
            problem: None,
        };
        assert_eq!(of_drain(&drain(DrainPhase::Copying)), Some(wanted));
    }

    #[test]
    fn a_drain_that_failed_shows_its_reason() {
        for phase in [DrainPhase::Refused, DrainPhase::Cancelled] {
            let drain = DrainStatus { reason: Some("too few".into()), ..drain(phase) };
            let wanted = TransferWork { problem: Some("too few".into()), ..TransferWork::default() };
            assert_eq!(of_drain(&drain), Some(wanted), "{phase:?}");
        }
    }

    #[test]
    fn a_scrub_shows_its_pass_while_it_reads_and_then_when_it_was_through() {
        let pass = PassReport { began: 100, bytes: 30, ..PassReport::default() };
        let mut status = ScrubStatus { pass, total_bytes: 120, damaged: 2, repaired: 1, ..ScrubStatus::default() };
        let shown = |status: &ScrubStatus| Work::of(&RepairStatus::default(), None, status, 190).scrub;
        let reading = ScrubWork {
            checked_bytes: Some(30),
            total_bytes: Some(120),
            damaged: Some(2),
            repaired: Some(1),
            unrecoverable: None,
            seconds_since_last_pass: None,
        };
        assert_eq!(shown(&status), Some(reading));
        status.last = Some(PassReport { ended: Some(150), ..status.pass.clone() });
        let through = ScrubWork {
            damaged: Some(2),
            repaired: Some(1),
            seconds_since_last_pass: Some(40),
            ..ScrubWork::default()
        };
        assert_eq!(shown(&status), Some(through));
    }

    #[test]
    fn missing_and_unknown_fields_are_no_error() {
        let text = r#"{"drain": {"bytes_left": 7, "new": 1}, "dreaming": true}"#;
        let work: Work = serde_json::from_str(text).expect("it reads");
        assert_eq!(work.drain, Some(TransferWork { bytes_left: Some(7), ..TransferWork::default() }));
        assert_eq!(work.scrub, None);
    }
}
