//! The batch calls on 5058, as [`chordfs_types::chunk_api`] describes them, and `GET /chunks/digest` between nodes.
//!
//! This file only translates: `replica::write` carries out a put at the owner, the store everything else.
//!
//! Its errors are a type of their own, [`ChunkApiError`], beside [`super::error::HttpError`]: programs read them, so
//! the body is the bare text or, for 421, the JSON of this node's neighbours, and an expected refusal is not logged.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use chordfs_net::transport::RemoteCaller;
use chordfs_store::{Secured, Store, StoreError};
use chordfs_types::{
    chunk::{ChunkRef, ChunkRun, VerifiedBatch, Version},
    chunk_api::{
        ABSENT, ArcDigest, DELETED, DigestQuery, Durability, HasQuery, ListQuery, MAX_BATCH_BYTES, MAX_BATCH_CHUNKS,
        NEIGHBOURS_HEADER, ON_DISK, OfferQuery, PutQuery, STORED_HEADER, Synced, calls, decode_batch,
    },
    disk_space::Space,
    fs_error::FsError,
};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{Duration, timeout};

use super::{
    answer_room::AnswerRoom,
    compare::{self, remaining},
    confinement::{ChunkUse, Confinement, Reach},
};
use crate::{
    blocking::{ShortCalls, with_store},
    replica::{
        copy_traffic::CopyTraffic,
        write::{PutError, Writer},
    },
};

/// A body that makes no progress for this long is given up.
const BODY_STALL: Duration = Duration::from_secs(30);
/// Chunks read from the store at a time. An answer may exceed its limit by at most this many.
const READ_CHUNKS: usize = 256;
/// As many chunks are looked up in the cache by the thread that serves the connection: some microseconds of work.
const CHUNKS_AT_ONCE: usize = 32;
/// Records with as many bytes are read by that thread, too, while the page cache has what is asked for.
const SMALL_READ_BYTES: u64 = 64 << 10;
/// A full chunk with its header and name. Most chunks have this size, and only old scripts store larger ones.
const LIKELY_RECORD_BYTES: usize = 4096 + 256;
/// Allocated at once for a body of known length. The buffer of a longer body grows as bytes arrive.
const FIRST_BODY_BYTES: usize = 8 << 20;
/// Chunks in one page of a list.
const LIST_PAGE: usize = MAX_BATCH_CHUNKS;

type RequestCaller = Option<Extension<RemoteCaller>>;

#[derive(Clone)]
pub struct ChunkPlane {
    pub store: Arc<Store>,
    pub writer: Arc<Writer>,
    pub traffic: Arc<CopyTraffic>,
    /// `None`: no caller is bound to a folder.
    confinement: Option<Arc<Confinement>>,
    /// How long reads of a few chunks take, which the page cache answers or the disk.
    small_reads: Arc<ShortCalls>,
}

impl ChunkPlane {
    pub fn new(store: Arc<Store>, writer: Arc<Writer>, traffic: Arc<CopyTraffic>) -> Self {
        Self { store, writer, traffic, confinement: None, small_reads: Arc::default() }
    }

    /// For a ring that has identities, some of which may be bound to a folder.
    pub(crate) fn confining(self, confinement: Arc<Confinement>) -> Self {
        Self { confinement: Some(confinement), ..self }
    }

    async fn reach_to_store(
        &self,
        caller: RequestCaller,
        versions: impl Iterator<Item = Version>,
    ) -> Result<Reach, ChunkApiError> {
        let Some(confinement) = &self.confinement else { return Ok(Reach::Everything) };
        let caller = caller.as_ref().map(|Extension(caller)| caller);
        let reach = confinement.reach(caller, versions, ChunkUse::Store).await;
        reach.map_err(|error| ChunkApiError::unknown_reach(&error))
    }

