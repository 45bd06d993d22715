//! Two namespaces in one ring. It happens when a node that lost its disk begins anew instead of joining, or when one was
//! started without `--join` first; the ring brings the two together all the same.
//!
//! A node that is the only voter of its namespace looks at its neighbours. If one belongs to another namespace, the one
//! with a single voter gives way to one with several, and of two with a single voter the younger gives way: it ends
//! before it does harm, and says what to do. Nothing is deleted; that is a person's decision.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use openraft::async_runtime::watch::WatchReceiver;

use super::{Inner, network::Identity};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a node that should join waits for a neighbour's word before it leads a namespace of its own.
const UNDECIDED_FOR: Duration = Duration::from_secs(5);

impl Inner {
    /// The namespace this node belongs to, or follows by hearsay.
    pub(super) fn namespace(&self) -> Option<u64> {
        self.id.get().or_else(|| self.followed_namespace())
    }

    pub(super) fn only_voter(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        metrics.membership_config.voter_ids().eq([self.uid])
    }

    /// Looks for as long as this node runs, or until it has to give way.
    pub(super) async fn watch_for_rivals(&self) {
        // Before Raft has begun, its metrics say nothing.
        if self.raft.with_raft_state(|_| ()).await.is_err() {
            return;
        }
        let start = Instant::now();
        let mut neighbours = self.neighbours.clone();
        loop {
            neighbours.mark_unchanged();
            match self.look_at_neighbours().await {
                Err(reason) => return self.fail(reason),
                Ok(word) => {
                    self.peaceful.store(word != Word::Unclear, Relaxed);
                    let sure = word == Word::Peace || start.elapsed() >= UNDECIDED_FOR;
                    if sure {
                        self.raft.runtime_config().elect(true);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Ok(()) = neighbours.changed() => {}
            }
        }
    }

    /// An error says why this node has to end.
    async fn look_at_neighbours(&self) -> Result<Word, String> {
        let Some(ours) = self.id.get().filter(|_| self.only_voter()) else { return Ok(Word::Peace) };
        let near = self.near();
        let asked: BTreeSet<SocketAddr> = near.iter().chain(&self.join).copied().collect();
        let answers = self.ask(asked).await;
        if let Some(rival) = answers.iter().find(|who| has_precedence(ours, who)) {
            return Err(self.yield_to(ours, rival));
        }
        let heard: BTreeSet<SocketAddr> = answers.iter().map(|who| who.ring).collect();
        let strangers = answers.iter().any(|who| who.namespace.is_some_and(|theirs| theirs != ours));
        Ok(match near.is_subset(&heard) && !strangers {
            true if heard.is_empty() => Word::Silence,
            true => Word::Peace,
            false => Word::Unclear,
        })
    }

    fn near(&self) -> BTreeSet<SocketAddr> {
        let neighbours = self.neighbours.borrow();
        let near = neighbours.successors.iter().chain(&neighbours.predecessor).map(|node| node.ring_address());
        near.filter(|ring| *ring != self.ring).collect()
    }

    fn yield_to(&self, ours: u64, rival: &Identity) -> String {
        format!(
            "this node began a namespace of its own ({ours:016x}), but the ring it is in has another ({:016x}, voters \
             {:?}, told by {}). Stop this node, remove {} (the chunks beside it may stay) and start it with --join; \
             or, if this namespace is the one to keep, do that on the others",
            rival.namespace.unwrap_or_default(),
            rival.voters,
            rival.ring,
            self.dir.display(),
        )
    }

    /// Takes no further part; the process should end.
    fn fail(&self, reason: String) {
        tracing::error!(reason, "the namespace has stopped on this node");
        self.raft.runtime_config().elect(false);
        self.raft.runtime_config().heartbeat(false);
        self.failure.send_replace(Some(reason));
    }
}

/// What the neighbours say.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    /// All answered, and nobody knows of another namespace.
    Peace,
    /// There is nobody to ask.
    Silence,
    /// Somebody did not answer, or another namespace is there that should give way.
    Unclear,
}

/// Whether the only voter of `ours` has to give way to the namespace of `who`.
fn has_precedence(ours: u64, who: &Identity) -> bool {
    who.namespace.is_some_and(|theirs| theirs != ours && (who.voters.len() > 1 || theirs < ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_namespaces_exactly_one_gives_way() {
        let ring: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let who = |namespace, voters| Identity {
            uid: 1,
            namespace,
            ring,
            term: 1,
            voter: true,
            leads: true,
            leader: None,
            voters: vec![ring; voters],
            members: Vec::new(),
            dead_leader: None,
        };
        assert!(has_precedence(5, &who(Some(4), 1)) && !has_precedence(4, &who(Some(5), 1)), "the older one stays");
        assert!(has_precedence(4, &who(Some(5), 2)), "one with more voters stays");
        assert!(!has_precedence(5, &who(Some(5), 3)) && !has_precedence(5, &who(None, 0)), "there is only one");
    }
}
