//! The calls of [`chordfs_types::compare_api`] on 5058, by which two nodes find their differences and become equal.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
    routing::post,
};
use bytes::Bytes;
use chordfs_replication::arc_comparison::CopyAmount;
use chordfs_types::{
    chunk_api::{MAX_BATCH_BYTES, MAX_BATCH_CHUNKS, OfferQuery},
    compare_api::{MAX_QUESTION_BYTES, calls, decode_arcs, decode_chunks, decode_ids_request, encode},
};

use super::{
    answer_room::AnswerRoom,
    chunks::{ChunkApiError, ChunkPlane, read_body_up_to},
};
use crate::blocking::with_store;

pub(super) fn routes() -> Router<ChunkPlane> {
    Router::new()
        .route(calls::DIGESTS, post(digests))
        .route(calls::IDS, post(ids))
        .route(calls::OFFER, post(offer))
        .route(calls::FETCH, post(fetch))
        .route(calls::CONFIRM, post(confirm))
        .route(calls::GONE, post(gone))
}

/// What the offering node still has to send.
pub(super) fn remaining(offer: &OfferQuery) -> CopyAmount {
    CopyAmount { chunks: offer.left, bytes: offer.left_bytes }
}

async fn digests(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, ChunkApiError> {
    let arcs = decode_arcs(&read_question(body).await?).map_err(ChunkApiError::bad)?;
    let sums = with_store(&plane.store, move |store| Ok(store.sums(&arcs))).await?;
    Ok(encode(&sums).into())
}

async fn ids(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, ChunkApiError> {
    let request = decode_ids_request(&read_question(body).await?).map_err(ChunkApiError::bad)?;
    let page = with_store(&plane.store, move |store| Ok(store.ids(&request, MAX_BATCH_CHUNKS))).await?;
    Ok(encode(&page).into())
}

async fn offer(
    State(plane): State<ChunkPlane>,
    Query(offer): Query<OfferQuery>,
    body: Body,
) -> Result<Bytes, ChunkApiError> {
    let chunks = decode_chunks(&read_question(body).await?).map_err(ChunkApiError::bad)?;
    Ok(plane.traffic.answer_offer(&plane.store, offer.from, remaining(&offer), &chunks).into())
}

async fn fetch(
    State(plane): State<ChunkPlane>,
    Extension(answers): Extension<AnswerRoom>,
    body: Body,
) -> Result<Response, ChunkApiError> {
    let chunks = decode_chunks(&read_question(body).await?).map_err(ChunkApiError::bad)?;
    let bytes = chunks.iter().map(|chunk| chunk.bytes as usize).sum::<usize>().min(MAX_BATCH_BYTES);
    let room = answers.reserve(bytes).await.ok_or_else(ChunkApiError::overloaded)?;
    let records = with_store(&plane.store, move |store| store.records_at(&chunks, MAX_BATCH_BYTES as u64)).await?;
    let stream = futures_util::stream::iter(records.into_iter().map(Ok::<_, std::convert::Infallible>));
    Ok(Response::new(room.around(Body::from_stream(stream))))
}

async fn confirm(State(plane): State<ChunkPlane>, body: Body) -> Result<Bytes, ChunkApiError> {
    let chunks = decode_chunks(&read_question(body).await?).map_err(ChunkApiError::bad)?;
    let confirmed = with_store(&plane.store, move |store| store.confirm(&chunks)).await?;
    Ok(confirmed.into_iter().map(u8::from).collect())
}

async fn gone(State(plane): State<ChunkPlane>, body: Body) -> Result<StatusCode, ChunkApiError> {
    let chunks = decode_chunks(&read_question(body).await?).map_err(ChunkApiError::bad)?;
    with_store(&plane.store, move |store| Ok(store.delete_at(&chunks))).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read_question(body: Body) -> Result<Bytes, ChunkApiError> {
    read_body_up_to(body, MAX_QUESTION_BYTES).await
}
