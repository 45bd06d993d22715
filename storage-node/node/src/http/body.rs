//! Bodies of requests from people's programs, which are read as a stream or up to a few KiB. A body ends with an error
//! if no bytes arrive for a while, or if too many arrive that its reader cannot use.
//!
//! The chunk API reads its bodies by itself (`chunks::read_body`): they are large, and read whole into one buffer that
//! is stored and passed on as it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::StatusCode,
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};

use super::error::HttpError;

/// A multipart reader that finds no boundary collects what it reads. It is stopped at this many bytes.
const MAX_UNUSED_BYTES: usize = 8 << 20;

/// Knows why a watched body ended early.
#[derive(Clone)]
pub(super) struct BodyWatch {
    state: Arc<BodyState>,
    stall_timeout: Duration,
}

#[derive(Default)]
struct BodyState {
    stalled: AtomicBool,
    flooded: AtomicBool,
    unused: AtomicUsize,
}

impl BodyWatch {
    /// Wraps the body so that it ends with an error when no bytes arrive for `stall_timeout`.
    pub(super) fn over(body: Body, stall_timeout: Duration) -> (Body, Self) {
        let watch = Self { state: Arc::default(), stall_timeout };
        let state = (body.into_data_stream(), watch.clone());
        let watched = stream::unfold(state, |(mut body, watch)| async move {
            let item = watch.next(&mut body).await?;
            Some((item, (body, watch)))
        });
        (Body::from_stream(watched), watch)
    }

    /// Reports that the reader has used all bytes that arrived so far.
    pub(super) fn used(&self) {
        self.state.unused.store(0, Relaxed);
    }

    /// The error to answer with after reading has failed with `text`.
    pub(super) fn explain(&self, text: String) -> HttpError {
        if self.state.stalled.load(Relaxed) {
            let timeout = humantime::format_duration(self.stall_timeout);
            let text = format!("the request's body stopped arriving for {timeout}");
            return HttpError::new(StatusCode::REQUEST_TIMEOUT, text);
        }
        if self.state.flooded.load(Relaxed) {
            return HttpError::bad_request(format!("no part of the form begins within {MAX_UNUSED_BYTES} bytes"));
        }
        HttpError::bad_request(text)
    }

    async fn next(&self, body: &mut BodyDataStream) -> Option<Result<Bytes, axum::Error>> {
        let Ok(item) = tokio::time::timeout(self.stall_timeout, body.next()).await else {
            self.state.stalled.store(true, Relaxed);
            return Some(Err(axum::Error::new("the body stopped arriving")));
        };
        let bytes = match item? {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error)),
        };
        if self.state.unused.fetch_add(bytes.len(), Relaxed) > MAX_UNUSED_BYTES {
            self.state.flooded.store(true, Relaxed);
            return Some(Err(axum::Error::new("too much without a boundary")));
        }
        Some(Ok(bytes))
    }
}

/// Reads a whole small body. Errors: 408 after `stall_timeout`, 413 beyond `limit` bytes.
pub(crate) async fn read_small(body: Body, limit: usize, stall_timeout: Duration) -> Result<Bytes, HttpError> {
    let (body, watch) = BodyWatch::over(body, stall_timeout);
    let mut body = body.into_data_stream();
    let mut all = BytesMut::new();
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| watch.explain(error.to_string()))?;
        if all.len() + bytes.len() > limit {
            let text = format!("the request's body is longer than {limit} bytes");
            return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}
