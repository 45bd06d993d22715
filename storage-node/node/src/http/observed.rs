//! A body with an observer, which sees the outcome of each poll and may replace it, and which is dropped with the body:
//! when the last byte was read or sent, or the connection ended.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// The outcome of polling a body for its next frame.
pub(super) type PolledFrame = Poll<Option<Result<Frame<Bytes>, axum::Error>>>;

pub(super) trait BodyObserver: Unpin {
    /// Returns what the reader of the body gets in place of `polled`.
    fn observe(&mut self, polled: PolledFrame, _context: &mut Context<'_>) -> PolledFrame {
        polled
    }
}

pub(super) struct ObservedBody<O> {
    body: Body,
    observer: O,
}

impl<O> ObservedBody<O> {
    pub(super) fn new(body: Body, observer: O) -> Self {
        Self { body, observer }
    }
}

impl<O: BodyObserver> HttpBody for ObservedBody<O> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.observer.observe(polled, context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
