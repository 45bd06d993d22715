//! The moment of leaving, which is fenced: puts wait while the last of what was stored is handed over and the ring is
//! told, and then go where it says.
//!
//! The word to the ring is the point of no return. Up to it everything can be taken back; who wants that and who leaves
//! are kept apart by `control`.

use std::collections::HashSet;

use chordfs_replication::{drain as plan, drain::Heirs};
use chordfs_types::{
    admin::{DrainPhase, NodeState},
    ring_id::NodeRef,
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    DrainOptions,
    hand_over::{self, Trouble},
    task::Task,
};

/// How a try to leave ended.
pub enum Leaving {
    Left,
    /// The ring is another one now, or the vote came back: from the beginning.
    Changed,
}

impl Task {
    /// Puts wait from here on, until the node has left or has found that it cannot yet.
    pub(super) async fn leave(
        &self,
        heirs: &Heirs,
        holders: HashSet<NodeRef>,
        options: DrainOptions,
    ) -> Result<Leaving, Trouble> {
        let late = |_| Trouble::Again(format!("the last writes took over {:?}", self.settings.fence));
        let fence = timeout(self.settings.fence, self.node.departure.fence()).await.map_err(late)?;
        let last = timeout(self.settings.fence, self.hand_over_last(heirs, holders, options)).await.map_err(late)??;
        let view = self.node.ring.neighbours();
        let (Some(members), Some(heir)) = (last, plan::view_of_heir(&view)) else { return Ok(Leaving::Changed) };
        if !self.control.pass_the_point_of_no_return() {
            // Called off in this very moment: whoever waits for that breaks this off.
            return std::future::pending().await;
        }
        // From here on there is no way back. The ring's task carries the word out, if late.
        if let Err(error) = self.node.ring.leave().await {
            warn!(%error, "the ring is slow to let this node go");
        }
        self.node.departure.leave(heir);
        self.node.stage.set(NodeState::Gone);
        self.phase(DrainPhase::Left);
        drop(fence);
        self.node.ring.say_left(&view, &members).await;
        Ok(Leaving::Left)
    }

    /// The other members, or `None` if they are not those any more to whom everything was handed over.
    async fn hand_over_last(
        &self,
        heirs: &Heirs,
        mut holders: HashSet<NodeRef>,
        options: DrainOptions,
    ) -> Result<Option<Vec<NodeRef>>, Trouble> {
        holders.extend(self.hand_over_fresh(heirs).await?);
        hand_over::sync(&self.node, &holders).await?;
        let (peers, silent) = self.greet(true).await.map_err(Trouble::Again)?;
        let same = plan::heirs(&peers, silent, options.allow_fewer_copies).as_ref() == Ok(heirs);
        let done = same && self.node.namespace().is_let_go().await;
        Ok(done.then(|| peers.iter().map(|peer| peer.node).collect()))
    }
}
