//! Giving up the lead and the vote in good order, before the node goes away for good.

use std::{sync::Arc, time::Duration};

use crate::{
    raft::{handle::RaftHandle, leader::LeaderTracking, network::Network},
    raft_types::admin_address,
};

const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(crate) struct VoterResignation {
    pub raft: Arc<RaftHandle>,
    pub leader: Arc<LeaderTracking>,
    pub network: Network,
}

impl VoterResignation {
    pub(crate) fn is_voter(&self) -> bool {
        self.leader.is_voter()
    }

    /// Returns when another node leads and this node is no member any more. The caller sets the deadline.
    pub(crate) async fn leave(&self) -> Result<(), String> {
        loop {
            if let Some(term) = self.raft.holds_term() {
                self.raft.hand_over(term).await?;
            } else if self.is_let_go().await {
                // The leader informs only its members, and this node is no longer one, so it has to ask.
                self.leader.confirm().await;
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells the leader that this node leaves. Returns whether the leader has received that and no longer counts this
    /// node as a member, not even as a learner: a learner may get a vote at any moment, and a node that has gone would
    /// keep it for ever. The order matters: a change that the leader began before it received this shows in its later
    /// answer.
    pub(crate) async fn is_let_go(&self) -> bool {
        let Some(leader) = self.leader.other_leader() else { return false };
        if self.raft.holds_term().is_some() {
            return false;
        }
        if let Err(reason) = self.network.say_leaving(admin_address(leader), self.raft.uid(), true).await {
            tracing::debug!(reason, "the leader does not let go of this node yet");
            return false;
        }
        match self.network.identity(admin_address(leader)).await {
            Ok(leader) => {
                leader.leads && !leader.voters.contains(&self.raft.ring()) && !leader.members.contains(&self.raft.uid())
            }
            Err(_) => false,
        }
    }

    /// Takes one step towards giving up the lead or the vote; does nothing where no other node could take it.
    pub(crate) async fn step_back(&self) {
        let alone = self.leader.voters().iter().all(|voter| *voter == self.raft.ring());
        if alone {
            return;
        }
        match self.raft.holds_term() {
            Some(term) => {
                if let Err(reason) = self.raft.hand_over(term).await {
                    tracing::debug!(reason, "no other voter takes over the lead yet");
                }
            }
            None => self.decline(true).await,
        }
    }

    /// Asks the leader not to choose this node as a voter, or allows it again. The next leader does not know of it, so
    /// the request has to be repeated.
    pub(crate) async fn decline(&self, leaving: bool) {
        let Some(leader) = self.leader.other_leader() else { return };
        if let Err(reason) = self.network.say_leaving(admin_address(leader), self.raft.uid(), leaving).await {
            tracing::debug!(reason, leaving, "cannot tell the leader whether this node may vote");
        }
    }

    /// Takes one step back to where this node may be chosen as a voter; returns whether that is done. A lead that it
    /// has begun to hand over has lost its lease for good, so another node has to take it first: otherwise none would
    /// lead.
    pub(crate) async fn stay(&self) -> bool {
        if let Some(term) = self.raft.holds_term() {
            if !self.raft.is_handing_over(term) {
                return true;
            }
            if let Err(reason) = self.raft.hand_over(term).await {
                tracing::debug!(reason, "no other voter takes over the lead that this node has begun to hand over");
            }
            return false;
        }
        let Some(leader) = self.leader.other_leader() else { return false };
        let told = self.network.say_leaving(admin_address(leader), self.raft.uid(), false).await;
        told.inspect_err(|reason| tracing::debug!(reason, "cannot tell the leader yet that this node stays")).is_ok()
    }
}
