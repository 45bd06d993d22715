//! The calls of 5059 on a node with scripted answers.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::Bytes;
use chordfs_types::{
    admin::{CacheStatus, LeaseStatus, NamespaceStatus, NodeState, NodeStatus, StoreStatus},
    chunk::{ChunkId, ChunkName, ChunkRef, FileName, Version},
    chunk_api::{ChunkList, ListedChunk},
    fs_error::FsError,
    ring_id::{Neighbours, NodeRef, RingId},
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{PATIENCE, SILENCE, Server};
use crate::http::{
    admin::{AdminOptions, NodeAdmin, admin_router},
    metrics::install_recorder,
};

struct FakeNode {
    state: Mutex<NodeState>,
    answer: Mutex<Option<Result<(), String>>>,
    asked: Mutex<Vec<NodeRef>>,
    problem: Mutex<Option<String>>,
}

fn node(id: u32) -> NodeRef {
    NodeRef { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 5057, id: RingId(id) }
}

fn listed(name: &'static [u8], index: u32) -> ListedChunk {
    let file = FileName::new(Bytes::from_static(name)).unwrap();
    ListedChunk { chunk: ChunkRef { file, id: ChunkId { version: Version(7), index } }, data_bytes: 4000 }
}

impl NodeAdmin for FakeNode {
    fn status(&self) -> NodeStatus {
        NodeStatus {
            state: *self.state.lock(),
            neighbours: Some(Neighbours { predecessor: None, node: node(1), successors: vec![node(2)] }),
            store: StoreStatus {
                chunks: 3,
                data_bytes: 12000,
                free_bytes: 5,
                capacity_bytes: 20000,
                disk: None,
                problem: self.problem.lock().clone(),
            },
            namespace: NamespaceStatus {
                voter: true,
                leader: Some(node(2).ring_address()),
                known: true,
                leader_confirmed: true,
                leases: LeaseStatus { held: 12, recalled: 2, waits: 3, ..LeaseStatus::default() },
                ..NamespaceStatus::default()
            },
            work: Default::default(),
            repair: Default::default(),
            drain: None,
            cache: CacheStatus { hits: 30, misses: 10, items: 4, capacity_bytes: 9, ..CacheStatus::default() },
            zone: None,
            requests: 0,
            insecure: false,
        }
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            let answer = self.answer.lock().clone();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }

    fn local_chunks(&self, from: Option<u64>) -> BoxFuture<'_, Result<ChunkList, FsError>> {
        Box::pin(async move {
            Ok(match from {
                None => ChunkList { chunks: vec![listed(b"a.txt", 1), listed(b"two\nlines", 2)], next: Some(9) },
                Some(9) => ChunkList { chunks: vec![listed(b"b c", 3)], next: None },
                other => panic!("{other:?} was never handed out"),
            })
        })
    }

    fn hand_over(&self, to: NodeRef) -> BoxFuture<'_, Result<Vec<ChunkName>, FsError>> {
        self.asked.lock().push(to);
        Box::pin(async { Ok(vec![ChunkName::parse(b"a.txt_chunk_1").unwrap()]) })
    }
}

async fn start() -> (Server, Arc<FakeNode>) {
    let node = Arc::new(FakeNode {
        state: Mutex::new(NodeState::Serving),
        answer: Mutex::new(Some(Ok(()))),
        asked: Mutex::default(),
        problem: Mutex::default(),
    });
    let options = AdminOptions { body_silence: SILENCE, ready_deadline: SILENCE, health: None };
    let router = admin_router(node.clone(), install_recorder().unwrap(), options);
    (Server::start(router, PATIENCE).await, node)
}

