//! Records from when to when a request is under way on a connection, from its head to the last byte of its answer: for
//! the server's table of connections, and for the limit on heads.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use chordfs_net::limits::{ConnectionPlace, RequestMark};
use futures_util::future::BoxFuture;
use hyper::{
    Request, Response,
    body::{Frame, Incoming, SizeHint},
    service::Service,
};

use super::head_limit::{CountedRequest, RequestCount};

#[derive(Clone)]
pub(super) struct TrackedService<S> {
    service: S,
    place: Arc<ConnectionPlace>,
    requests: RequestCount,
}

impl<S> TrackedService<S> {
    pub(super) fn new(service: S, place: Arc<ConnectionPlace>) -> Self {
        Self { service, place, requests: RequestCount::default() }
    }

    /// The number of requests under way.
    pub(super) fn requests(&self) -> RequestCount {
        self.requests.clone()
    }
}

impl<S> Service<Request<Incoming>> for TrackedService<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = Response<TrackedBody>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let marks = (self.place.begin_request(), self.requests.begin());
        let response = self.service.call(request);
        Box::pin(async move { Ok(response.await?.map(|body| TrackedBody { body, _marks: marks })) })
    }
}

/// The body of an answer, which is dropped when it was sent or its connection ended.
pub(super) struct TrackedBody {
    body: Body,
    _marks: (RequestMark, CountedRequest),
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
