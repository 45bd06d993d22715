//! The size that operators or a scaler have chosen for the ring, and the next step of this pool towards it.
//!
//! The namespace keeps that size (`GET /pool/wanted` of any node). While there is one, the pool follows it and its own
//! rules stand still; while nobody has chosen, its own rules decide. So two authorities never steer one pool.

use std::time::{Duration, Instant};

use chordfs_net::admin_client::AdminClient;
use chordfs_types::{admin::PoolTarget, ring_id::NodeAddress};
use tracing::{info, warn};

use super::super::policy::{HoldReason, PoolUsage};

/// After a drain that failed, the next one is tried when this has passed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What this pool knows of the wanted size.
#[derive(Default)]
pub(super) struct WantedSize {
    /// The last answer of any node; it counts while none answers.
    target: Option<PoolTarget>,
    /// The place in the list of nodes of the one that is asked next.
    next: usize,
    /// The number of nodes for which it was said that this machine has too few ports.
    too_many: Option<usize>,
    paused_until: Option<Instant>,
}

/// The authority over the size of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// No node has told yet: the pool only keeps its minimum.
    Unknown,
    /// The size was not chosen.
    OwnRules,
    /// This many nodes.
    Chosen(usize),
}

impl WantedSize {
    /// Asks one node, within the client's deadline: the one that answered last, or the next one after that failed.
    pub(super) async fn ask(&mut self, client: &AdminClient, nodes: &[NodeAddress]) {
        if nodes.is_empty() {
            return;
        }
        match client.pool_target(nodes[self.next % nodes.len()]).await {
            Ok(target) => self.learn(target),
            Err(error) => {
                tracing::debug!(%error, "the wanted size of the pool is not known at present");
                self.next = (self.next + 1) % nodes.len();
            }
        }
    }

    fn learn(&mut self, target: PoolTarget) {
        let known = self.target.as_ref().map(PoolTarget::nodes);
        let reason = target.reason.as_deref().unwrap_or_default();
        match target.nodes() {
            wanted if known == Some(wanted) => {}
            Some(wanted) => info!(wanted, decision = target.serial, reason, "follows the size chosen for the ring"),
            None if known.is_some() => info!(reason, "follows its own rules: nobody chooses the size any longer"),
            None => {}
        }
        self.target = Some(target);
    }

    pub(super) fn authority(&self) -> Authority {
        match self.target.as_ref().map(PoolTarget::nodes) {
            None => Authority::Unknown,
            Some(None) => Authority::OwnRules,
            Some(Some(nodes)) => Authority::Chosen(nodes as usize),
        }
    }

    /// The reason of the decision that the pool follows.
    pub(super) fn reason(&self) -> &str {
        self.target.as_ref().and_then(|target| target.reason.as_deref()).unwrap_or("no reason given")
    }

    /// The number of nodes that this machine strives for. It is said once if there are ports for fewer than wanted.
    pub(super) fn within_ports(&mut self, wanted: usize, max: usize) -> usize {
        let too_many = (wanted > max).then_some(wanted);
        if too_many.is_some() && self.too_many != too_many {
            warn!(
                wanted,
                max, "this machine runs at most `--max` nodes; stop the pool and start it again with a larger --max"
            );
        }
        self.too_many = too_many;
        wanted.min(max)
    }

    /// Lets some time pass before the next drain.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE_AFTER_FAILURE);
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }
}

/// The next step from `now` towards `goal` nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowStep {
    /// The pool has its size.
    Done,
    Add(usize),
    DrainOne,
    /// This is not the time for a node to leave.
    Wait(HoldReason),
}

/// A pool of `goal` nodes or fewer is joined at once; nodes leave one by one, when no copy is missing.
pub(super) fn next_step(goal: usize, now: &PoolUsage) -> FollowStep {
    match now.nodes {
        nodes if nodes < goal => FollowStep::Add(goal - nodes),
        nodes if nodes == goal => FollowStep::Done,
        _ => now.obstacle_to_shrinking().map_or(FollowStep::DrainOne, FollowStep::Wait),
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::{
        namespace::{PoolSize, Time},
        ring_config::RingConfig,
    };

    use super::*;

    fn target(wanted: Option<u32>) -> PoolTarget {
        PoolTarget::new(&RingConfig::default().pool, &PoolSize { wanted, ..PoolSize::default() }, Time::default())
    }

    #[test]
    fn one_authority_at_a_time_and_the_last_answer_counts_while_no_node_answers() {
        let mut wanted = WantedSize::default();
        assert_eq!(wanted.authority(), Authority::Unknown);
        wanted.learn(target(None));
        assert_eq!(wanted.authority(), Authority::OwnRules);
        wanted.learn(target(Some(3)));
        assert_eq!(wanted.authority(), Authority::Chosen(3));
        wanted.learn(target(Some(20)));
        assert_eq!(wanted.authority(), Authority::Chosen(8), "within pool.largest");
        assert_eq!((wanted.within_ports(8, 4), wanted.too_many), (4, Some(8)));
        assert_eq!((wanted.within_ports(3, 4), wanted.too_many), (3, None));
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_followed_by_the_next_one() {
        let (client, mut wanted) = (super::super::ask::client(), WantedSize::default());
        let nobody: Vec<NodeAddress> = (1..=3).map(|port| NodeAddress(([127, 0, 0, 1], port).into())).collect();
        wanted.ask(&client, &[]).await;
        for expected in [1, 2, 0] {
            wanted.ask(&client, &nobody).await;
            assert_eq!((wanted.next, wanted.authority()), (expected, Authority::Unknown));
        }
    }

    #[test]
    fn nodes_come_at_once_and_leave_one_by_one_when_all_are_whole() {
        let now = |nodes: usize| PoolUsage { used_percent: vec![95.0; nodes], nodes, ..PoolUsage::default() };
        assert_eq!(next_step(3, &now(1)), FollowStep::Add(2));
        assert_eq!(next_step(3, &now(3)), FollowStep::Done);
        assert_eq!(next_step(1, &now(3)), FollowStep::DrainOne, "however full the disks are: the drain counts them");
        let waits = |now: PoolUsage, reason| assert_eq!(next_step(1, &now), FollowStep::Wait(reason));
        waits(PoolUsage { draining: 1, ..now(3) }, HoldReason::Draining);
        waits(PoolUsage { arriving: 1, ..now(3) }, HoldReason::Arriving);
        waits(PoolUsage { filling: 1, ..now(3) }, HoldReason::Filling);
        waits(PoolUsage { nodes: 3, ..now(2) }, HoldReason::Unresponsive);
    }
}