async fn notify(server: &Server, body: impl Into<reqwest::Body>) -> (u16, String) {
    let response = server.http.post(server.url("/notify_join_system")).body(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn the_old_join_notice_returns_the_chunks_handed_over() {
    let (server, node_admin) = start().await;
    let body = json!({"ip": "127.0.0.1", "port": 5057, "id": (1u64 << 32) + 5}).to_string();
    let (status, text) = notify(&server, body).await;
    assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (200, json!({"files": ["a.txt_chunk_1"]})));
    assert_eq!(*node_admin.asked.lock(), [node(5)]);
}

#[tokio::test]
async fn bad_join_notices_are_refused() {
    let (server, node) = start().await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"ip": "127.0.0.1", "port": 5057}"#,
        r#"{"ip": "nowhere", "port": 5057, "id": 1}"#,
        r#"{"ip": "127.0.0.1", "port": "5057", "id": 1}"#,
        r#"{"ip": "127.0.0.1", "port": 0, "id": 1}"#,
        r#"{"ip": "127.0.0.1", "port": 65535, "id": 1}"#,
        r#"{"ip": "127.0.0.1", "port": 5057, "id": -1}"#,
    ] {
        let (status, text) = notify(&server, body).await;
        assert!(status == 400 && text.contains("must be JSON"), "{body}: {status} {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    }
    assert_eq!(notify(&server, vec![b'['; 100_000]).await.0, 413);
    let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    assert_eq!(notify(&server, reqwest::Body::wrap_stream(silent)).await.0, 408);
    assert!(node.asked.lock().is_empty());
}

#[tokio::test]
async fn health_and_readiness_follow_the_state_of_the_node() {
    let (server, node) = start().await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    *node.answer.lock() = Some(Err("no leader".into()));
    let refused = server.get("/readyz").await;
    assert_eq!((refused.status().as_u16(), refused.text().await.unwrap()), (503, "no leader\n".into()));
    *node.answer.lock() = None;
    assert_eq!(server.get("/readyz").await.status(), 503, "the namespace does not answer");
    *node.answer.lock() = Some(Ok(()));
    *node.state.lock() = NodeState::Joining;
    assert_eq!(server.get("/readyz").await.status(), 503);
    let health = server.get("/healthz").await;
    let (status, health) = (health.status().as_u16(), health.json::<Value>().await.unwrap());
    assert_eq!((status, &health["state"]), (200, &json!("joining")));
}

#[tokio::test]
async fn the_verdict_is_in_health_readiness_and_metrics() {
    let (server, node) = start().await;
    let health: Value = server.get("/healthz").await.json().await.unwrap();
    assert_eq!(health["health"]["level"], "ERROR", "{health}");
    assert_eq!(health["health"]["reasons"][0]["code"], "NO_SPACE", "{health}");
    let ready = server.get("/readyz").await.text().await.unwrap();
    assert!(ready.starts_with("ready\nERROR: no space left on 127.0.0.1:5057"), "{ready}");
    *node.problem.lock() = Some("/data is read-only".into());
    let health = server.get("/healthz").await;
    assert_eq!(health.status(), 503, "this node itself is broken");
    assert!(health.text().await.unwrap().contains("/data is read-only"));
    let metrics = server.get("/metrics").await.text().await.unwrap();
    for line in [
        "chordfs_health 2",
        r#"chordfs_health_reason{code="disk_unusable"} 1"#,
        r#"chordfs_health_reason{code="no_majority"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn every_chunk_has_one_line() {
    let (server, _) = start().await;
    let text = server.get("/chunks").await.text().await.unwrap();
    assert_eq!(text, "a.txt_chunk_1 4000 7\ntwo\\x0alines_chunk_2 4000 7\nb c_chunk_3 4000 7\n");
}

#[tokio::test]
async fn status_and_metrics_show_the_node() {
    let (server, _) = start().await;
    let status: Value = server.get("/status").await.json().await.unwrap();
    assert_eq!((&status["state"], &status["store"]["chunks"]), (&json!("serving"), &json!(3)));
    assert_eq!(status["neighbours"]["successors"][0]["id"], 2);
    assert_eq!(status["namespace"]["leader"], "127.0.0.1:5057");
    server.get("/metrics").await;
    let metrics = server.get("/metrics").await.text().await.unwrap();
    for line in [
        "chordfs_store_chunks 3",
        "chordfs_store_free_bytes 5",
        "chordfs_cache_hits_total 30",
        "chordfs_cache_misses_total 10",
        "chordfs_cache_items 4",
        "chordfs_cache_capacity_bytes 9",
        "chordfs_leases 12",
        "chordfs_lease_notices_total{kind=\"recalled\"} 2",
        "chordfs_lease_waits_total 3",
        "chordfs_http_requests_total{plane=\"admin\",method=\"GET\",status=\"200\"}",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}
