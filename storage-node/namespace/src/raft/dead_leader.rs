//! A leader whose process has ended is replaced at once, not after its lease. An unresponsive leader keeps its lease,
//! because it may only be slow or cut off, and still serve mounts; a leader whose process has ended serves none. This
//! shortens the wait after a crash from more than two seconds to about one.
//!
//! A voter finds the leader dead when it has received nothing for longer than a leader answers without a majority's
//! confirmation (`leased_term`), and the leader's host refuses connections at its port. One voter's finding is not
//! enough: a firewall that refuses connections looks the same, while others still reach the leader. So the voter asks
//! the others, and stands for election only when a majority, itself included, finds the same leader dead: without them
//! that leader's own lease has expired, and they do not renew it. A voter that has reported a leader dead refuses its
//! messages for as long as the election that may follow can take: the election bypasses the lease that Raft's voters
//! keep, and a leader that was only suspended must not answer on the strength of that lease meanwhile.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{Instant as _, raft::TransferLeaderRequest};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};

use super::{handle::RaftHandle, leader::LeaderTracking, network::Network};
use crate::{
    raft_types::{RaftMember, Vote, admin_address},
    storage::disk_space::DiskSpace,
};

/// The other host's kernel refuses a connection at once; anything later is no refusal.
const PROBE_DEADLINE: Duration = Duration::from_millis(200);
/// Two voters that find the leader dead at the same time should not both stand for election.
const MOST_JITTER: Duration = Duration::from_millis(100);

/// The time from a report to the last vote that can result from it: the other voter's jitter, its write to disk, and a
/// call.
const PROMISED_FOR: Duration = Duration::from_secs(3);

/// Detects that the leader's process has ended, and replaces it.
pub(crate) struct DeadLeaderDetector {
    raft: Arc<RaftHandle>,
    leader: Arc<LeaderTracking>,
    network: Network,
    disk: Arc<DiskSpace>,
    findings: Mutex<LeaderFindings>,
}

/// This voter's findings about the leader, and its reports of them to others.
#[derive(Debug, Default)]
struct LeaderFindings {
    /// The term whose leader it finds dead.
    found: Option<u64>,
    /// The term whose leader it has reported dead, and when it last did so.
    reported: Option<(u64, Instant)>,
}

impl LeaderFindings {
    fn find(&mut self, term: Option<u64>) {
        self.found = term;
    }

    /// The term for another voter that asks. From now on its leader is not followed.
    fn report(&mut self, now: Instant) -> Option<u64> {
        self.reported = self.found.map(|term| (term, now)).or(self.reported);
        self.found
    }

    /// Returns whether messages of that term's leader are refused.
    fn is_given_up(&self, term: u64, now: Instant) -> bool {
        self.reported.is_some_and(|(reported, at)| reported == term && now.saturating_duration_since(at) < PROMISED_FOR)
    }
}

impl DeadLeaderDetector {
    pub(crate) fn new(
        raft: Arc<RaftHandle>,
        leader: Arc<LeaderTracking>,
        network: Network,
        disk: Arc<DiskSpace>,
    ) -> Self {
        Self { raft, leader, network, disk, findings: Mutex::default() }
    }

    /// The term whose leader this voter finds dead, for another voter. From now on its leader is not followed.
    pub(crate) fn report(&self) -> Option<u64> {
        self.findings.lock().report(Instant::now())
    }

    /// Returns whether messages of that term's leader are refused.
    pub(crate) fn is_given_up(&self, term: u64) -> bool {
        self.findings.lock().is_given_up(term, Instant::now())
    }

    /// Watches the leader for as long as this node runs.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::time::sleep(self.raft.settings().heartbeat / 2).await;
            let found = self.find_dead_leader().await;
            self.findings.lock().find(found.map(|vote| vote.leader_id.term));
            let Some(vote) = found else { continue };
            if self.disk.full_for().is_zero() && self.others_agree(vote.leader_id.term).await {
                self.report();
                tokio::time::sleep(MOST_JITTER.mul_f64(rand::random())).await;
                self.stand_for_election(vote).await;
            }
        }
    }

    /// The vote of the current leader, if this voter finds it dead.
    async fn find_dead_leader(&self) -> Option<Vote> {
        let (vote, leader) = self.other_leader()?;
        let last_message = self.raft.openraft().with_raft_state(|state| state.vote_last_modified()).await.ok()??;
        let lease_with_margin = self.raft.lease() + self.raft.lease() / 4;
        (last_message.elapsed() > lease_with_margin && refuses_connections(leader).await).then_some(vote)
    }

    fn other_leader(&self) -> Option<(Vote, SocketAddr)> {
        let is_voter = self.raft.is_voter_by_log();
        self.raft.look(|metrics| {
            let leads_elsewhere = metrics.vote.committed && metrics.vote.leader_id.node_id != self.raft.uid();
            let leader = metrics.membership_config.get_node(&metrics.vote.leader_id.node_id);
            let leader = leader.map(RaftMember::admin_address)?;
            (is_voter && leads_elsewhere).then_some((metrics.vote, leader))
        })
    }

    /// Returns whether a majority of the voters, this one included, finds the leader of that term dead.
    async fn others_agree(&self, term: u64) -> bool {
        let voters = self.leader.voters();
        let others = voters.iter().filter(|voter| **voter != self.raft.ring());
        let asked = others.map(|voter| timeout(PROBE_DEADLINE, self.network.identity(admin_address(*voter))));
        let answers = futures_util::future::join_all(asked).await.into_iter().flatten().flatten();
        let agree = answers.filter(|identity| identity.voter && identity.dead_leader == Some(term)).count() + 1;
        agree > voters.len() / 2
    }

    /// Acts as if the dead leader had handed over to this node, which bypasses the lease that it was promised.
    async fn stand_for_election(&self, vote: Vote) {
        tracing::info!(term = vote.leader_id.term, "the leader's process has ended: standing for election");
        let request = TransferLeaderRequest::new(vote, self.raft.uid(), None);
        if let Err(error) = self.raft.openraft().handle_transfer_leader(request).await {
            tracing::debug!(%error, "could not stand for election");
        }
    }
}

async fn refuses_connections(leader: SocketAddr) -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    matches!(timeout(PROBE_DEADLINE, TcpStream::connect(leader)).await, Ok(Err(error)) if refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_that_reported_a_leader_dead_does_not_follow_it_until_the_election_is_over() {
        let (start, mut leader) = (Instant::now(), LeaderFindings::default());
        assert_eq!((leader.report(start), leader.is_given_up(7, start)), (None, false));
        leader.find(Some(7));
        assert!(!leader.is_given_up(7, start), "no other voter knows");
        assert_eq!(leader.report(start), Some(7));
        // The leader was only suspended, and is found alive again.
        leader.find(None);
        let later = start + PROMISED_FOR / 2;
        assert_eq!((leader.report(later), leader.is_given_up(7, later)), (None, true));
        assert!(!leader.is_given_up(8, later), "the next leader is another one");
        assert!(!leader.is_given_up(7, start + PROMISED_FOR), "there was no election");
    }
}
