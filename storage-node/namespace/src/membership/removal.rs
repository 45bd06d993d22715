//! Detecting that the members have removed this node, while it was away or because the ring has enough voters without
//! it. The leader sends nothing to a node that is no member. Such a node would keep the tables as they were then in its
//! memory, and ask for votes for ever, so it begins anew as a node that has never been a member (`crate::renewal`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::resignation::VoterResignation;
use crate::{
    raft::{handle::RaftHandle, leader::LeaderTracking, network::MemberIdentity},
    storage::log_store::LogStore,
};

/// How long the leader's answers have to say so. A node that asks to be a member again within this time keeps its log.
const CERTAIN_AFTER: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(15) };
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(3) };

pub(crate) struct RemovalWatch {
    pub raft: Arc<RaftHandle>,
    pub leader: Arc<LeaderTracking>,
    pub resignation: Arc<VoterResignation>,
    pub log: LogStore,
}

impl RemovalWatch {
    /// Resolves when the leader has counted this node out for a while.
    pub(crate) async fn removed(&self) {
        let mut since = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.is_removed().await {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= CERTAIN_AFTER {
                return;
            }
        }
    }

    /// A node that leaves, or whose disk is full, is removed at its own request, and has to be known by its id until it
    /// has left or has space.
    async fn is_removed(&self) -> bool {
        let may_be = !self.log.is_pristine() && !self.raft.has_failed() && !self.resignation.declines();
        may_be && self.leader.ask_leader().await.is_some_and(|leader| counts_out(&leader, self.raft.uid()))
    }
}

/// Whether the answer of this namespace's leader says for certain that the node `uid` is no member.
fn counts_out(leader: &MemberIdentity, uid: u64) -> bool {
    leader.leads && leader.members_committed && !leader.members.is_empty() && !leader.members.contains(&uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_with_committed_members_counts_a_node_out() {
        let leader = MemberIdentity {
            uid: 1,
            namespace: Some(1),
            ring: ([127, 0, 0, 1], 7000).into(),
            term: 1,
            voter: true,
            leads: true,
            leader: None,
            voters: Vec::new(),
            members: vec![1, 2],
            members_committed: true,
            dead_leader: None,
        };
        assert!(counts_out(&leader, 3) && !counts_out(&leader, 2));
        assert!(!counts_out(&MemberIdentity { leads: false, ..leader.clone() }, 3));
        assert!(!counts_out(&MemberIdentity { members_committed: false, ..leader.clone() }, 3));
        assert!(!counts_out(&MemberIdentity { members: Vec::new(), ..leader }, 3), "an older program names none");
    }
}
