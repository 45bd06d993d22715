//! Counts the requests on 5058, and of batches of chunks their bytes and how long they took, for the node's history.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::Response,
};
use chordfs_history::latency::LatencyMeter;
use chordfs_types::chunk_api::{PutQuery, calls};

/// Counted since the node started.
#[derive(Default)]
pub struct RequestMeters {
    pub requests: AtomicU64,
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub reads: Arc<LatencyMeter>,
    pub writes: Arc<LatencyMeter>,
}

/// Middleware for all routes of 5058.
///
/// Chunks pass through several nodes. They count once: where they are read from the store, and where the owner takes
/// them from the writer.
pub async fn measure(State(meters): State<Arc<RequestMeters>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let is_write = is_put_as_owner(request.uri());
    let is_read = request.uri().path() == calls::GET;
    let body_bytes = content_length(request.headers());
    let response = next.run(request).await;
    meters.requests.fetch_add(1, Relaxed);
    if response.status().is_success() && is_write {
        meters.writes.record(began.elapsed());
        meters.written_bytes.fetch_add(body_bytes, Relaxed);
    } else if response.status().is_success() && is_read {
        meters.reads.record(began.elapsed());
        meters.read_bytes.fetch_add(content_length(response.headers()), Relaxed);
    }
    response
}

fn is_put_as_owner(uri: &Uri) -> bool {
    let as_owner = format!("copies={}", PutQuery::AS_OWNER);
    uri.path() == calls::PUT && uri.query().is_some_and(|query| query.split('&').any(|part| part == as_owner))
}

/// Nodes and mounts always send it with batches of chunks.
fn content_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware::from_fn_with_state, routing::post};

    use super::*;
    use crate::http::tests::{PATIENCE, Server};

    #[tokio::test]
    async fn reads_and_writes_of_users_are_measured_and_copies_between_nodes_only_counted() {
        let meters = Arc::<RequestMeters>::default();
        let router = Router::new()
            .route(calls::GET, post(|| async { ([(header::CONTENT_LENGTH, "5")], "12345") }))
            .route(calls::PUT, post(|| async {}))
            .layer(from_fn_with_state(meters.clone(), measure));
        let server = Server::start(router, PATIENCE).await;
        let post = |path: String| server.http.post(server.url(&path)).body("123").send();
        post(calls::GET.to_owned()).await.unwrap();
        post(format!("{}?copies=3&durable=disk", calls::PUT)).await.unwrap();
        post(format!("{}?copies=1", calls::PUT)).await.unwrap();
        post("/nothing".to_owned()).await.unwrap();
        let counts =
            (meters.requests.load(Relaxed), meters.read_bytes.load(Relaxed), meters.written_bytes.load(Relaxed));
        assert_eq!(counts, (4, 5, 3));
        assert_eq!((meters.reads.take().count, meters.writes.take().count), (1, 1));
    }
}
