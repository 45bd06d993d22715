//! The headers of the pages that this node makes itself.

use axum::http::{HeaderName, header};

/// The page runs and shows only what `sources` allows, no other site may show it in a frame, and the browser asks for
/// it anew each time. `sources`: directives of a `Content-Security-Policy`.
pub(crate) fn page_headers(sources: &str) -> [(HeaderName, String); 4] {
    let policy = format!("default-src 'none'; {sources}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'");
    [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_FRAME_OPTIONS, "DENY".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ]
}
