//! The API for programs on 5058, under `/api/`: exact calls with JSON answers, which `openapi.json` describes.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/upload`, multipart, fields `key` and `file` | `{"success":"true"}` |
//! | `POST /api/list_keys` | `{"success":"true","keys":[...]}` |
//! | `POST /api/key/KEY` | `{"success":"true","encoding":...,"content":...}` |
//! | `GET /api/openapi.json` | the description |
//! | `GET /api/events` | server-sent events with the members of the ring |
//!
//! Every failure, also of the checks that all requests pass, is `{"success":"false","error":{"code":N,"message":...}}`
//! with N as its status. No call takes parameters in the query. A file below a folder `/api` is reached by
//! `/%61pi/...`, as its link in a listing is written.

mod content;
pub(super) mod failure;
mod key;
mod keys;
mod upload;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use serde::Serialize;

use super::{error::HttpError, files::FilesState};

/// Where all calls begin.
pub(super) const PREFIX: &str = "/api/";
const DESCRIPTION: &str = include_str!("openapi.json");

/// Every call that needs nothing but the files.
pub(super) fn calls() -> [(&'static str, MethodRouter<FilesState>); 5] {
    [
        ("/api/upload", post(upload::upload).layer(DefaultBodyLimit::disable())),
        ("/api/list_keys", post(keys::list_keys)),
        ("/api/key/{*key}", post(content::content)),
        ("/api/openapi.json", get(description)),
        ("/api/events", get(events)),
    ]
}

pub(super) fn routes() -> Router<FilesState> {
    let calls = calls().into_iter().fold(Router::new(), |router, (path, call)| router.route(path, call));
    calls.route(PREFIX, any(unknown)).route("/api/{*rest}", any(unknown)).layer(from_fn(refuse_query))
}

/// `{"success":"true"}` and what the call adds.
#[derive(Serialize)]
pub(super) struct Success {
    success: &'static str,
}

impl Success {
    pub(super) const PLAIN: Self = Self { success: "true" };
}

async fn description() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, DESCRIPTION).into_response()
}

async fn events(State(files): State<FilesState>, headers: HeaderMap) -> Result<Response, HttpError> {
    // The page could not read the events, and would take the places of those who can.
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(HttpError::new(StatusCode::FORBIDDEN, "a page of another site cannot follow the ring"));
    }
    files.events.listen()
}

async fn unknown(uri: Uri) -> HttpError {
    let text = match uri.path() {
        "/api/key" | "/api/key/" => "no key is given: send POST /api/key/KEY".to_owned(),
        path => format!("there is no call {path}; GET /api/openapi.json describes all calls"),
    };
    HttpError::new(StatusCode::NOT_FOUND, text)
}

async fn refuse_query(request: Request, next: Next) -> Response {
    if request.uri().query().is_some() {
        let text = "parameters in the URL's query are not accepted; send them as the call describes";
        return HttpError::bad_request(text).into_response();
    }
    next.run(request).await
}