    async fn reach_chunks(&self, caller: RequestCaller, chunks: &[ChunkRef]) -> Result<Reach, ChunkApiError> {
        let Some(confinement) = &self.confinement else { return Ok(Reach::Everything) };
        let caller = caller.as_ref().map(|Extension(caller)| caller);
        let reach = confinement.reach_chunks(caller, chunks.iter().map(|chunk| chunk.id)).await;
        reach.map_err(|error| ChunkApiError::unknown_reach(&error))
    }
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

async fn put(
    State(plane): State<ChunkPlane>,
    Query(query): Query<PutQuery>,
    caller: RequestCaller,
    body: Body,
) -> Result<Response, ChunkApiError> {
    let batch = VerifiedBatch::verify(read_body(body).await?).map_err(|error| ChunkApiError::bad(error.to_string()))?;
    let versions = || batch.records.iter().map(|(record, _)| record.id.version);
    let reach = plane.reach_to_store(caller, versions()).await?;
    if let Some(version) = versions().find(|version| !reach.contains(*version)) {
        return Err(ChunkApiError::out_of_reach(version));
    }
    match query.copies {
        PutQuery::LOCAL => match query.offer() {
            Some(offer) => put_offered(&plane, offer, query.durability, batch).await?,
            None => plane.writer.put_local(batch, query.durability).await?,
        },
        PutQuery::AS_OWNER => {
            let stored = plane.writer.put(batch, query.durability).await?;
            return Ok((StatusCode::NO_CONTENT, [(STORED_HEADER, json_header(&stored))]).into_response());
        }
        copies => {
            return Err(ChunkApiError::bad(format!("copies={copies}: only 1 (store here) and 3 (as owner) are known")));
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Stores copies that another node's repair has sent.
async fn put_offered(
    plane: &ChunkPlane,
    offer: OfferQuery,
    durability: Durability,
    batch: VerifiedBatch,
) -> Result<(), PutError> {
    let stored = plane.writer.put_local(batch.clone(), durability).await;
    plane.traffic.finish_incoming(offer.from, remaining(&offer), &batch, stored.is_ok());
    stored
}

async fn get_chunks(
    State(plane): State<ChunkPlane>,
    Extension(answers): Extension<AnswerRoom>,
    caller: RequestCaller,
    body: Body,
) -> Result<Response, ChunkApiError> {
    let mut wanted: Vec<ChunkRef> = decode_batch(&read_body(body).await?).map_err(ChunkApiError::bad)?;
    let asked = wanted.len();
    let reach = plane.reach_chunks(caller, &wanted).await?;
    // Like chunks that are not here: the caller asks the namespace again where the file is.
    wanted.retain(|chunk| reach.contains_chunk(chunk.id));
    let likely = asked.saturating_mul(LIKELY_RECORD_BYTES).min(MAX_BATCH_BYTES);
    let mut room = answers.reserve(likely).await.ok_or_else(ChunkApiError::overloaded)?;
    let (pieces, found) = read_chunks(&plane, wanted).await?;
    let bytes = pieces.iter().map(Bytes::len).sum::<usize>();
    if !answers.extend(&mut room, bytes) {
        return Err(ChunkApiError::overloaded());
    }
    let mut answer = Response::builder().header(header::CONTENT_LENGTH, bytes);
    if found < asked {
        answer = answer.header(NEIGHBOURS_HEADER, json_header(&plane.writer.neighbours()));
    }
    let stream = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    answer.body(room.around(Body::from_stream(stream))).map_err(|error| ChunkApiError::internal(error.to_string()))
}

async fn has(
    State(plane): State<ChunkPlane>,
    Query(query): Query<HasQuery>,
    caller: RequestCaller,
    body: Body,
) -> Result<Bytes, ChunkApiError> {
    let asked: Vec<ChunkRef> = decode_batch(&read_body(body).await?).map_err(ChunkApiError::bad)?;
    let reached = reached(&plane, caller, &asked).await?;
    let here: Vec<u8> = if query.verify {
        let read = with_store(&plane.store, move |store| store.verify(&asked)).await?;
        read.into_iter().map(|copy| copy as u8).collect()
    } else {
        with_store(&plane.store, move |store| Ok(store.has(&asked))).await?.into_iter().map(u8::from).collect()
    };
    Ok(here.into_iter().zip(reached).map(|(here, reached)| if reached { here } else { 0 }).collect())
}

/// For each chunk whether the caller reaches it.
async fn reached(plane: &ChunkPlane, caller: RequestCaller, asked: &[ChunkRef]) -> Result<Vec<bool>, ChunkApiError> {
    let reach = plane.reach_chunks(caller, asked).await?;
    Ok(asked.iter().map(|chunk| reach.contains_chunk(chunk.id)).collect())
}

async fn delete(State(plane): State<ChunkPlane>, body: Body) -> Result<StatusCode, ChunkApiError> {
    let runs: Vec<ChunkRun> = decode_batch(&read_body(body).await?).map_err(ChunkApiError::bad)?;
    with_store(&plane.store, move |store| store.delete(&runs)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sync(State(plane): State<ChunkPlane>) -> Result<Bytes, ChunkApiError> {
    with_store(&plane.store, Store::sync).await?;
    encode(&Synced { running_for: plane.store.open_for() })
}

async fn secure(State(plane): State<ChunkPlane>, caller: RequestCaller, body: Body) -> Result<Bytes, ChunkApiError> {
    let asked: Vec<ChunkRef> = decode_batch(&read_body(body).await?).map_err(ChunkApiError::bad)?;
    let reached = reached(&plane, caller, &asked).await?;
    let secured = with_store(&plane.store, move |store| store.secure(&asked)).await?;
    let byte = |secured| match secured {
        Secured::Absent => ABSENT,
        Secured::OnDisk => ON_DISK,
        Secured::Deleted => DELETED,
    };
    let bytes = secured.into_iter().map(byte).zip(reached);
    Ok(bytes.map(|(byte, reached)| if reached { byte } else { ABSENT }).collect())
}

async fn list(State(plane): State<ChunkPlane>, Query(query): Query<ListQuery>) -> Result<Bytes, ChunkApiError> {
    let page = with_store(&plane.store, move |store| store.list(query.arc(), query.from, LIST_PAGE)).await?;
    encode(&page)
}

async fn digest(State(plane): State<ChunkPlane>, Query(query): Query<DigestQuery>) -> Result<Bytes, ChunkApiError> {
    let (count, digest) = with_store(&plane.store, move |store| Ok(store.digest(query.arc()))).await?;
    encode(&ArcDigest { count, digest })
}

async fn space(State(plane): State<ChunkPlane>) -> Result<Bytes, ChunkApiError> {
    let stats = with_store(&plane.store, move |store| Ok(store.stats())).await?;
    encode(&Space {
        capacity_bytes: stats.live_bytes + stats.dead_bytes + stats.free_bytes,
        free_bytes: stats.free_bytes,
        disk: stats.disk,
    })
}

/// An error of the chunk API with its status. The body is the text, or for 421 the JSON of this node's neighbours.
pub struct ChunkApiError {
    status: StatusCode,
    body: String,
}

impl ChunkApiError {
    pub(super) fn bad(text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: text }
    }

    fn out_of_reach(version: Version) -> Self {
        let body = format!("version {} is of no file that the caller may write", version.0);
        Self { status: StatusCode::FORBIDDEN, body }
    }

    fn unknown_reach(error: &FsError) -> Self {
        let body = format!("the namespace does not say which chunks this caller may reach: {error}");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body }
    }

    pub(super) fn overloaded() -> Self {
        let body = "too many bytes of answers are waiting for their readers; ask another node, or again in a second";
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: body.into() }
    }

    fn internal(text: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body: text }
    }
}

impl IntoResponse for ChunkApiError {
    fn into_response(self) -> Response {
        (self.status, self.body).into_response()
    }
}

impl From<StoreError> for ChunkApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { .. } => Self { status: StatusCode::INSUFFICIENT_STORAGE, body: error.to_string() },
            StoreError::Conflict { .. } => Self { status: StatusCode::CONFLICT, body: error.to_string() },
            other => Self::internal(other.to_string()),
        }
    }
}

