//! A leader whose process has ended is replaced at once, not after the lease that a silent one is given: that one may only
//! be slow or cut off, and still answer mounts; this one answers nobody. It takes a crash from more than two seconds of
//! waiting to about one.
//!
//! A voter takes the leader for dead when it has heard nothing for longer than a leader answers without a majority's
//! confirmation (`leased`), and the leader's host says that nobody listens at its port. One voter's word is not enough: a
//! firewall that refuses connections says the same of a leader that others hear well. So it asks the others, and begins
//! an election only when a majority, itself included, finds the same leader dead: without them that leader's own lease
//! is over, and they do not renew it. Who has told somebody that a leader is dead refuses its messages for as long as
//! the election that may follow can take: the election goes past the lease that Raft's voters keep, and a leader that
//! was only stopped must not answer from it meanwhile.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use openraft::{Instant as _, async_runtime::watch::WatchReceiver, raft::TransferLeaderRequest};
use tokio::{net::TcpStream, time::timeout};

use super::{
    Inner,
    raft_types::{Member, Vote, admin_address},
};

/// A refusal comes from the other host's kernel at once, or it is none.
const PROBE_DEADLINE: Duration = Duration::from_millis(200);
/// Two voters that find out at the same time should not both stand for election.
const MOST_JITTER: Duration = Duration::from_millis(100);

/// From a word that somebody may count on to the last vote that can come of it: the jitter, what the other has to write
/// down first, and a call.
const PROMISED_FOR: Duration = Duration::from_secs(3);

/// What this voter thinks of the leader.
#[derive(Debug, Default)]
pub(super) struct DeadLeader {
    /// The term whose leader it finds dead.
    found: Option<u64>,
    /// The term whose leader it has called dead, and when it did so last.
    told: Option<(u64, Instant)>,
}

impl DeadLeader {
    fn find(&mut self, term: Option<u64>) {
        self.found = term;
    }

    /// The term for somebody who asks. From here on its leader is not followed.
    pub(super) fn told(&mut self, now: Instant) -> Option<u64> {
        self.told = self.found.map(|term| (term, now)).or(self.told);
        self.found
    }

    /// Whether a message of that term's leader is refused.
    pub(super) fn is_given_up(&self, term: u64, now: Instant) -> bool {
        self.told.is_some_and(|(told, at)| told == term && now.saturating_duration_since(at) < PROMISED_FOR)
    }
}

pub(super) async fn replace(inner: &Inner) {
    loop {
        tokio::time::sleep(inner.settings.heartbeat / 2).await;
        let found = inner.find_dead_leader().await;
        inner.dead_leader.lock().find(found.map(|vote| vote.leader_id.term));
        let Some(vote) = found else { continue };
        if inner.log.room().full_for().is_zero() && others_agree(inner, vote.leader_id.term).await {
            inner.dead_leader.lock().told(Instant::now());
            tokio::time::sleep(MOST_JITTER.mul_f64(rand::random())).await;
            stand_for_election(inner, vote).await;
        }
    }
}

impl Inner {
    /// The vote by which a leader reigns that this voter finds dead.
    async fn find_dead_leader(&self) -> Option<Vote> {
        let (vote, leader) = self.other_leader()?;
        let heard = self.raft.with_raft_state(|state| state.vote_last_modified()).await.ok()??;
        let over = self.lease_of_leader() + self.lease_of_leader() / 4;
        (heard.elapsed() > over && nobody_listens(leader).await).then_some(vote)
    }

    fn other_leader(&self) -> Option<(Vote, SocketAddr)> {
        let metrics = self.metrics.borrow_watched();
        let members = &metrics.membership_config;
        let is_voter = members.voter_ids().any(|uid| uid == self.uid);
        let leads_elsewhere = metrics.vote.committed && metrics.vote.leader_id.node_id != self.uid;
        let leader = members.get_node(&metrics.vote.leader_id.node_id).map(Member::admin_address)?;
        (is_voter && leads_elsewhere).then_some((metrics.vote, leader))
    }

    /// For how long a leader answers after a majority has confirmed it. Followers do not elect another within
    /// `election_timeout_max` of a message they confirmed; half of that leaves room for clocks that run at different
    /// speeds.
    pub(super) fn lease_of_leader(&self) -> Duration {
        self.settings.election_timeout_max / 2
    }
}

async fn nobody_listens(leader: SocketAddr) -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    matches!(timeout(PROBE_DEADLINE, TcpStream::connect(leader)).await, Ok(Err(error)) if refused(&error))
}

/// Whether a majority of the voters, this one included, finds the leader of that term dead.
async fn others_agree(inner: &Inner, term: u64) -> bool {
    let voters = inner.voters();
    let others = voters.iter().filter(|voter| **voter != inner.ring);
    let asked = others.map(|voter| timeout(PROBE_DEADLINE, inner.network.identity(admin_address(*voter))));
    let said = futures_util::future::join_all(asked).await.into_iter().flatten().flatten();
    let agree = said.filter(|who| who.voter && who.dead_leader == Some(term)).count() + 1;
    agree > voters.len() / 2
}

/// As if the dead leader had handed over to this node, which is the way past the lease that it was promised.
async fn stand_for_election(inner: &Inner, vote: Vote) {
    tracing::info!(term = vote.leader_id.term, "the leader's process has ended: standing for election");
    if let Err(error) = inner.raft.handle_transfer_leader(TransferLeaderRequest::new(vote, inner.uid, None)).await {
        tracing::debug!(%error, "could not stand for election");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_called_a_leader_dead_does_not_follow_it_while_others_may_count_on_that() {
        let (start, mut leader) = (Instant::now(), DeadLeader::default());
        assert_eq!((leader.told(start), leader.is_given_up(7, start)), (None, false));
        leader.find(Some(7));
        assert!(!leader.is_given_up(7, start), "nobody knows");
        assert_eq!(leader.told(start), Some(7));
        // It was only stopped, and is found alive again.
        leader.find(None);
        let later = start + PROMISED_FOR / 2;
        assert_eq!((leader.told(later), leader.is_given_up(7, later)), (None, true));
        assert!(!leader.is_given_up(8, later), "the next leader is another one");
        assert!(!leader.is_given_up(7, start + PROMISED_FOR), "no election came of it");
    }
}
