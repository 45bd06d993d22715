//! The running Raft of this node: whether it leads, in which term, and with which lease; its proposals and its failure.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use chordfs_types::namespace::{Change, NamespaceOp, Reply, Time};
use futures_util::FutureExt;
use openraft::{
    Instant as _, RaftMetrics,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, RaftError},
    type_config::alias::WatchReceiverOf,
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::sleep_guard::SleepGuard;
use crate::{
    raft_types::{EntryResult, LeaderTerm, LoggedOp, TypeConfig},
    settings::NamespaceSettings,
    state::state_machine::{NamespaceState, StateMachine},
};

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// How often this node looks whether its Raft has stopped.
const FAILURE_CHECK: Duration = Duration::from_millis(100);

pub(crate) const NO_MAJORITY: &str = "no majority of the namespace's voters answers";

pub(crate) struct RaftHandle {
    uid: u64,
    ring: SocketAddr,
    raft: Raft,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    state: NamespaceState,
    settings: NamespaceSettings,
    /// The term that this node is handing over: the next leader does not wait for its lease to end.
    handed_over: Mutex<Option<LeaderTerm>>,
    sleep: SleepGuard,
    /// Why this node no longer takes part, if Raft itself is still running.
    failure: watch::Sender<Option<String>>,
}

impl RaftHandle {
    pub(crate) fn new(
        uid: u64,
        ring: SocketAddr,
        raft: Raft,
        state: NamespaceState,
        settings: NamespaceSettings,
    ) -> Self {
        let (metrics, failure) = (raft.metrics(), watch::Sender::new(None));
        Self {
            uid,
            ring,
            raft,
            metrics,
            state,
            settings,
            handed_over: Mutex::default(),
            sleep: SleepGuard::new(),
            failure,
        }
    }

    /// This node's own id.
    pub(crate) fn uid(&self) -> u64 {
        self.uid
    }

    /// This node's ring address.
    pub(crate) fn ring(&self) -> SocketAddr {
        self.ring
    }

    pub(crate) fn settings(&self) -> &NamespaceSettings {
        &self.settings
    }

    pub(crate) fn state(&self) -> &NamespaceState {
        &self.state
    }

    pub(crate) fn openraft(&self) -> &Raft {
        &self.raft
    }

