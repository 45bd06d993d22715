//! The moment of leaving, which is fenced: puts wait while the last stored chunks are handed over and the departure is
//! announced to the ring. Afterwards they are redirected to the next node.
//!
//! The announcement is the point of no return: until then the drain can be undone. `control` decides between a
//! concurrent cancellation and leaving.

use std::collections::HashSet;

use chordfs_replication::{drain as plan, drain::RemainingNodes};
use chordfs_types::{
    admin::{DrainPhase, NodeState},
    ring_id::NodeRef,
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    DrainOptions,
    hand_over::{self, StepError},
    task::DrainTask,
};
use crate::replica::departure::DrainState;

/// How an attempt to leave ended.
pub(super) enum LeaveOutcome {
    Left,
    /// The members of the ring have changed, or the node votes again: the drain has to start over.
    RingChanged,
}

impl DrainTask {
    /// Makes puts wait until the node has left, or until it turns out that it cannot leave yet.
    pub(super) async fn leave(
        &self,
        remaining: &RemainingNodes,
        holders: HashSet<NodeRef>,
        options: DrainOptions,
    ) -> Result<LeaveOutcome, StepError> {
        let late = |_| StepError::Retry(format!("the last writes took over {:?}", self.settings.fence));
        let fence = timeout(self.settings.fence, self.context.departure.fence()).await.map_err(late)?;
        let last =
            timeout(self.settings.fence, self.hand_over_last(remaining, holders, options)).await.map_err(late)??;
        let view = self.context.ring.neighbours();
        let (Some(members), Some(successor)) = (last, plan::view_of_successor(&view)) else {
            return Ok(LeaveOutcome::RingChanged);
        };
        if !self.control.pass_the_point_of_no_return() {
            // The drain was cancelled concurrently: `run` drops this future.
            return std::future::pending().await;
        }
        // The node can no longer stay. The ring's task completes the announcement even if this call times out.
        if let Err(error) = self.context.ring.leave().await {
            warn!(%error, "the ring has not confirmed in time that this node leaves; the departure goes through anyway");
        }
        self.context.departure.leave(successor);
        self.context.stage.set(NodeState::Gone);
        self.phase(DrainPhase::Left);
        drop(fence);
        self.context.ring.announce_left(&view, &members).await;
        Ok(LeaveOutcome::Left)
    }

    /// Returns the other members, or `None` if they are no longer those to which everything was handed over.
    async fn hand_over_last(
        &self,
        remaining: &RemainingNodes,
        mut holders: HashSet<NodeRef>,
        options: DrainOptions,
    ) -> Result<Option<Vec<NodeRef>>, StepError> {
        holders.extend(self.hand_over_fresh(remaining).await?);
        hand_over::sync(&self.context, &holders).await?;
        let (peers, unresponsive) = self.announce(DrainState::Draining).await.map_err(StepError::Retry)?;
        let same = plan::remaining(&peers, unresponsive, options.allow_fewer_copies).as_ref() == Ok(remaining);
        let done = same && self.context.namespace.request_removal().await;
        Ok(done.then(|| peers.iter().map(|peer| peer.node).collect()))
    }
}
