//! The calls of [`chordfs_types::compare_api`] on 5058: by them two nodes find out in what they differ, and become equal.

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
    routing::post,
};
use bytes::Bytes;
use chordfs_replication::descent::Left;
use chordfs_types::{
    chunk_api::{MAX_BATCH_BYTES, MAX_BATCH_CHUNKS},
    compare_api::{MAX_QUESTION_BYTES, decode_arcs, decode_chunks, decode_ids_request, encode},
    ring_id::RingId,
};
use serde::Deserialize;

use super::chunks::{ChunkPlane, Refusal, blocking, gather_up_to};

pub fn routes() -> Router<ChunkPlane> {
    Router::new()
        .route("/chunks/digests", post(digests))
        .route("/chunks/ids", post(ids))
        .route("/chunks/offer", post(offer))
        .route("/chunks/fetch", post(fetch))
        .route("/chunks/confirm", post(confirm))
        .route("/chunks/gone", post(gone))
}

/// Who brings chunks, and how much it still means to bring.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Bringing {
    from: u32,
    #[serde(default)]
    left: u64,
    #[serde(default)]
    left_bytes: u64,
}

impl Bringing {
    pub fn from(&self) -> RingId {
        RingId(self.from)
    }

    pub fn left(&self) -> Left {
        Left { chunks: self.left, bytes: self.left_bytes }
    }
}

async fn digests(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, Refusal> {
    let arcs = decode_arcs(&question(body).await?).map_err(Refusal::bad)?;
    let sums = blocking(move || Ok(plane.store.sums(&arcs))).await?;
    Ok(encode(&sums).into())
}

async fn ids(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, Refusal> {
    let request = decode_ids_request(&question(body).await?).map_err(Refusal::bad)?;
    let page = blocking(move || Ok(plane.store.ids(&request, MAX_BATCH_CHUNKS))).await?;
    Ok(encode(&page).into())
}

async fn offer(
    State(plane): State<ChunkPlane>,
    Query(bringing): Query<Bringing>,
    body: Body,
) -> Result<Bytes, Refusal> {
    let chunks = decode_chunks(&question(body).await?).map_err(Refusal::bad)?;
    Ok(plane.traffic.answer_offer(&plane.store, bringing.from(), bringing.left(), &chunks).into())
}

async fn fetch(State(plane): State<ChunkPlane>, body: Body) -> Result<Response, Refusal> {
    let chunks = decode_chunks(&question(body).await?).map_err(Refusal::bad)?;
    let records = blocking(move || plane.store.records_at(&chunks, MAX_BATCH_BYTES as u64)).await?;
    let stream = futures_util::stream::iter(records.into_iter().map(Ok::<_, std::convert::Infallible>));
    Ok(Response::new(Body::from_stream(stream)))
}

async fn confirm(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, Refusal> {
    let chunks = decode_chunks(&question(body).await?).map_err(Refusal::bad)?;
    let confirmed = blocking(move || plane.store.confirm(&chunks)).await?;
    Ok(confirmed.into_iter().map(u8::from).collect())
}

async fn gone(State(plane): State<ChunkPlane>, body: Body) -> Result<StatusCode, Refusal> {
    let chunks = decode_chunks(&question(body).await?).map_err(Refusal::bad)?;
    blocking(move || Ok(plane.store.delete_at(&chunks))).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn question(body: Body) -> Result<Bytes, Refusal> {
    gather_up_to(body, MAX_QUESTION_BYTES).await
}
