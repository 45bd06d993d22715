//! What the simulated network does to messages.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The longest way from node to node. Two ways within the deadline mean that no live node is ever taken for dead.
    pub longest_way: Duration,
    /// Calls origin question or answer does not arrive.
    pub lost_per_mille: u64,
    /// Calls origin answer comes after the caller has given up.
    pub late_per_mille: u64,
    /// A caller that lost a call to a node loses none to the same node for so long. Longer than its repeated question
    /// takes, that is the difference between a message lost and a node taken for dead.
    pub loss_spaced_by: Duration,
    /// Of the messages without an answer (notify, leave).
    pub messages_lost_per_mille: u64,
    /// Messages that arrive twice, at two times.
    pub doubled_per_mille: u64,
    /// Of the calls to a dead node: how many are refused at once, instead of never answered.
    pub refused_per_mille: u64,
    pub period: Duration,
    pub call_deadline: Duration,
}

impl Conditions {
    /// Slow, but a failure is always a failure: what Zave's proof assumes.
    pub fn reliable() -> Self {
        Self {
            longest_way: Duration::from_millis(450),
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

    /// Messages are lost, late and doubled, but never so that a node that lives is taken for dead: then, too, the
    /// invariants have to hold.
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

    /// Losses without bound: nodes that live are dropped, and have to be found again.
    pub fn unbounded_losses() -> Self {
        Self {
            longest_way: Duration::from_millis(600),
            lost_per_mille: 120,
            late_per_mille: 60,
            messages_lost_per_mille: 120,
            doubled_per_mille: 60,
            ..Self::reliable()
        }
    }

    /// A quick network that loses nothing, for large rings.
    pub fn quick() -> Self {
        Self { longest_way: Duration::from_millis(50), ..Self::reliable() }
    }
}
