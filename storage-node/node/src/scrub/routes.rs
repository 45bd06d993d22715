//! The scrub's calls on the administration plane.
//!
//! | request | answer |
//! |---|---|
//! | `GET /scrub` | JSON of [`super::ScrubStatus`] |
//! | `POST /scrub` | a pass begins now: 202 and `{"pass": N}`; it is done when `asked_done` of the status is N or more |
//! | `GET /scrub/namespace` | the namespace of the chunks here: 16 hexadecimal digits; 503 while it is unknown |

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use chordfs_types::admin::ScrubStatus;

use super::Scrub;

pub(crate) const NAMESPACE_PATH: &str = "/scrub/namespace";

pub(super) fn routes(scrub: Scrub) -> Router {
    Router::new().route("/scrub", get(status).post(begin)).route(NAMESPACE_PATH, get(namespace)).with_state(scrub)
}

async fn status(State(scrub): State<Scrub>) -> Json<ScrubStatus> {
    Json(scrub.status())
}

async fn begin(State(scrub): State<Scrub>) -> (StatusCode, Json<serde_json::Value>) {
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "pass": scrub.begin_pass() })))
}

/// Records the namespace that the node follows if none is recorded yet: the node may be asked before its own first
/// look.
async fn namespace(State(scrub): State<Scrub>) -> Result<String, (StatusCode, String)> {
    let unknown = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, reason);
    let shared = &scrub.shared;
    if let Some(current) = shared.parts.namespace.id() {
        // A failure is ignored: only the recorded namespace counts.
        let _ = shared.marker.follow(current);
    }
    let marked = shared.marker.get().map_err(|error| unknown(error.to_string()))?;
    marked.map(|id| format!("{id:016x}")).ok_or_else(|| unknown("this node follows no namespace yet".into()))
}
