//! Peers that send much, slowly or never to the end: the node's memory stays within its budget, and others are served.

use std::time::{Duration, Instant};

use axum::{
    Extension, Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use chordfs_net::limits::ByteBudget;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{Server, ServerOptions, eventually, pattern};
use crate::http::{
    admission::{ArrivalPace, BodyLimits},
    answer_room::{AnswerLimits, AnswerRoom},
    chunks::{ChunkApiError, read_body_up_to},
};

const MIB: usize = 1 << 20;

/// Reads a body as the route of batches does, and answers with its length.
async fn read_whole(body: Body) -> Result<String, ChunkApiError> {
    Ok(read_body_up_to(body, 64 * MIB).await?.len().to_string())
}

async fn start(bodies: BodyLimits) -> Server {
    let router = Router::new().route("/chunks/put", post(read_whole));
    Server::start_with(router, ServerOptions { bodies, ..ServerOptions::default() }).await
}

fn head(content_length: usize) -> String {
    format!("POST /chunks/put?copies=3 HTTP/1.1\r\nHost: x\r\nContent-Length: {content_length}\r\n\r\n")
}

/// Sends `sent` bytes of a body of `announced`, and returns the answer once the node ends the connection.
async fn send_a_part(address: std::net::SocketAddr, announced: usize, sent: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = [head(announced).as_bytes(), &pattern(sent)].concat();
    let _ = stream.write_all(&request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Twenty bodies of 60 MB that never ended took 1.3 GiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_bodies_stay_within_the_budget_and_give_way_to_an_honest_put() {
    let budget = ByteBudget::new(8 * MIB);
    // Only because an honest put waits do they end.
    let pace = ArrivalPace { bytes: 8 << 10, period: Duration::from_secs(600) };
    let server = start(BodyLimits { budget: budget.clone(), pace, ..BodyLimits::default() }).await;
    let mut hostile = JoinSet::new();
    for _ in 0..20 {
        hostile.spawn(send_a_part(server.address, 2 * MIB, MIB));
    }
    eventually("the budget is used", || budget.used_bytes() == 6 * MIB).await;
    let honest = async {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            let put = server.http.post(server.url("/chunks/put?copies=3")).body(pattern(2 * MIB));
            if put.send().await.is_ok_and(|answer| answer.status() == 200) {
                return started.elapsed();
            }
        }
        panic!("an honest put was kept out");
    };
    let took = honest.await;
    assert!(budget.used_bytes() <= 6 * MIB);
    assert!(took < Duration::from_secs(20), "{took:?}");
    while let Some(answer) = hostile.try_join_next() {
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") || answer.is_empty(), "{answer}");
        if !answer.is_empty() {
            assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
            assert!(answer.contains("send the request again in a second, or to another node"), "{answer}");
        }
    }
    hostile.shutdown().await;
    eventually("all room is free again", || budget.used_bytes() == 0).await;
}

/// A body of one byte per eight seconds kept its connection for ever.
#[tokio::test]
async fn a_body_that_only_drips_is_ended() {
    let pace = ArrivalPace { bytes: 100, period: Duration::from_millis(500) };
    let server = start(BodyLimits { pace, ..BodyLimits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head(10_000).as_bytes()).await.unwrap();
    let drip = async {
        let (mut read, mut write) = stream.split();
        let mut answer = [0; 12];
        tokio::select! {
            result = read.read_exact(&mut answer) => { result.unwrap(); }
            () = async {
                while write.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                std::future::pending().await
            } => {}
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), drip).await.expect("the body is kept for ever");
    assert_eq!(answer, "HTTP/1.1 408");
}

#[tokio::test]
async fn a_slow_body_is_kept_while_nothing_waits_for_its_room() {
    let budget = ByteBudget::new(8 * MIB);
    let server = start(BodyLimits { budget, ..BodyLimits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head(20_000).as_bytes()).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        stream.write_all(&[0; 5000]).await.unwrap();
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// An answer of 24 MiB, more than sockets take, in pieces, as the route of batches makes it.
async fn send_much(Extension(answers): Extension<AnswerRoom>) -> Response {
    let Some(room) = answers.reserve(24 * MIB).await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let pieces = (0..24).map(|_| Ok::<_, std::convert::Infallible>(Bytes::from(vec![7; MIB])));
    Response::new(room.around(Body::from_stream(stream::iter(pieces))))
}

/// Answers were in no budget: each reader that stopped cost up to 64 MiB, for two minutes and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_stay_within_the_budget_and_give_way_to_an_honest_get() {
    let budget = ByteBudget::new(96 * MIB);
    let answers = AnswerLimits { budget: budget.clone(), room_deadline: Duration::from_secs(20) };
    let router = Router::new().route("/much", get(send_much));
    let server = Server::start_with(router, ServerOptions { answers, ..ServerOptions::default() }).await;
    let mut stopped = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stopped.push(stream);
    }
    eventually("the budget is used", || budget.used_bytes() == 96 * MIB).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(budget.used_bytes(), 96 * MIB, "slow readers are kept while nothing waits for their room");
    assert_eq!(server.get("/much").await.bytes().await.unwrap().len(), 24 * MIB);
    drop(stopped);
    eventually("all room is free again", || budget.used_bytes() == 0).await;
}
