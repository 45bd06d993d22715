//! The histories of all nodes, put together by the node that is asked.
//!
//! What a node has sent is kept, and it is asked only for what is new: once a minute while somebody looks. All nodes
//! are asked at once, each with a deadline, and one that does not answer has a gap.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chordfs_history::known::{KnownHistories, Minutes};
use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_types::admin::{NodeHistory, RingHistory, RingNodeState, RingStatus};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tracing::debug;

use super::sampler::OwnHistory;

/// A node answers from memory.
const DEADLINE: Duration = Duration::from_millis(1200);
const ASKED_AT_ONCE: usize = 64;

/// What this node knows of the histories of all. Cheap to clone; the clones share it.
#[derive(Clone)]
pub struct RingHistories {
    own: OwnHistory,
    client: AdminClient,
    known: Arc<Mutex<KnownHistories>>,
}

impl RingHistories {
    pub fn new(own: OwnHistory, pool: Arc<HttpPool>) -> Self {
        Self { own, client: AdminClient::new(pool, DEADLINE), known: Arc::default() }
    }

    /// Asks the nodes that `ring` found, and puts together what is known of them.
    pub async fn gather(&self, ring: &RingStatus) -> RingHistory {
        let minutes = self.minutes();
        let nodes = ring.nodes.iter().filter(|node| node.state != RingNodeState::Foreign);
        let up: Vec<(SocketAddr, bool)> =
            nodes.map(|node| (node.address, node.state != RingNodeState::Unreachable)).collect();
        let silent = self.ask(ring.asked, minutes, &up).await;
        let mut known = self.known.lock();
        known.add(ring.asked, self.own.points(None).points);
        known.forget_old(minutes);
        let answered = |(address, up): &(SocketAddr, bool)| (*address, *up && !silent.contains(address));
        known.ring(ring.asked, minutes, &up.iter().map(answered).collect::<Vec<_>>())
    }

    /// Asks those nodes that are up for what is new. Returns the ones that did not answer.
    async fn ask(&self, me: SocketAddr, minutes: Minutes, nodes: &[(SocketAddr, bool)]) -> Vec<SocketAddr> {
        let newest = |node: SocketAddr| self.known.lock().newest(node);
        let is_due = |node: &SocketAddr| *node != me && newest(*node) < Some(minutes.newest());
        let due: Vec<SocketAddr> = nodes.iter().filter(|(_, up)| *up).map(|(node, _)| *node).filter(is_due).collect();
        let asked = due.into_iter().map(|node| async move { (node, self.points_of(node, newest(node)).await) });
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let mut silent = Vec::new();
        for (node, answer) in answers {
            match answer {
                Some(history) => self.known.lock().add(node, history.points),
                None => silent.push(node),
            }
        }
        silent
    }

    async fn points_of(&self, node: SocketAddr, after: Option<u64>) -> Option<NodeHistory> {
        let history = self.client.history(node.into(), after).await;
        history.inspect_err(|error| debug!(peer = %node, %error, "no history")).ok()
    }

    fn minutes(&self) -> Minutes {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Minutes { now, period_seconds: self.own.period_seconds() }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::get};
    use chordfs_history::recorder::LatencyMeters;
    use chordfs_types::admin::{HistoryPoint, HistorySource, NodeLine, RingHistory};
    use tokio::net::TcpListener;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// Binds the administration port of a node, and returns the node's ring address.
    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        (listener, SocketAddr::new(admin.ip(), admin.port() - 2))
    }

    /// A node with one point, that of the last whole minute.
    async fn node_with_a_point() -> (AbortOnDropHandle<()>, SocketAddr) {
        let (listener, address) = bind().await;
        let answer = || async {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let time = Minutes { now, period_seconds: 60 }.newest();
            Json(NodeHistory { period_seconds: 60, points: vec![HistoryPoint { time, ..HistoryPoint::default() }] })
        };
        let router = Router::new().route("/history", get(answer));
        (AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })), address)
    }

    fn ring(nodes: &[(SocketAddr, RingNodeState)]) -> RingStatus {
        RingStatus {
            asked: nodes[0].0,
            nodes: nodes.iter().map(|(address, state)| NodeLine::without_status(*address, *state)).collect(),
            under_replicated: None,
            space: None,
            namespace: Default::default(),
            insecure: false,
            health: Default::default(),
        }
    }

    fn found(history: &RingHistory) -> Vec<(HistorySource, usize)> {
        history.nodes.iter().map(|node| (node.source, node.points.len())).collect()
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_leaves_the_others_points_and_keeps_its_own() {
        use HistorySource::{Answered, Left, Unresponsive};
        use RingNodeState::{Unreachable, Up};
        let own = OwnHistory::new(Duration::from_secs(60), LatencyMeters::default());
        let histories = RingHistories::new(own, Arc::default());
        let me = SocketAddr::from(([127, 0, 0, 1], 1));
        let (server, answering) = node_with_a_point().await;
        let (_hanging, silent) = bind().await;
        let all = ring(&[(me, Up), (answering, Up), (silent, Up)]);
        assert_eq!(found(&histories.gather(&all).await), [(Answered, 0), (Answered, 1), (Unresponsive, 0)]);
        drop(server);
        let dead = ring(&[(me, Up), (answering, Unreachable)]);
        assert_eq!(found(&histories.gather(&dead).await), [(Answered, 0), (Unresponsive, 1)]);
        assert_eq!(found(&histories.gather(&ring(&[(me, Up)])).await), [(Answered, 0), (Left, 1)]);
    }
}
