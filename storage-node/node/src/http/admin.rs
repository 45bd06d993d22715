//! The administration plane on 5059.
//!
//! | request | answer |
//! |---|---|
//! | `POST /notify_join_system`, JSON `{"ip","port","id"}` | `{"files": [...]}`: the chunks handed over to that node |
//! | `GET /healthz` | `{"state", "health"}`, and what the hosting platform adds; 503 if the disk cannot be used, else 200 |
//! | `GET /readyz` | 200 when the node is in the ring and the namespace answers, else 503; then a line for each warning |
//! | `GET /status` | JSON of [`NodeStatus`] |
//! | `GET /ring` | JSON of `status::RingStatus`: the status of every node, gathered by this one |
//! | `GET /chunks` | a line for each chunk kept here: `NAME_chunk_I BYTES VERSION` |
//! | `GET /metrics` | Prometheus text |

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{BufMut, Bytes, BytesMut};
use chordfs_log::warn_limited;
use chordfs_types::{
    admin::{Health, HealthCode, HealthFacts, NodeState, NodeStatus},
    chunk::ChunkName,
    chunk_api::{ChunkList, ListedChunk},
    fs_error::FsError,
    ring_id::{NodeRef, RingId},
};
use futures_util::{Stream, future::BoxFuture, stream};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};

use super::{body::read_small, error::HttpError, metrics::count_admin};

/// What the administration needs of the node it runs in.
pub trait NodeAdmin: Send + Sync + 'static {
    /// Answers from memory, without waiting.
    fn status(&self) -> NodeStatus;
    /// Asks the namespace. The error names what is not ready.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>>;
    /// A page of the chunks kept here, each once, in any stable order; `from` is the previous page's `next`.
    fn local_chunks(&self, from: Option<u64>) -> BoxFuture<'_, Result<ChunkList, FsError>>;
    /// Gives `to` the chunks that it owns now and returns their names.
    fn hand_over(&self, to: NodeRef) -> BoxFuture<'_, Result<Vec<ChunkName>, FsError>>;
}

/// What the hosting platform adds to `/healthz`: a name and a value.
pub type HealthSource = Arc<dyn Fn() -> (&'static str, serde_json::Value) + Send + Sync>;

#[derive(Clone)]
pub struct AdminOptions {
    /// A request whose body makes no progress for this long is answered with 408.
    pub body_silence: Duration,
    /// How long `/readyz` waits for the namespace.
    pub ready_deadline: Duration,
    pub health: Option<HealthSource>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { body_silence: Duration::from_secs(30), ready_deadline: Duration::from_secs(5), health: None }
    }
}

#[derive(Clone)]
struct AdminState {
    node: Arc<dyn NodeAdmin>,
    metrics: PrometheusHandle,
    options: AdminOptions,
}

/// Builds the router, which has no fallback. `metrics` comes from [`super::metrics::install_recorder`].
pub fn admin_router(node: Arc<dyn NodeAdmin>, metrics: PrometheusHandle, options: AdminOptions) -> Router {
    Router::new()
        .route("/notify_join_system", post(notify_join_system))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/chunks", get(chunks))
        .route("/metrics", get(render_metrics))
        .layer(axum::middleware::from_fn(count_admin))
        .with_state(AdminState { node, metrics, options })
}

/// The body of the old call: the node that has joined.
#[derive(Deserialize)]
struct JoinNotice {
    ip: std::net::IpAddr,
    port: u16,
    /// Taken modulo 2^32, as in the ring's calls.
    id: u64,
}

#[derive(Serialize)]
struct HandedOver {
    files: Vec<String>,
}

async fn notify_join_system(State(admin): State<AdminState>, body: Body) -> Result<Json<HandedOver>, HttpError> {
    const MAX_BODY_BYTES: usize = 64 << 10;
    let body = read_small(body, MAX_BODY_BYTES, admin.options.body_silence).await?;
    let node = parse_notice(&body)?;
    let files = admin.node.hand_over(node).await?;
    Ok(Json(HandedOver { files: files.iter().map(ChunkName::to_string).collect() }))
}

fn parse_notice(body: &[u8]) -> Result<NodeRef, HttpError> {
    let expected = r#"the body must be JSON like {"ip": "10.0.0.1", "port": 5057, "id": 7}"#;
    let notice: JoinNotice =
        serde_json::from_slice(body).map_err(|error| HttpError::bad_request(format!("{expected}: {error}")))?;
    if !(1..=NodeRef::MAX_PORT).contains(&notice.port) {
        let text = format!("{expected}: port must be 1 to {}, not {}", NodeRef::MAX_PORT, notice.port);
        return Err(HttpError::bad_request(text));
    }
    Ok(NodeRef { ip: notice.ip, port: notice.port, id: RingId(notice.id as u32) })
}

