//! Records from when to when a request is under way on a connection, from its head to the last byte of its answer: for
//! the server's table of connections, and for the limit on heads. Tells the routes who has connected.

use std::sync::Arc;

use axum::body::Body;
use chordfs_net::{
    limits::{ConnectionPlace, PeerKey, RequestMark},
    transport::RemoteCaller,
};
use futures_util::future::BoxFuture;
use hyper::{Request, Response, body::Incoming, service::Service};

use super::{
    answer_room::AnswerRoom,
    head_limit::{CountedRequest, RequestCount},
    observed::{BodyObserver, ObservedBody},
};

#[derive(Clone)]
pub(super) struct TrackedService<S> {
    service: S,
    caller: RemoteCaller,
    peer: Option<PeerKey>,
    answers: AnswerRoom,
    place: Arc<ConnectionPlace>,
    requests: RequestCount,
}

impl<S> TrackedService<S> {
    /// `peer`: whose share the requests are.
    pub(super) fn new(
        service: S,
        caller: RemoteCaller,
        peer: Option<PeerKey>,
        place: Arc<ConnectionPlace>,
        answers: AnswerRoom,
    ) -> Self {
        Self { service, caller, peer, answers: answers.of_peer(peer), place, requests: RequestCount::default() }
    }

    pub(super) fn answers(&self) -> AnswerRoom {
        self.answers.clone()
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
    type Response = Response<ObservedBody<RequestMarks>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.answers.clone());
        request.extensions_mut().insert(self.caller.clone());
        self.peer.map(|peer| request.extensions_mut().insert(peer));
        let marks = RequestMarks((self.place.begin_request(), self.requests.begin()));
        let response = self.service.call(request);
        Box::pin(async move { Ok(response.await?.map(|body| ObservedBody::new(body, marks))) })
    }
}

/// The marks of a request, dropped with the body of its answer.
pub(super) struct RequestMarks(#[allow(dead_code, reason = "held for their drop")] (RequestMark, CountedRequest));

impl BodyObserver for RequestMarks {}
