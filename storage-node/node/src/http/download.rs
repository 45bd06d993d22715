//! A file or a chunk as an HTTP answer: validators, ranges, and the body as a stream.

use axum::{
    body::Body,
    http::{HeaderMap, Response as HttpResponse, StatusCode, header, response::Builder},
    response::Response,
};
use chordfs_log::warn_limited;
use chordfs_types::namespace::{EntryName, Time};
use futures_util::StreamExt;

use super::{
    conditions::{RangeSelection, select_range},
    error::HttpError,
    stored_content, uri,
};
use crate::files::ReadableFile;

/// Answers a GET, or with `head_only` a HEAD, of `file`, which was requested as `path`.
pub(super) async fn download(
    file: ReadableFile,
    path: &[EntryName],
    head_only: bool,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let (size, etag, last_modified) = (file.size(), file.tag(), http_date(file.attr.mtime));
    let answer = HttpResponse::builder()
        .header(header::ETAG, &etag)
        .header(header::LAST_MODIFIED, &last_modified)
        .header(header::ACCEPT_RANGES, "bytes");
    let (answer, range) = match select_range(headers, size, &etag, &last_modified) {
        RangeSelection::NotModified => return finish(answer.status(StatusCode::NOT_MODIFIED), Body::empty()),
        RangeSelection::Unsatisfiable => {
            let answer = answer.status(StatusCode::RANGE_NOT_SATISFIABLE);
            let text = format!("the range lies outside of the file's {size} bytes\n");
            let answer = answer
                .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
                .header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return finish(answer, Body::from(text));
        }
        RangeSelection::Whole => (answer, 0..size),
        RangeSelection::Part(range) => {
            let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            (answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range), range)
        }
    };
    let answer = answer.header(header::CONTENT_LENGTH, range.end - range.start);
    let answer =
        stored_content::headers(path).into_iter().fold(answer, |answer, (name, value)| answer.header(name, value));
    if head_only {
        return finish(answer, Body::empty());
    }
    let shown = uri::encode_path(path);
    let bytes = file.stream(range).await?.inspect(move |batch| {
        if let Err(error) = batch {
            warn_limited!(path = shown, %error, "a download was cut off");
        }
    });
    finish(answer, Body::from_stream(bytes))
}

fn finish(answer: Builder, body: Body) -> Result<Response, HttpError> {
    answer.body(body).map_err(|error| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// HTTP dates have no fractions and no years after 9999; times before 1970 are shown as 1970.
fn http_date(time: Time) -> String {
    const YEAR_9999: u64 = 253_402_300_799;
    let secs = u64::try_from(time.secs).unwrap_or(0).min(YEAR_9999);
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs))
}
