//! The batch calls on 5058, as [`chordfs_types::chunk_api`] describes them, and `GET /chunks/digest` between nodes.
//!
//! This file only translates: a put at the owner is `replica::write`'s business, everything else is the store's.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use chordfs_store::{Secured, Store, StoreError};
use chordfs_types::{
    chunk::{ChunkRef, ChunkRun, VerifiedBatch},
    chunk_api::{
        ABSENT, ArcDigest, DELETED, DigestQuery, Durability, HasQuery, ListQuery, MAX_BATCH_BYTES, MAX_BATCH_CHUNKS,
        NEIGHBOURS_HEADER, ON_DISK, OfferQuery, PutQuery, STORED_HEADER, Space, Synced, calls, decode_batch,
    },
};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{Duration, timeout};

use super::compare::{self, left};
use crate::{
    blocking::with_store,
    replica::{
        copy_traffic::CopyTraffic,
        write::{PutError, Writer},
    },
};

/// A body whose next piece does not come for this long is given up.
const BODY_STALL: Duration = Duration::from_secs(30);
/// Chunks read from the store at a time: what one request may take beyond its limit is bounded by this many.
const READ_CHUNKS: usize = 256;
/// Taken at once for a body that says how long it is; a longer one grows as it arrives.
const FIRST_BODY_BYTES: usize = 8 << 20;
/// Chunks a page of a list holds.
const LIST_PAGE: usize = MAX_BATCH_CHUNKS;

#[derive(Clone)]
pub struct ChunkPlane {
    pub store: Arc<Store>,
    pub writer: Arc<Writer>,
    pub traffic: Arc<CopyTraffic>,
}

pub fn routes(plane: ChunkPlane) -> Router {
    Router::new()
        .route(calls::PUT, post(put))
        .route(calls::GET, post(get_chunks))
        .route(calls::HAS, post(has))
        .route(calls::DELETE, post(delete))
        .route(calls::SYNC, post(sync))
        .route(calls::SECURE, post(secure))
        .route(calls::LIST, get(list))
        .route(calls::DIGEST, get(digest))
        .route(calls::SPACE, get(space))
        .merge(compare::routes())
        .with_state(plane)
}

