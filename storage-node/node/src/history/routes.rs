//! The calls on 5059 about histories.
//!
//! | request | answer |
//! |---|---|
//! | `GET /history` | JSON of [`NodeHistory`]: this node's own points; with `?after=SECONDS` only those of later minutes |
//! | `GET /ring/history` | JSON of [`RingHistory`]: the points of all nodes, gathered by this one |

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::get,
};
use chordfs_types::admin::{NodeHistory, RingHistory};
use serde::Deserialize;

use super::{gather::RingHistories, sampler::OwnHistory};
use crate::status::RingSurvey;

#[derive(Clone)]
struct HistoryPlane {
    own: OwnHistory,
    histories: RingHistories,
    survey: RingSurvey,
}

#[derive(Deserialize)]
struct HistoryQuery {
    after: Option<u64>,
}

/// The router has no fallback.
pub fn routes(own: OwnHistory, histories: RingHistories, survey: RingSurvey) -> Router {
    Router::new()
        .route("/history", get(own_history))
        .route("/ring/history", get(ring_history))
        .with_state(HistoryPlane { own, histories, survey })
}

async fn own_history(State(plane): State<HistoryPlane>, Query(query): Query<HistoryQuery>) -> Json<NodeHistory> {
    Json(plane.own.points(query.after))
}

async fn ring_history(State(plane): State<HistoryPlane>) -> Json<RingHistory> {
    let status = plane.survey.gather().await;
    Json(plane.histories.gather(&status).await)
}