impl From<PutError> for ChunkApiError {
    fn from(error: PutError) -> Self {
        let status = match error {
            PutError::Misdirected { neighbours } => {
                let body = serde_json::to_string(&neighbours).expect("neighbours are plain data");
                return Self { status: StatusCode::MISDIRECTED_REQUEST, body };
            }
            PutError::Store(error) => return error.into(),
            PutError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            PutError::Conflict { .. } => StatusCode::CONFLICT,
            PutError::NoQuorum { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, body: error.to_string() }
    }
}

/// Reads the whole body into one buffer, which is stored and passed on unchanged.
async fn read_body(body: Body) -> Result<Bytes, ChunkApiError> {
    read_body_up_to(body, MAX_BATCH_BYTES).await
}

pub(super) async fn read_body_up_to(body: Body, limit_bytes: usize) -> Result<Bytes, ChunkApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::with_capacity(stream_hint(&stream).min(limit_bytes));
    loop {
        let next = timeout(BODY_STALL, stream.next()).await;
        let next =
            next.map_err(|_| ChunkApiError { status: StatusCode::REQUEST_TIMEOUT, body: "the body stalled".into() })?;
        let Some(piece) = next else { return Ok(bytes.freeze()) };
        let piece = piece.map_err(|error| ChunkApiError::bad(format!("the body broke off: {error}")))?;
        if bytes.len() + piece.len() > limit_bytes {
            let body = format!("this body may have {limit_bytes} bytes at most");
            return Err(ChunkApiError { status: StatusCode::PAYLOAD_TOO_LARGE, body });
        }
        bytes.extend_from_slice(&piece);
    }
}

