//! How many nodes the pool shall have, and the decisions that led there: one value in the namespace, so that every pool
//! and every console of the ring follows the same one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::Time;
use crate::ring_config::Decimal;

/// How many decisions the namespace remembers.
pub const REMEMBERED_POOL_DECISIONS: usize = 100;
/// The longest reason of a decision.
pub const MAX_POOL_REASON_BYTES: usize = 200;

/// The size that the pool shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSize {
    /// Grows by one with each decision. A decision names the serial that it was made from, and is refused if that is no
    /// longer the current one.
    pub serial: u64,
    /// `None` until the first decision and after a release: each pool follows its own settings.
    pub wanted: Option<u32>,
    /// The last [`REMEMBERED_POOL_DECISIONS`], oldest first.
    pub decisions: Vec<PoolDecision>,
}

/// A decision that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolDecision {
    /// [`PoolSize::serial`] after it.
    pub serial: u64,
    /// On the clock of the namespace's leader.
    pub at: Time,
    /// What was decided.
    pub step: PoolStep,
}

/// What is decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStep {
    /// The nodes that served when it was made.
    pub from: u32,
    /// The size that is wanted from now on. `None` releases the pool: it follows its own settings again.
    pub to: Option<u32>,
    /// The one that decides.
    pub by: PoolDecider,
    /// For people, at most [`MAX_POOL_REASON_BYTES`].
    pub reason: String,
    /// The miss rate on which the decision rests, 0 to 1.
    pub miss_rate: Option<Decimal>,
    /// The used share of the fullest disk on which the decision rests, 0 to 1.
    pub fullest_disk: Option<Decimal>,
}

/// The one that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolDecider {
    /// A person, in manual mode.
    Operator,
    /// `storage-node autoscaler`, in automatic mode.
    Scaler,
}

impl fmt::Display for PoolDecider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Scaler => "scaler",
        })
    }
}
