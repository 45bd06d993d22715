//! The scrub's calls on the plane of administration.
//!
//! | request | answer |
//! |---|---|
//! | `GET /scrub` | JSON of [`super::ScrubStatus`] |
//! | `POST /scrub` | a pass begins now: 202 and `{"pass": N}`; it is done when `asked_done` of the status is N or more |
//! | `GET /scrub/namespace` | of which namespace the chunks here are: 16 hexadecimal digits; 503 while that is not known |

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use chordfs_types::admin::ScrubStatus;

use super::Scrub;

pub(super) const WHOSE_PATH: &str = "/scrub/namespace";

pub(super) fn routes(scrub: Scrub) -> Router {
    Router::new().route("/scrub", get(status).post(begin)).route(WHOSE_PATH, get(whose)).with_state(scrub)
}

async fn status(State(scrub): State<Scrub>) -> Json<ScrubStatus> {
    Json(scrub.status())
}

async fn begin(State(scrub): State<Scrub>) -> (StatusCode, Json<serde_json::Value>) {
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "pass": scrub.begin_pass() })))
}

/// A node that has none yet takes the one it follows: it is asked before it has looked for itself.
async fn whose(State(scrub): State<Scrub>) -> Result<String, (StatusCode, String)> {
    let unknown = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, reason);
    let shared = &scrub.shared;
    if let Some(current) = shared.parts.namespace.id() {
        // Told or not, what is written down counts.
        let _ = shared.mark.follow(current);
    }
    let marked = shared.mark.get().map_err(|error| unknown(error.to_string()))?;
    marked.map(|id| format!("{id:016x}")).ok_or_else(|| unknown("this node follows no namespace yet".into()))
}
