//! Giving up leadership and the vote in good order, before the node leaves for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    raft::{handle::RaftHandle, leader::LeaderTracking, network::Network},
    raft_types::admin_address,
};

const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(crate) struct VoterResignation {
    raft: Arc<RaftHandle>,
    leader: Arc<LeaderTracking>,
    network: Network,
    /// The leader was asked not to choose this node, and not yet to choose it again.
    declines: AtomicBool,
}

impl VoterResignation {
    pub(crate) fn new(raft: Arc<RaftHandle>, leader: Arc<LeaderTracking>, network: Network) -> Self {
        Self { raft, leader, network, declines: AtomicBool::new(false) }
    }

    /// Whether this node does not want to vote: it leaves, or its disk is full.
    pub(crate) fn declines(&self) -> bool {
        self.declines.load(Relaxed)
    }

    pub(crate) fn set_declines(&self) {
        self.declines.store(true, Relaxed);
    }

    pub(crate) fn is_voter(&self) -> bool {
        self.leader.is_voter()
    }

    /// Returns when another node leads and this node is no longer a member. The caller sets the deadline.
    pub(crate) async fn leave(&self) -> Result<(), String> {
        loop {
            if let Some(term) = self.raft.holds_term() {
                self.raft.hand_over(term).await?;
            } else if self.request_removal().await {
                // The leader sends its messages only to members, and this node is no longer one, so it has to ask.
                self.leader.confirm().await;
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Reports to the leader that this node leaves. Returns whether the leader has received that and no longer counts
    /// this node as a member, not even as a learner: a learner may get a vote at any moment, and a node that has left
    /// would keep it for ever. The order matters: a change that the leader began before it received the report shows in
    /// its later answer.
    pub(crate) async fn request_removal(&self) -> bool {
        let Some(leader) = self.leader.other_leader() else { return false };
        if self.raft.holds_term().is_some() {
            return false;
        }
        if let Err(reason) = self.network.report_leaving(admin_address(leader), self.raft.uid(), true).await {
            tracing::debug!(reason, "cannot report to the leader yet that this node leaves");
            return false;
        }
        match self.network.identity(admin_address(leader)).await {
            Ok(leader) => {
                leader.leads && !leader.voters.contains(&self.raft.ring()) && !leader.members.contains(&self.raft.uid())
            }
            Err(_) => false,
        }
    }

    /// Takes one step towards giving up leadership and the vote; does nothing if this node is the only voter.
    pub(crate) async fn step_down(&self) {
        let alone = self.leader.voters().iter().all(|voter| *voter == self.raft.ring());
        if alone {
            return;
        }
        match self.raft.holds_term() {
            Some(term) => {
                if let Err(reason) = self.raft.hand_over(term).await {
                    tracing::debug!(reason, "no other voter has taken over leadership yet");
                }
            }
            None => self.decline(true).await,
        }
    }

    /// Asks the leader not to choose this node as a voter, or allows it again. The next leader does not know the
    /// request, so it has to be repeated.
    pub(crate) async fn decline(&self, leaving: bool) {
        self.declines.store(leaving, Relaxed);
        let Some(leader) = self.leader.other_leader() else { return };
        if let Err(reason) = self.network.report_leaving(admin_address(leader), self.raft.uid(), leaving).await {
            tracing::debug!(reason, leaving, "cannot report to the leader whether this node may vote");
        }
    }

    /// Takes one step towards being eligible as a voter again; returns whether that is done. A leader that has begun to
    /// hand over has lost its lease for good, so another node has to lead first: otherwise none would.
    pub(crate) async fn stay(&self) -> bool {
        self.declines.store(false, Relaxed);
        if let Some(term) = self.raft.holds_term() {
            if !self.raft.is_handing_over(term) {
                return true;
            }
            if let Err(reason) = self.raft.hand_over(term).await {
                tracing::debug!(reason, "no other voter has taken over the leadership that this node hands over");
            }
            return false;
        }
        let Some(leader) = self.leader.other_leader() else { return false };
        let sent = self.network.report_leaving(admin_address(leader), self.raft.uid(), false).await;
        sent.inspect_err(|reason| tracing::debug!(reason, "cannot report to the leader yet that this node stays"))
            .is_ok()
    }
}
