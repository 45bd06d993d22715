//! The faults of the simulated network.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The longest one-way delay. If a round trip fits into the deadline, no live node is ever declared dead.
    pub longest_delay: Duration,
    /// Calls whose request or answer is lost.
    pub lost_per_mille: u64,
    /// Calls whose answer arrives after the deadline.
    pub late_per_mille: u64,
    /// A caller that lost a call to a node loses no further call to that node for this long. If a repeated call takes
    /// less than that, a lost message never makes a live node dead.
    pub loss_spaced_by: Duration,
    /// Lost messages without an answer (notify, leave).
    pub messages_lost_per_mille: u64,
    /// Messages that arrive twice, at different times.
    pub doubled_per_mille: u64,
    /// Calls to a dead node that are refused at once instead of timing out.
    pub refused_per_mille: u64,
    pub period: Duration,
    pub call_deadline: Duration,
}

impl Conditions {
    /// Slow, but a call fails only if the node is dead, as Zave's proof assumes.
    pub fn reliable() -> Self {
        Self {
            longest_delay: Duration::from_millis(450),
            lost_per_mille: 0,
            late_per_mille: 0,
            loss_spaced_by: Duration::ZERO,
            messages_lost_per_mille: 0,
            doubled_per_mille: 0,
            refused_per_mille: 500,
            period: Duration::from_secs(1),
            call_deadline: Duration::from_secs(1),
        }
    }

    /// Messages are lost, late and doubled, but never so that a live node is declared dead: the invariants must still
    /// hold.
    pub fn bounded_losses() -> Self {
        Self {
            lost_per_mille: 40,
            late_per_mille: 40,
            loss_spaced_by: Duration::from_secs(15),
            messages_lost_per_mille: 200,
            doubled_per_mille: 200,
            ..Self::reliable()
        }
    }

    /// Unbounded losses: live nodes are dropped, and have to be found again.
    pub fn unbounded_losses() -> Self {
        Self {
            longest_delay: Duration::from_millis(600),
            lost_per_mille: 120,
            late_per_mille: 60,
            messages_lost_per_mille: 120,
            doubled_per_mille: 60,
            ..Self::reliable()
        }
    }

    /// A fast network without losses, for large rings.
    pub fn quick() -> Self {
        Self { longest_delay: Duration::from_millis(50), ..Self::reliable() }
    }
}
