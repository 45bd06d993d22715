//! The nodes that the scaler may ask: those that it was given, and those that it has met since. Any one of them knows
//! the whole ring, so the scaler survives the death of each.

use std::{collections::BTreeSet, net::SocketAddr};

use chordfs_net::admin_client::{AdminClient, AdminError};
use chordfs_types::{
    admin::{PoolStatus, RingNodeState, RingStatus},
    ring_config::{PoolConfig, RingConfig},
    ring_id::NodeAddress,
};

/// What one node says of its ring.
pub(super) struct RingReport {
    /// The node that said it.
    pub node: NodeAddress,
    pub config: PoolConfig,
    /// Older than `ring`, so that a decision of another scaler in between makes one from this report void.
    pub pool: PoolStatus,
    pub ring: RingStatus,
}

pub(super) struct KnownNodes {
    client: AdminClient,
    given: Vec<NodeAddress>,
    met: BTreeSet<SocketAddr>,
    /// It has answered last, and is asked first.
    last: Option<NodeAddress>,
}

impl KnownNodes {
    pub(super) fn new(client: AdminClient, given: Vec<NodeAddress>) -> Self {
        Self { client, given, met: BTreeSet::new(), last: None }
    }

    /// All nodes that are known, each once.
    pub(super) fn all(&self) -> Vec<NodeAddress> {
        let met = self.met.iter().map(|address| NodeAddress(*address));
        let mut all: Vec<NodeAddress> = Vec::new();
        for node in self.last.into_iter().chain(self.given.iter().copied()).chain(met) {
            if !all.iter().any(|known| known.0 == node.0) {
                all.push(node);
            }
        }
        all
    }

    /// Asks one node after the other until one reports the whole. The error is that of the first.
    pub(super) async fn report(&mut self) -> Result<RingReport, String> {
        let mut first = None;
        for node in self.all() {
            match self.report_of(node).await {
                Ok(report) => {
                    self.learn(&report);
                    return Ok(report);
                }
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        Err(first.unwrap_or_else(|| "no node is known".into()))
    }

    fn learn(&mut self, report: &RingReport) {
        self.last = Some(report.node);
        let nodes = report.ring.nodes.iter().filter(|node| node.state != RingNodeState::Foreign && node.arc.is_some());
        self.met = nodes.map(|node| node.address).collect();
    }

    async fn report_of(&self, node: NodeAddress) -> Result<RingReport, String> {
        let text = |error: AdminError| error.to_string();
        let config = self.client.config(node).await.map_err(text)?;
        let config = RingConfig::default().with_json(&config);
        let config = config.map_err(|error| format!("the configuration of {node} is of another release: {error}"))?;
        let pool = self.client.pool(node).await.map_err(text)?;
        let ring = self.client.ring(node).await.map_err(text)?;
        Ok(RingReport { node, config: config.pool, pool, ring })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chordfs_net::http_pool::HttpPool;
    use chordfs_types::{
        admin::{Health, NamespaceStatus, NodeLine, PoolNodes, PoolTarget},
        namespace::{PoolSize, Time},
        ring_id::{RingArc, RingId},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::*;

    /// A node that is bound to its administration port, and its address in the ring.
    async fn bind() -> (TcpListener, NodeAddress) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        (listener, NodeAddress(SocketAddr::new(admin.ip(), admin.port() - 2)))
    }

    fn line(node: NodeAddress) -> NodeLine {
        NodeLine {
            arc: Some(RingArc::new(RingId(1), RingId(2))),
            ..NodeLine::without_status(node.0, RingNodeState::Up)
        }
    }

    /// Answers as a node of this ring does, until it is aborted.
    fn serve(listener: TcpListener, asked: NodeAddress, ring: &[NodeAddress]) -> JoinHandle<()> {
        let config = RingConfig::default();
        let target = PoolTarget::new(&config.pool, &PoolSize::default(), Time::default());
        let pool = PoolStatus { target, nodes: PoolNodes::default(), decisions: Vec::new() };
        let ring = RingStatus {
            asked: asked.0,
            nodes: ring.iter().copied().map(line).collect(),
            under_replicated: None,
            space: None,
            namespace: NamespaceStatus::default(),
            insecure: false,
            health: Health::default(),
        };
        let (pool, ring) = (serde_json::to_string(&pool).unwrap(), serde_json::to_string(&ring).unwrap());
        let answers = [("/config", config.to_json().to_string()), ("/pool", pool), ("/ring", ring)];
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                answer(connection, &answers).await;
            }
        })
    }

    async fn answer(mut connection: TcpStream, answers: &[(&str, String)]) {
        let mut request = [0; 4096];
        let read = connection.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..read]);
        let path = request.split(' ').nth(1).unwrap();
        let body = answers.iter().find(|(known, _)| *known == path).map(|(_, body)| body).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        connection.write_all((head + body).as_bytes()).await.unwrap();
    }

    /// Only one of the two nodes was given; the other one was met.
    #[tokio::test]
    async fn a_scaler_survives_the_node_that_it_was_given() {
        let ((first, given), (second, met)) = (bind().await, bind().await);
        let ring = [given, met];
        let (first, _second) = (serve(first, given, &ring), serve(second, met, &ring));
        let client = AdminClient::new(Arc::new(HttpPool::new()), Duration::from_secs(5));
        let mut members = KnownNodes::new(client, vec![given]);
        assert_eq!(members.report().await.unwrap().node.0, given.0);
        first.abort();
        let _ = first.await;
        let report = members.report().await.unwrap();
        assert_eq!((report.node.0, report.ring.nodes.len()), (met.0, 2));
        assert_eq!(members.all()[0].0, met.0, "it is asked first from now on");
    }

    #[tokio::test]
    async fn without_any_answer_the_first_failure_is_named() {
        let (listener, node) = bind().await;
        drop(listener);
        let client = AdminClient::new(Arc::new(HttpPool::new()), Duration::from_secs(5));
        let failure = KnownNodes::new(client, vec![node]).report().await.err().unwrap();
        assert!(failure.contains("no node answers at"), "{failure}");
    }
}