/// The verdict on this node, and on its namespace as far as this node knows it.
fn health(status: &NodeStatus) -> Health {
    let address = status.neighbours.as_ref().map_or_else(unknown_address, |view| view.node.ring_address());
    Health::judge(&HealthFacts::of_node(address, status))
}

/// Stands for a node that is in no ring.
fn unknown_address() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

/// Liveness: a supervisor may restart or replace a node that answers 503. That helps only against a disk that cannot be
/// used; it would do harm while a majority is missing or the ring is full.
async fn healthz(State(admin): State<AdminState>) -> (StatusCode, Json<serde_json::Value>) {
    let status = admin.node.status();
    let verdict = health(&status);
    let broken = verdict.has(HealthCode::DiskUnusable);
    let mut body = serde_json::json!({ "state": status.state, "health": verdict });
    if let Some((name, value)) = admin.options.health.as_ref().map(|source| source()) {
        body[name] = value;
    }
    (if broken { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, Json(body))
}

async fn readyz(State(admin): State<AdminState>) -> Result<String, HttpError> {
    let not_ready = |text: String| HttpError::new(StatusCode::SERVICE_UNAVAILABLE, text);
    let status = admin.node.status();
    if status.state != NodeState::Serving || status.neighbours.is_none() {
        return Err(not_ready(format!("the node is not serving in a ring (state {})", status.state)));
    }
    let deadline = admin.options.ready_deadline;
    match tokio::time::timeout(deadline, admin.node.ready()).await {
        Ok(Ok(())) => Ok(ready_text(&health(&status))),
        Ok(Err(reason)) => Err(not_ready(reason)),
        Err(_) => {
            Err(not_ready(format!("the namespace did not answer within {}", humantime::format_duration(deadline))))
        }
    }
}

/// A first line for everyone, then the verdict's reasons.
fn ready_text(health: &Health) -> String {
    let reasons = health.reasons.iter().map(|reason| format!("{reason}\n"));
    std::iter::once("ready\n".to_owned()).chain(reasons).collect()
}

async fn status(State(admin): State<AdminState>) -> Json<NodeStatus> {
    Json(admin.node.status())
}

async fn render_metrics(State(admin): State<AdminState>) -> Response {
    let status = admin.node.status();
    gauge!("chordfs_store_chunks").set(status.store.chunks as f64);
    gauge!("chordfs_store_data_bytes").set(status.store.data_bytes as f64);
    gauge!("chordfs_store_free_bytes").set(status.store.free_bytes as f64);
    gauge!("chordfs_store_capacity_bytes").set(status.store.capacity_bytes as f64);
    gauge!("chordfs_node_serving").set(f64::from(u8::from(status.state == NodeState::Serving)));
    gauge!("chordfs_namespace_voter").set(f64::from(u8::from(status.namespace.voter)));
    super::metrics::record_health(&health(&status));
    super::metrics::record_repair(&status.repair);
    super::metrics::record_cache(&status.cache);
    super::metrics::record_leases(&status.namespace.leases);
    super::metrics::record_logged(&status.namespace.logged);
    let successors = status.neighbours.map_or(0, |neighbours| neighbours.successors.len());
    gauge!("chordfs_ring_successors").set(successors as f64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.render()).into_response()
}

async fn chunks(State(admin): State<AdminState>) -> Result<Response, HttpError> {
    let first = admin.node.local_chunks(None).await?;
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((plain, Body::from_stream(lines_of_pages(admin.node, first))).into_response())
}

fn lines_of_pages(node: Arc<dyn NodeAdmin>, first: ChunkList) -> impl Stream<Item = Result<Bytes, FsError>> {
    stream::try_unfold((node, Some(first)), |(node, page)| async move {
        let Some(page) = page else { return Ok(None) };
        let next = match page.next {
            Some(token) => {
                Some(node.local_chunks(Some(token)).await.inspect_err(|error| warn_limited!(%error, "list chunks"))?)
            }
            None => None,
        };
        Ok(Some((lines(&page.chunks), (node, next))))
    })
}

fn lines(chunks: &[ListedChunk]) -> Bytes {
    let mut out = BytesMut::new();
    for listed in chunks {
        put_escaped(&mut out, listed.chunk.file.as_bytes());
        let id = listed.chunk.id;
        out.put_slice(format!("_chunk_{} {} {}\n", id.index, listed.data_bytes, id.version.0).as_bytes());
    }
    out.freeze()
}

/// A name may contain line breaks, but a line must not. Backslashes are doubled, so that the escaping can be reversed.
fn put_escaped(out: &mut BytesMut, name: &[u8]) {
    for &byte in name {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            0..0x20 | 0x7f => out.put_slice(format!("\\x{byte:02x}").as_bytes()),
            _ => out.put_u8(byte),
        }
    }
}