    /// Looks at Raft's metrics. Meanwhile Raft cannot change them, and whoever looks after it waits behind Raft: so
    /// `look` may not look again, directly or not, or the node stands still for ever. Where debug assertions are on,
    /// it panics instead.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&RaftMetrics<TypeConfig>) -> R) -> R {
        let _only = OnlyLook::begin();
        look(&self.metrics.borrow_watched())
    }

    /// Returns whether this node leads with a lease: no other node can be elected before the lease has ended.
    pub(crate) fn has_lease(&self) -> bool {
        self.serving_term().is_some()
    }

    /// The term in which this node leads with a lease and has applied an entry of its own. A later term of this node is
    /// another term.
    pub(crate) fn serving_term(&self) -> Option<LeaderTerm> {
        let leased = self.leased_term();
        leased.filter(|term| self.state.last_applied().is_some_and(|last| last.leader_id == *term))
    }

    /// The term in which this node leads, if a majority has confirmed it so recently that no other can have been
    /// elected.
    pub(crate) fn leased_term(&self) -> Option<LeaderTerm> {
        let (term, alone, acked) = self.look(|metrics| {
            let vote = &metrics.vote;
            let leads = metrics.state.is_leader() && vote.committed && vote.leader_id.node_id == self.uid;
            let configs = metrics.membership_config.get_joint_config();
            let alone = configs.len() == 1 && configs[0].len() == 1 && configs[0].contains(&self.uid);
            (leads.then_some(vote.leader_id), alone, metrics.last_quorum_acked)
        });
        let term = term?;
        let confirmed = acked.is_some_and(|at| {
            let age = at.into_inner().elapsed();
            age < self.lease() && self.sleep.awake_for(age)
        });
        let leased = (alone || confirmed) && !self.has_failed() && !self.is_handing_over(term);
        leased.then_some(term)
    }

    /// The term in which this node leads according to Raft, with or without a lease.
    pub(crate) fn holds_term(&self) -> Option<LeaderTerm> {
        let term = self.look(|metrics| {
            let leads = metrics.state.is_leader() && metrics.vote.leader_id.node_id == self.uid;
            leads.then_some(metrics.vote.leader_id)
        });
        term.filter(|_| !self.has_failed())
    }

    /// How long a leader answers after a majority has confirmed it. Followers do not elect another within
    /// `election_timeout_max` of a message they confirmed; half of that leaves room for clocks that run at different
    /// speeds.
    pub(crate) fn lease(&self) -> Duration {
        self.settings.election_timeout_max / 2
    }

    /// The current term, and its leader's ring address, as far as Raft knows.
    pub(crate) fn current_leader(&self) -> (u64, Option<SocketAddr>) {
        self.look(|metrics| {
            let leader = metrics.current_leader.and_then(|uid| metrics.membership_config.get_node(&uid));
            (metrics.current_term, leader.map(|member| member.ring))
        })
    }

    /// How far the other voters are behind this node's log, while it leads: of each its ring address, the entries that
    /// it has not confirmed, and the time since its last answer.
    pub(crate) fn voter_lags(&self) -> Vec<(SocketAddr, u64, Duration)> {
        if self.holds_term().is_none() {
            return Vec::new();
        }
        let metrics = self.look(Clone::clone);
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        let matched = |uid: u64| metrics.replication.as_ref().and_then(|progress| *progress.get(&uid)?);
        let answered = |uid: u64| metrics.heartbeat.as_ref().and_then(|heartbeat| *heartbeat.get(&uid)?);
        let others = metrics.membership_config.voter_ids().filter(|uid| *uid != self.uid);
        let lag = |uid: u64| {
            let ring = metrics.membership_config.get_node(&uid)?.ring;
            let entries = last.saturating_sub(matched(uid).map_or(0, |log_id| log_id.index + 1));
            Some((ring, entries, answered(uid).map_or(Duration::MAX, |at| at.elapsed())))
        };
        others.filter_map(lag).collect()
    }

    /// Returns whether this node votes according to its own log.
    pub(crate) fn is_voter_by_log(&self) -> bool {
        self.look(|metrics| metrics.membership_config.voter_ids().any(|uid| uid == self.uid))
    }

    /// Returns whether the members that this node knows are stored by a majority: no other leader can undo the change
    /// that made them the members.
    pub(crate) fn members_are_committed(&self) -> bool {
        let changed = self.look(|metrics| *metrics.membership_config.log_id());
        changed <= self.state.last_applied()
    }

    pub(crate) fn is_only_voter(&self) -> bool {
        self.look(|metrics| metrics.membership_config.voter_ids().eq([self.uid]))
    }

    pub(crate) fn is_handing_over(&self, term: LeaderTerm) -> bool {
        *self.handed_over.lock() == Some(term)
    }

    /// Transfers leadership to the voter that has most of the log. That voter does not wait for this leader's lease, so
    /// this leader gives up the lease first, and for good: a transfer that seems to have failed may only be late.
    pub(crate) async fn hand_over(&self, term: LeaderTerm) -> Result<(), String> {
        let successor = self.look(|metrics| {
            let voters = metrics.membership_config.voter_ids().filter(|uid| *uid != self.uid);
            let progress = metrics.replication.as_ref();
            voters.max_by_key(|uid| progress.and_then(|progress| *progress.get(uid)?))
        });
        let successor = successor.ok_or("no other node holds the namespace: it stops with this node")?;
        *self.handed_over.lock() = Some(term);
        let transferred = self.raft.trigger().transfer_leader(successor).await;
        let leads = |uid: Option<u64>| uid.is_some_and(|uid| uid != self.uid);
        let wait = self.raft.wait(Some(self.settings.election_timeout_max * 2));
        let changed = wait.metrics(|metrics| leads(metrics.current_leader), "another leads").await;
        transferred.map_err(|error| error.to_string())?;
        if let Err(error) = changed {
            tracing::debug!(%error, "no other voter has taken over leadership; trying again");
        }
        Ok(())
    }

    /// Logs one of the namespace's own changes. Only the leader can.
    pub(crate) async fn propose(&self, change: Change, now: Time) -> Result<Reply, String> {
        let op = LoggedOp::new(&NamespaceOp { origin: None, now, change }, now);
        let written = timeout(self.settings.call_deadline, self.raft.client_write(op)).await;
        let written = written.map_err(|_| NO_MAJORITY.to_owned())?;
        let EntryResult { mut replies, .. } = written.map_err(|error| write_failure(&error))?.data;
        match replies.pop() {
            Some(reply) => reply.map_err(|error| error.to_string()),
            None => Err(NO_OPERATION.into()),
        }
    }

    /// Stops taking part; the process should end.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "the namespace has stopped on this node");
        self.raft.runtime_config().elect(false);
        self.raft.runtime_config().heartbeat(false);
        self.failure.send_replace(Some(reason));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Why this node no longer takes part, if it has failed.
    pub(crate) fn failure(&self) -> Option<String> {
        let failure = self.failure.borrow().clone();
        failure.or_else(|| self.look(|metrics| metrics.running_state.as_ref().err().map(ToString::to_string)))
    }

    /// Resolves with the reason when this node has failed.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        tokio::select! {
            Ok(reason) = failure.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
            reason = self.raft_failed() => reason,
        }
    }

    /// Looks now and then: Raft changes its metrics several times for each operation, and each change would wake a task
    /// that waits for one.
    async fn raft_failed(&self) -> String {
        let mut metrics = self.metrics.clone();
        loop {
            if let Some(reason) = why_ended(&mut metrics) {
                return reason;
            }
            sleep(FAILURE_CHECK).await;
        }
    }
}

