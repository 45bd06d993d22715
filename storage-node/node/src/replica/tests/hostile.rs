//! A peer that sends malformed requests gets an error, and malformed answers of a peer cause one.

use axum::routing::post;
use chordfs_net::http_pool::HttpAnswer;
use chordfs_types::compare_api::{ArcSum, IdsPage, MAX_QUESTION_BYTES, encode};

use super::*;

async fn ask(node: &TestNode, path: &str, body: Vec<u8>) -> HttpAnswer {
    HttpPool::new().post(node.node.files_address(), path, vec![body.into()], DEADLINE).await.unwrap()
}

#[tokio::test]
async fn malformed_requests_are_refused_and_change_nothing() {
    let node = TestNode::start(9).await;
    node.put(&chunks(1..=5));
    let overlapping = encode(&vec![RingArc::new(RingId(1), RingId(9)), RingArc::new(RingId(5), RingId(12))]);
    for path in ["/chunks/digests", "/chunks/ids", "/chunks/offer?from=1", "/chunks/fetch", "/chunks/confirm"] {
        for body in [vec![], vec![0xff; 64], b"{}".to_vec(), vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![3, 1, 2]] {
            let answer = ask(&node, path, body.clone()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body:?}: {}", answer.text());
            assert_eq!(answer.text().lines().count(), 1);
        }
        let large = ask(&node, path, vec![0; MAX_QUESTION_BYTES + 1]).await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    assert_eq!(ask(&node, "/chunks/digests", overlapping).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        ask(&node, "/chunks/offer", vec![0]).await.status,
        StatusCode::BAD_REQUEST,
        "an offer without its sender"
    );
    assert_eq!(node.all().len(), 5);
}

/// Starts a peer that gives these answers, whatever it is asked.
async fn lying_peer(sums: Vec<u8>, ids: Vec<u8>, fetched: Vec<u8>) -> (NodeRef, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new()
        .route("/chunks/digests", post(move || std::future::ready(sums.clone())))
        .route("/chunks/ids", post(move || std::future::ready(ids.clone())))
        .route("/chunks/fetch", post(move || std::future::ready(fetched.clone())));
    let stop = CancellationToken::new().cancelled_owned();
    let server = tokio::spawn(async move { serve(listener, router, ServerOptions::default(), stop).await });
    (NodeRef { ip: address.ip(), port: address.port() - 1, id: RingId(20) }, AbortOnDropHandle::new(server))
}

#[tokio::test]
async fn false_answers_of_a_peer_are_an_error() {
    let at = |key| ChunkAt { key: RingId(key), id: ChunkId { version: Version(1), index: 1 }, bytes: 140 };
    let sum = |count| encode(&vec![ArcSum { count, bytes: 140, digest: 5 }]);
    let page = |chunks: &[ChunkAt], more| encode(&IdsPage { chunks: chunks.to_vec(), more });
    let other = batch(&chunks([1])).bytes;
    let lies = [
        (vec![], vec![], vec![]),
        (vec![0xff; 20], vec![], vec![]),
        (encode(&vec![ArcSum::default(); 2]), vec![], vec![]),
        // A count that no pieces can sum to; moreover one sum is too few for all the pieces.
        (sum(u64::MAX), vec![], vec![]),
        (sum(1), vec![0xff; 30], vec![]),
        (sum(1), page(&[], true), vec![]),
        (sum(1), page(&[at(5)], true), vec![]),
        (sum(2), page(&[at(9), at(5)], false), vec![]),
        (sum(1), page(&[at(5)], false), b"no record".to_vec()),
        (sum(1), page(&[at(5)], false), other[..other.len() - 1].to_vec()),
    ];
    for (number, (sums, ids, fetched)) in lies.into_iter().enumerate() {
        let node = TestNode::start(9).await;
        let (liar, _server) = lying_peer(sums, ids, fetched).await;
        let made = node.repair().reconcile(&node.view(RingId(9)), &liar).await;
        assert!(made.is_err(), "lie {number}: {made:?}");
        assert_eq!(node.all(), [], "lie {number}");
    }
}
