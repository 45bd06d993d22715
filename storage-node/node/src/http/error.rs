//! The errors of the planes for people, browsers and scripts: the one table from failure to HTTP status, and the form
//! of every error: one logged line of text. The chunk API between nodes has its own, `chunks::ChunkApiError`.

use axum::{
    Extension,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chordfs_log::warn_limited;
use chordfs_types::{chunk::NameError, fs_error::FsError};
use tracing::debug;

/// When a request that found no room or no quorum may be sent again.
const RETRY_AFTER_SECS: &str = "1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    pub status: StatusCode,
    pub text: String,
}

/// The text of a failed request, which its answer carries along for those who put it into another form.
#[derive(Clone)]
pub(super) struct FailureText(pub String);

impl HttpError {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Adds the subject of the failure.
    pub fn about(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

/// The status for an error. There is no `_` arm, so that a new variant has to choose one.
pub fn status_of(error: &FsError) -> StatusCode {
    match error {
        FsError::NoEntry | FsError::NotDirectory | FsError::NoXattr => StatusCode::NOT_FOUND,
        FsError::Stale { .. }
        | FsError::Exists
        | FsError::IsDirectory
        | FsError::NotEmpty
        | FsError::TooManyLinks
        | FsError::WouldBlock
        | FsError::Deadlock
        | FsError::NoLocks
        | FsError::Interrupted
        | FsError::Conflict { .. } => StatusCode::CONFLICT,
        FsError::Name(_) | FsError::Invalid { .. } | FsError::IntoItself => StatusCode::BAD_REQUEST,
        FsError::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FsError::NotPermitted { .. } | FsError::ReadOnly => StatusCode::FORBIDDEN,
        FsError::NoSpace | FsError::XattrsTooLarge { .. } => StatusCode::INSUFFICIENT_STORAGE,
        FsError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        FsError::NoSession
        | FsError::OutOfOrder
        | FsError::NoReplica { .. }
        | FsError::NoQuorum { .. }
        | FsError::LogFull => StatusCode::SERVICE_UNAVAILABLE,
        FsError::Internal { .. } | FsError::Lost { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<FsError> for HttpError {
    fn from(error: FsError) -> Self {
        Self::new(status_of(&error), error.to_string())
    }
}

impl From<NameError> for HttpError {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let text = one_line(&self.text);
        if self.status.is_server_error() {
            warn_limited!(status = self.status.as_u16(), error = text, "a request failed");
        } else {
            debug!(status = self.status.as_u16(), error = text, "a request was refused");
        }
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let nosniff = HeaderValue::from_static("nosniff");
        let headers = [(header::CONTENT_TYPE, plain), (header::X_CONTENT_TYPE_OPTIONS, nosniff)];
        let mut response = (self.status, headers, Extension(FailureText(text.clone())), text + "\n").into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
        }
        response
    }
}

/// Replaces control characters: error texts may quote bytes from a peer.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
