//! Drains over HTTP, on the administration port, and the receiving side of `announce`.
//!
//! | request | answer |
//! |---|---|
//! | `POST /drain?allow_fewer_copies=B&rate=R` | 202 with the [`DrainStatus`] as JSON; 409 if the node cannot be drained now |
//! | `DELETE /drain` | 200 with the [`DrainStatus`] once the node serves as before; 409 if no drain can be cancelled |
//! | `GET /drain` | the last drain's [`DrainStatus`] as JSON, or null |

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use chordfs_types::{
    admin::{DrainPhase, DrainStatus, NodeState},
    rate_limit::RateLimit,
};
use serde::Deserialize;

use super::{
    announce::{Acknowledgement, Announcement},
    control::CancelDrainError,
    handle::{Drain, DrainOptions},
};
use crate::blocking::with_store;

type DrainHttpError = (StatusCode, String);

/// The router has no fallback.
pub fn routes(drain: Drain) -> Router {
    Router::new().route("/drain", get(status).post(begin).delete(cancel)).with_state(drain)
}

/// The call by which other nodes announce their drains. The router has no fallback.
pub fn peer_routes(drain: Drain) -> Router {
    Router::new().route("/drain/peer", post(receive_announcement)).with_state(drain)
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    allow_fewer_copies: bool,
    /// Written as on the command line.
    rate: Option<String>,
}

impl Params {
    fn options(self) -> Result<DrainOptions, DrainHttpError> {
        let rate = self.rate.map(|rate| rate.parse::<RateLimit>()).transpose();
        let rate = rate.map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
        Ok(DrainOptions { allow_fewer_copies: self.allow_fewer_copies, rate, must_go: false })
    }
}

async fn begin(
    State(drain): State<Drain>,
    Query(params): Query<Params>,
) -> Result<(StatusCode, Json<Option<DrainStatus>>), DrainHttpError> {
    drain.begin(params.options()?).map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(drain.status())))
}

async fn cancel(State(drain): State<Drain>) -> Result<Json<Option<DrainStatus>>, DrainHttpError> {
    drain.cancel().await.map_err(|error| (StatusCode::CONFLICT, not_cancelled(error, drain.status())))?;
    Ok(Json(drain.status()))
}

/// Why no drain was cancelled. If the last drain was refused, its reason may be the answer to the operator's question.
fn not_cancelled(error: CancelDrainError, last: Option<DrainStatus>) -> String {
    match (error, last) {
        (CancelDrainError::NoDrain, Some(DrainStatus { phase: DrainPhase::Refused, reason: Some(reason), .. })) => {
            format!("{error}; the last one was refused and has ended: {reason}")
        }
        _ => error.to_string(),
    }
}

async fn status(State(drain): State<Drain>) -> Json<Option<DrainStatus>> {
    Json(drain.status())
}

async fn receive_announcement(
    State(drain): State<Drain>,
    body: Bytes,
) -> Result<Json<Acknowledgement>, DrainHttpError> {
    let bad = |error: serde_json::Error| {
        let expected = r#"the body must be JSON like {"ip": "10.0.0.1", "port": 5057, "draining": true}"#;
        (StatusCode::BAD_REQUEST, format!("{expected}: {error}"))
    };
    let announcement: Announcement = serde_json::from_slice(&body).map_err(bad)?;
    let context = &drain.0.context;
    context.departure.record_announcement(announcement.ring_address(), announcement.state());
    let draining = matches!(context.stage.get(), NodeState::Draining | NodeState::Gone);
    let stats = with_store(&context.store, |store| Ok(store.stats())).await;
    let stats = stats.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (free_bytes, disk) = (stats.free_bytes, stats.disk);
    Ok(Json(Acknowledgement { draining, free_bytes, disk, claim: context.departure.claim() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_drain_cannot_be_cancelled_and_the_answer_says_why() {
        let last = |phase| DrainStatus {
            phase,
            chunks_left: 0,
            bytes_left: 0,
            chunks_sent: 0,
            bytes_sent: 0,
            bytes_per_second: 0,
            seconds_left: None,
            limit: None,
            reason: Some("only 1 other node".into()),
        };
        let text = not_cancelled(CancelDrainError::NoDrain, Some(last(DrainPhase::Refused)));
        assert!(
            text.starts_with("no drain is under way") && text.ends_with("refused and has ended: only 1 other node")
        );
        for last in [None, Some(last(DrainPhase::Cancelled))] {
            assert_eq!(not_cancelled(CancelDrainError::NoDrain, last), CancelDrainError::NoDrain.to_string());
        }
    }
}
