//! Tells the server's table of connections from when to when a request is under way on a connection: from its head to
//! the last byte of its answer.

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

#[derive(Clone)]
pub(super) struct TrackedService<S> {
    service: S,
    place: Arc<ConnectionPlace>,
}

impl<S> TrackedService<S> {
    pub(super) fn new(service: S, place: Arc<ConnectionPlace>) -> Self {
        Self { service, place }
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
        let mark = self.place.begin_request();
        let response = self.service.call(request);
        Box::pin(async move { Ok(response.await?.map(|body| TrackedBody { body, _mark: mark })) })
    }
}

/// The body of an answer, which is dropped when it was sent or its connection ended.
pub(super) struct TrackedBody {
    body: Body,
    _mark: RequestMark,
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
