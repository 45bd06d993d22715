//! A request's body that is at hand again when its route has dropped it unread.
//!
//! If a server answers and closes the connection while a client still sends, the client's system reports the closed
//! connection and discards the answer. So what is left of the body of a refused request is read before the answer is
//! sent, for a short while.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::SizeHint;
use parking_lot::Mutex;

use super::observed::PolledFrame;

/// How long the rest of a body is discarded.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The lender's side.
pub(super) struct LentBody(Arc<Mutex<SharedBody>>);

struct SharedBody {
    body: Body,
    is_begun: bool,
}

impl LentBody {
    /// Returns the body for the route, too.
    pub(super) fn lend(body: Body) -> (Body, Self) {
        let shared = Arc::new(Mutex::new(SharedBody { body, is_begun: false }));
        (Body::new(BorrowedBody(shared.clone())), Self(shared))
    }

    /// Whether the route has read any of it. A client may wait for that before it sends.
    pub(super) fn is_begun(&self) -> bool {
        self.0.lock().is_begun
    }

    /// Reads the rest and drops it.
    pub(super) async fn discard_rest(self) {
        let to_end = poll_fn(|context| {
            while let Some(Ok(_)) = ready!(Pin::new(&mut self.0.lock().body).poll_frame(context)) {}
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(DISCARD_TIME, to_end).await;
    }
}

struct BorrowedBody(Arc<Mutex<SharedBody>>);

impl HttpBody for BorrowedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let mut shared = self.0.lock();
        shared.is_begun = true;
        Pin::new(&mut shared.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}