/// There is at most one in each thread.
struct OnlyLook;

thread_local! {
    static LOOKS: Cell<bool> = const { Cell::new(false) };
}

impl OnlyLook {
    fn begin() -> Self {
        debug_assert!(!LOOKS.replace(true), "Raft's metrics are looked at by somebody who looks at them already");
        Self
    }
}

impl Drop for OnlyLook {
    fn drop(&mut self) {
        LOOKS.set(false);
    }
}

/// Why Raft has ended, if it has. If its task panicked, it could not say so, and only its sender is gone.
fn why_ended(metrics: &mut WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>) -> Option<String> {
    let is_gone = matches!(metrics.changed().now_or_never(), Some(Err(_)));
    let fatal = metrics.borrow_watched().running_state.as_ref().err().map(ToString::to_string);
    fatal.or_else(|| is_gone.then(|| "Raft has stopped".into()))
}

pub(crate) const NO_OPERATION: &str = "the log entry carried no operation";

/// Why an operation could not be logged, for people.
pub(crate) fn write_failure(error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> String {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => "this node does not lead the namespace".into(),
        RaftError::APIError(error) => error.to_string(),
        RaftError::Fatal(fatal) => format!("this node's namespace has stopped: {fatal}"),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{async_runtime::watch::WatchSender, type_config::TypeConfigExt};

    use super::*;

    /// A node stood still for ever when Raft changed its metrics between the two.
    #[test]
    #[should_panic(expected = "already")]
    fn who_looks_at_the_metrics_may_not_look_again() {
        let _first = OnlyLook::begin();
        let _second = OnlyLook::begin();
    }

    #[test]
    fn a_raft_that_is_gone_without_a_word_is_noticed() {
        let (sender, mut metrics) = TypeConfig::watch_channel(RaftMetrics::<TypeConfig>::new_initial(1));
        assert_eq!((why_ended(&mut metrics), why_ended(&mut metrics)), (None, None));
        sender.send(RaftMetrics::new_initial(1)).expect("it is watched");
        drop(sender);
        let looks = [why_ended(&mut metrics), why_ended(&mut metrics)];
        assert!(looks.iter().any(Option::is_some), "{looks:?}");
    }
}
