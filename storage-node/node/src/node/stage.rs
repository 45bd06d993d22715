//! The state of the node, shared by the parts that report or change it.

use std::sync::atomic::{AtomicU8, Ordering};

use chordfs_types::admin::NodeState;

/// [`NodeState::Starting`] at first.
#[derive(Default)]
pub struct Stage(AtomicU8);

impl Stage {
    const STAGES: [NodeState; 5] =
        [NodeState::Starting, NodeState::Joining, NodeState::Serving, NodeState::Draining, NodeState::Gone];

    pub fn set(&self, state: NodeState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    pub fn get(&self) -> NodeState {
        Self::STAGES[usize::from(self.0.load(Ordering::Relaxed))]
    }
}