fn stream_hint(stream: &axum::body::BodyDataStream) -> usize {
    let hint = hyper::body::Body::size_hint(stream);
    (hint.exact().unwrap_or(0) as usize).min(FIRST_BODY_BYTES)
}

/// Returns the pieces and the number of records in them. A few chunks that are all in the cache are answered at once:
/// a hop to another thread costs more than they do.
async fn read_chunks(plane: &ChunkPlane, mut wanted: Vec<ChunkRef>) -> Result<(Vec<Bytes>, usize), StoreError> {
    let store = &plane.store;
    if wanted.len() > CHUNKS_AT_ONCE {
        return with_store(store, move |store| {
            let pieces = read_up_to_limit(store, &wanted)?;
            let found = count_records(&pieces);
            Ok((pieces, found))
        })
        .await;
    }
    let mut pieces = store.take_cached(&mut wanted);
    if !wanted.is_empty() {
        let is_small = store.record_bytes(&wanted) <= SMALL_READ_BYTES;
        let read = move |store: &Store| store.read(&wanted);
        pieces.extend(if is_small {
            plane.small_reads.run(store, read).await?
        } else {
            with_store(store, read).await?
        });
    }
    let found = count_records(&pieces);
    Ok((pieces, found))
}

/// Chunks that do not fit into one answer are left out like missing ones; the client asks for them again.
fn read_up_to_limit(store: &Store, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    for group in wanted.chunks(READ_CHUNKS) {
        let mut missing = group.to_vec();
        let mut read = store.take_cached(&mut missing);
        read.extend(store.read(&missing)?);
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

fn encode<T: Serialize>(value: &T) -> Result<Bytes, ChunkApiError> {
    postcard::to_allocvec(value).map(Bytes::from).map_err(|error| ChunkApiError::internal(error.to_string()))
}
