//! Request bodies that cannot hold the node up: silence ends them, and so does a flood that its reader cannot use.

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

/// A multipart reader that finds no boundary collects what it reads; beyond this it is ended.
const MAX_UNUSED_BYTES: usize = 8 << 20;

/// Tells why a watched body ended early.
#[derive(Clone)]
pub(super) struct BodyWatch {
    shared: Arc<BodyState>,
    silence: Duration,
}

#[derive(Default)]
struct BodyState {
    silent: AtomicBool,
    flooded: AtomicBool,
    unused: AtomicUsize,
}

impl BodyWatch {
    /// The body, ended with an error when nothing arrives for `silence`.
    pub(super) fn over(body: Body, silence: Duration) -> (Body, Self) {
        let watch = Self { shared: Arc::default(), silence };
        let state = (body.into_data_stream(), watch.clone());
        let watched = stream::unfold(state, |(mut body, watch)| async move {
            let item = watch.next(&mut body).await?;
            Some((item, (body, watch)))
        });
        (Body::from_stream(watched), watch)
    }

    /// The reader has made use of what arrived so far.
    pub(super) fn used(&self) {
        self.shared.unused.store(0, Relaxed);
    }

    /// The error to answer after reading has failed with `text`.
    pub(super) fn explain(&self, text: String) -> HttpError {
        if self.shared.silent.load(Relaxed) {
            let text = format!("the request's body stopped arriving for {:?}", self.silence);
            return HttpError::new(StatusCode::REQUEST_TIMEOUT, text);
        }
        if self.shared.flooded.load(Relaxed) {
            return HttpError::bad_request(format!("no part of the form begins within {MAX_UNUSED_BYTES} bytes"));
        }
        HttpError::bad_request(text)
    }

    async fn next(&self, body: &mut BodyDataStream) -> Option<Result<Bytes, axum::Error>> {
        let Ok(item) = tokio::time::timeout(self.silence, body.next()).await else {
            self.shared.silent.store(true, Relaxed);
            return Some(Err(axum::Error::new("the body stopped arriving")));
        };
        let bytes = match item? {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error)),
        };
        if self.shared.unused.fetch_add(bytes.len(), Relaxed) > MAX_UNUSED_BYTES {
            self.shared.flooded.store(true, Relaxed);
            return Some(Err(axum::Error::new("too much without a boundary")));
        }
        Some(Ok(bytes))
    }
}

/// A whole small body: 408 after `silence`, 413 beyond `limit` bytes.
pub(super) async fn read_small(body: Body, limit: usize, silence: Duration) -> Result<Bytes, HttpError> {
    let (body, watch) = BodyWatch::over(body, silence);
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
