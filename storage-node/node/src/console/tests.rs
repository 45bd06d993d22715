//! The page and its events over real sockets, above scripted rings.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::http::HeaderMap;
use chordfs_console::{RingView, Section};
use chordfs_types::{
    admin::{
        Health, HealthFacts, HistoryPoint, HistorySource, NamespaceStatus, NodeLine, RingHistory, RingNodeHistory,
        RingNodeState, RingStatus,
    },
    ring_config::RingConfig,
    ring_id::{RingArc, RingId},
};
use futures_util::{StreamExt, future::BoxFuture, future::join_all};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ConsoleOptions, ConsoleSource, routes};
use crate::http::tests::{PATIENCE, Server};

const UPDATE_EVERY: Duration = Duration::from_millis(50);
const MAX_VIEWERS: usize = 2;
/// 08:00:30 on some day.
const NOW: u64 = 1_800_000_030;

/// A ring of some nodes, of which the last may be silent.
struct ScriptedRing {
    nodes: usize,
    last_is_silent: AtomicBool,
    looks: AtomicUsize,
    look_time: Duration,
}

impl ScriptedRing {
    fn new(nodes: usize) -> Self {
        Self { nodes, last_is_silent: AtomicBool::new(false), looks: AtomicUsize::new(0), look_time: Duration::ZERO }
    }

    fn line(&self, at: usize) -> NodeLine {
        let id = |at: usize| RingId((at * ((1 << 32) / self.nodes)) as u32);
        let silent = at + 1 == self.nodes && self.last_is_silent.load(SeqCst);
        let state = if silent { RingNodeState::Unreachable } else { RingNodeState::Up };
        NodeLine {
            id: Some(id(at)),
            arc: Some(RingArc::new(id((at + self.nodes - 1) % self.nodes), id(at))),
            share: Some(1.0 / self.nodes as f64),
            chunks: Some(1),
            data_bytes: Some(1),
            free_bytes: Some(1 << 30),
            capacity_bytes: Some(1 << 30),
            voter: at == 0,
            leader: at == 0,
            ..NodeLine::without_status(address(at), state)
        }
    }

    fn look(&self) -> RingView {
        let mut status = RingStatus {
            asked: address(0),
            nodes: (0..self.nodes).map(|at| self.line(at)).collect(),
            under_replicated: Some(0),
            space: None,
            namespace: NamespaceStatus {
                known: true,
                leader: Some(address(0)),
                leader_confirmed: true,
                voters: vec![address(0)],
                ..NamespaceStatus::default()
            },
            insecure: false,
            health: Health::default(),
        };
        status.health = Health::judge(&HealthFacts::of_ring(&status));
        let point = HistoryPoint { time: NOW / 60 * 60 - 60, seconds: 60.0, requests: 7, ..HistoryPoint::default() };
        let history =
            |at| RingNodeHistory { address: address(at), source: HistorySource::Answered, points: vec![point.clone()] };
        let nodes = (0..self.nodes).map(history).collect();
        RingView {
            status,
            history: RingHistory { asked: address(0), time: NOW, period_seconds: 60, nodes },
            sessions: Err("no leader".into()),
            pool: Err("no leader".into()),
            config: RingConfig::default(),
        }
    }
}

impl ConsoleSource for Arc<ScriptedRing> {
    fn view(&self) -> BoxFuture<'_, RingView> {
        Box::pin(async move {
            self.looks.fetch_add(1, SeqCst);
            tokio::time::sleep(self.look_time).await;
            self.look()
        })
    }
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, at as u8 + 1], 5057))
}

async fn start(ring: ScriptedRing) -> (Server, Arc<ScriptedRing>, CancellationToken) {
    start_with(ring, UPDATE_EVERY).await
}

async fn start_with(ring: ScriptedRing, update_every: Duration) -> (Server, Arc<ScriptedRing>, CancellationToken) {
    let (ring, stop) = (Arc::new(ring), CancellationToken::new());
    let more = |_: &HeaderMap, _: &RingView| vec![Section { id: "more", title: "More", body: Default::default() }];
    let options = ConsoleOptions { max_viewers: MAX_VIEWERS, update_every };
    let router = routes(Arc::new(ring.clone()), Arc::new(more), options, stop.clone());
    (Server::start(router, PATIENCE).await, ring, stop)
}

/// Reads events until one of them contains `wanted`, and returns all that was read.
async fn read_until(response: reqwest::Response, wanted: &str) -> String {
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    while !text.contains(wanted) {
        let next = timeout(PATIENCE, stream.next()).await.expect("events come");
        text += &String::from_utf8_lossy(&next.expect("they go on").expect("the connection holds"));
    }
    text
}

#[tokio::test]
async fn the_page_of_one_node_and_of_eight_is_complete_without_a_script() {
    for nodes in [1, 8] {
        let (server, _, _) = start(ScriptedRing::new(nodes)).await;
        let response = server.get("/?node=10.0.0.1%3A5057&sort=share&dir=desc").await;
        assert_eq!(response.status(), 200);
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let html = response.text().await.unwrap();
        assert_eq!(html.matches("<figure id=\"chart-").count(), 14);
        assert!(html.contains("requests 7/min"), "the values of the chosen node");
        assert_eq!(html.matches("<tr data-state=\"up\"").count(), nodes);
        assert!(html.contains("<section id=\"more\"") && html.contains("href=\"#more\""), "further sections plug in");
        for asset in ["/console.css", "/console.js"] {
            assert!(html.contains(asset));
            assert_eq!(server.get(asset).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_in_the_page_and_in_the_next_event() {
    let (server, ring, _) = start(ScriptedRing::new(3)).await;
    let viewer = server.get("/console/events").await;
    assert_eq!(viewer.headers()["content-type"], "text/event-stream");
    let first = read_until(viewer, "event: beat").await;
    for part in ["health", "ring", "nodes", "charts", "sessions"] {
        assert!(first.contains(&format!("event: {part}\n")), "{part}");
    }
    let viewer = server.get("/console/events").await;
    ring.last_is_silent.store(true, SeqCst);
    let seen = read_until(viewer, "the node 10.0.0.3:5057 does not answer").await;
    assert_eq!(seen.matches("event: sessions\n").count(), 1, "what has not changed is not sent again");
    assert!(server.get("/").await.text().await.unwrap().contains("data-level=\"WARN\""));
}

#[tokio::test]
async fn the_ring_is_asked_once_for_all_who_look_at_the_same_time() {
    let ring = ScriptedRing { look_time: Duration::from_millis(20), ..ScriptedRing::new(3) };
    let (server, ring, _) = start_with(ring, PATIENCE).await;
    let pages = join_all((0..20).map(|_| server.get("/"))).await;
    assert!(pages.iter().all(|page| page.status() == 200));
    assert_eq!(ring.looks.load(SeqCst), 1);
}

#[tokio::test]
async fn viewers_are_limited_and_their_events_end_with_the_node() {
    let (server, _, stop) = start(ScriptedRing::new(1)).await;
    let viewers = join_all((0..MAX_VIEWERS).map(|_| server.get("/console/events"))).await;
    let refused = server.get("/console/events").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(server.get("/").await.status(), 200, "the page itself is open to all");
    stop.cancel();
    for viewer in viewers {
        timeout(PATIENCE, viewer.text()).await.expect("the events end").unwrap();
    }
}