async fn put(State(plane): State<ChunkPlane>, Query(query): Query<PutQuery>, body: Body) -> Result<Response, Refusal> {
    let batch = VerifiedBatch::verify(gather(body).await?).map_err(|error| Refusal::bad(error.to_string()))?;
    match query.copies {
        PutQuery::LOCAL => match query.offer() {
            Some(offer) => put_offered(&plane, offer, query.durability, batch).await?,
            None => plane.writer.put_local(batch, query.durability).await?,
        },
        PutQuery::AS_OWNER => {
            let stored = plane.writer.put(batch, query.durability).await?;
            return Ok((StatusCode::NO_CONTENT, [(STORED_HEADER, json_header(&stored))]).into_response());
        }
        copies => return Err(Refusal::bad(format!("copies={copies}: only 1 (store here) and 3 (as owner) are known"))),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A copy that repair brings.
async fn put_offered(
    plane: &ChunkPlane,
    offer: OfferQuery,
    durability: Durability,
    batch: VerifiedBatch,
) -> Result<(), PutError> {
    let stored = plane.writer.put_local(batch.clone(), durability).await;
    plane.traffic.finish_incoming(offer.from, left(&offer), &batch, stored.is_ok());
    stored
}

async fn get_chunks(State(plane): State<ChunkPlane>, body: Body) -> Result<Response, Refusal> {
    let wanted: Vec<ChunkRef> = decode_batch(&gather(body).await?).map_err(Refusal::bad)?;
    let (asked, pieces, found) = with_store(&plane.store, move |store| {
        let pieces = read_up_to_limit(store, &wanted)?;
        let found = count_records(&pieces);
        Ok((wanted.len(), pieces, found))
    })
    .await?;
    let mut answer = Response::builder().header(header::CONTENT_LENGTH, pieces.iter().map(Bytes::len).sum::<usize>());
    if found < asked {
        answer = answer.header(NEIGHBOURS_HEADER, json_header(&plane.writer.neighbours()));
    }
    let stream = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    answer.body(Body::from_stream(stream)).map_err(|error| Refusal::internal(error.to_string()))
}

async fn has(State(plane): State<ChunkPlane>, Query(query): Query<HasQuery>, body: Body) -> Result<Bytes, Refusal> {
    let asked: Vec<ChunkRef> = decode_batch(&gather(body).await?).map_err(Refusal::bad)?;
    if query.verify {
        let read = with_store(&plane.store, move |store| store.verify(&asked)).await?;
        return Ok(read.into_iter().map(|copy| copy as u8).collect());
    }
    let here = with_store(&plane.store, move |store| Ok(store.has(&asked))).await?;
    Ok(here.into_iter().map(u8::from).collect())
}

async fn delete(State(plane): State<ChunkPlane>, body: Body) -> Result<StatusCode, Refusal> {
    let runs: Vec<ChunkRun> = decode_batch(&gather(body).await?).map_err(Refusal::bad)?;
    with_store(&plane.store, move |store| store.delete(&runs)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sync(State(plane): State<ChunkPlane>) -> Result<Bytes, Refusal> {
    with_store(&plane.store, Store::sync).await?;
    encode(&Synced { running_for: plane.store.open_for() })
}

async fn secure(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, Refusal> {
    let asked: Vec<ChunkRef> = decode_batch(&gather(body).await?).map_err(Refusal::bad)?;
    let secured = with_store(&plane.store, move |store| store.secure(&asked)).await?;
    let byte = |secured| match secured {
        Secured::Absent => ABSENT,
        Secured::OnDisk => ON_DISK,
        Secured::Deleted => DELETED,
    };
    Ok(secured.into_iter().map(byte).collect())
}

async fn list(State(plane): State<ChunkPlane>, Query(query): Query<ListQuery>) -> Result<Bytes, Refusal> {
    let page = with_store(&plane.store, move |store| store.list(query.arc(), query.from, LIST_PAGE)).await?;
    encode(&page)
}

async fn digest(State(plane): State<ChunkPlane>, Query(query): Query<DigestQuery>) -> Result<Bytes, Refusal> {
    let (count, digest) = with_store(&plane.store, move |store| Ok(store.digest(query.arc()))).await?;
    encode(&ArcDigest { count, digest })
}

async fn space(State(plane): State<ChunkPlane>) -> Result<Bytes, Refusal> {
    let stats = with_store(&plane.store, move |store| Ok(store.stats())).await?;
    encode(&Space {
        capacity_bytes: stats.live_bytes + stats.dead_bytes + stats.free_bytes,
        free_bytes: stats.free_bytes,
    })
}

/// An error with its status; the body is one line of text, but for 421 which says what this node knows of the ring.
pub struct Refusal {
    status: StatusCode,
    body: String,
}

impl Refusal {
    pub(super) fn bad(text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: text }
    }

    fn internal(text: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body: text }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, self.body).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { .. } => Self { status: StatusCode::INSUFFICIENT_STORAGE, body: error.to_string() },
            other => Self::internal(other.to_string()),
        }
    }
}

impl From<PutError> for Refusal {
    fn from(error: PutError) -> Self {
        let status = match error {
            PutError::Misdirected { neighbours } => {
                let body = serde_json::to_string(&neighbours).expect("neighbours are plain data");
                return Self { status: StatusCode::MISDIRECTED_REQUEST, body };
            }
            PutError::Store(error) => return error.into(),
            PutError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            PutError::NoQuorum { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, body: error.to_string() }
    }
}

/// The whole body as one piece: it is stored and passed on as it came.
async fn gather(body: Body) -> Result<Bytes, Refusal> {
    gather_up_to(body, MAX_BATCH_BYTES).await
}

pub(super) async fn gather_up_to(body: Body, limit_bytes: usize) -> Result<Bytes, Refusal> {
    let mut stream = body.into_data_stream();
    let mut gathered = BytesMut::with_capacity(stream_hint(&stream).min(limit_bytes));
    loop {
        let next = timeout(BODY_STALL, stream.next()).await;
        let next =
            next.map_err(|_| Refusal { status: StatusCode::REQUEST_TIMEOUT, body: "the body stalled".into() })?;
        let Some(piece) = next else { return Ok(gathered.freeze()) };
        let piece = piece.map_err(|error| Refusal::bad(format!("the body broke off: {error}")))?;
        if gathered.len() + piece.len() > limit_bytes {
            let body = format!("this body may have {limit_bytes} bytes at most");
            return Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, body });
        }
        gathered.extend_from_slice(&piece);
    }
}

fn stream_hint(stream: &axum::body::BodyDataStream) -> usize {
    let hint = hyper::body::Body::size_hint(stream);
    (hint.exact().unwrap_or(0) as usize).min(FIRST_BODY_BYTES)
}

/// What does not fit into one answer counts as missing there; whoever wants it asks again.
fn read_up_to_limit(store: &Store, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    for group in wanted.chunks(READ_CHUNKS) {
        let read = store.get(group)?;
        bytes += read.iter().map(Bytes::len).sum::<usize>();
        pieces.extend(read);
        if bytes >= MAX_BATCH_BYTES {
            break;
        }
    }
    Ok(pieces)
}

fn count_records(pieces: &[Bytes]) -> usize {
    let mut count = 0;
    for piece in pieces {
        let mut at = 0;
        while let Ok(header) = chordfs_types::chunk::RecordHeader::parse(&piece[at..]) {
            at += header.record_bytes();
            count += 1;
        }
    }
    count
}

fn json_header<T: Serialize>(value: &T) -> HeaderValue {
    let text = serde_json::to_string(value).expect("plain data always encodes");
    HeaderValue::from_str(&text).expect("JSON of numbers and addresses is ASCII")
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, Refusal> {
    postcard::to_allocvec(value).map(Bytes::from).map_err(|error| Refusal::internal(error.to_string()))
}
