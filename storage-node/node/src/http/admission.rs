//! What a request has to pass before its route sees it: the check of its head, room for its body in the process's
//! budget of bytes, and, while the body arrives, a pace that no peer may fall below.
//!
//! The room is reserved before anything of the body is read, by its announced length, and is given back when the
//! request is answered or its connection ends. A request that finds no room gets 503.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chordfs_net::limits::{ByteBudget, ByteClass, PeerKey};
use chordfs_types::chunk_api::{MAX_BATCH_BYTES, calls};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    error::HttpError,
    lent_body::LentBody,
    observed::{BodyObserver, ObservedBody, PolledFrame},
    origin,
};

/// A body up to this length needs no room.
const SMALL_BODY_BYTES: u64 = 8 << 10;
/// What an upload holds at a time: it is stored while it arrives.
const UPLOAD_BYTES: u64 = 16 << 20;
/// What a snapshot holds at a time: it is written to a file while it arrives.
const SNAPSHOT_BYTES: u64 = 1 << 20;

/// The limits of the bodies that one server accepts.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    pub budget: ByteBudget,
    /// How long a request waits for room.
    pub room_deadline: Duration,
    /// How long an upload waits for room.
    pub upload_room_deadline: Duration,
    pub pace: ArrivalPace,
    /// The pace of bodies that hold room while others wait for it.
    pub pace_under_pressure: ArrivalPace,
}

/// While a body is waited for, at least `bytes` must arrive in each `period`.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalPace {
    pub bytes: usize,
    pub period: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            budget: ByteBudget::default(),
            room_deadline: Duration::from_secs(5),
            upload_room_deadline: Duration::from_secs(30),
            pace: ArrivalPace { bytes: 8 << 10, period: Duration::from_secs(30) },
            pace_under_pressure: ArrivalPace { bytes: 64 << 10, period: Duration::from_secs(1) },
        }
    }
}

impl BodyLimits {
    fn check_period(&self) -> Duration {
        self.pace.period.min(self.pace_under_pressure.period) / 2
    }
}

/// What every request to a server is checked against.
#[derive(Clone)]
pub(super) struct Admission {
    pub names: Arc<[String]>,
    pub limits: BodyLimits,
}

/// Passes a request on to the routes if its head is acceptable and there is room for its body.
pub(super) async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    if let Err(error) = origin::check(&request, &admission.names) {
        return error.into_response();
    }
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let demand = demand(&parts, body.size_hint().exact());
    let limits = &admission.limits;
    let reservation = match demand {
        None => None,
        Some((class, bytes)) => {
            let upload = class == ByteClass::Upload;
            let deadline = if upload { limits.upload_room_deadline } else { limits.room_deadline };
            let peer = parts.extensions.get::<PeerKey>().copied();
            match limits.budget.reserve_for(peer, class, bytes, deadline).await {
                None => {
                    LentBody::lend(body).1.discard_rest().await;
                    return refusal(deadline);
                }
                reservation => reservation,
            }
        }
    };
    let failure = BodyFailure::default();
    let arrival = ArrivalWatch::new(limits, reservation.is_some(), failure.clone());
    let (body, lent) = LentBody::lend(body);
    let waits_for_go = parts.headers.contains_key(header::EXPECT);
    let body = Body::new(ObservedBody::new(body, arrival));
    let response = next.run(Request::from_parts(parts, body)).await;
    drop(reservation);
    let response = failure.response().unwrap_or(response);
    let is_refusal = response.status().is_client_error() || response.status().is_server_error();
    if is_refusal && (lent.is_begun() || !waits_for_go) {
        lent.discard_rest().await;
    }
    response
}

/// Returns the room that the body of a request needs; `None` for a small one. `length` is `None` if it is not
/// announced.
fn demand(head: &Parts, length: Option<u64>) -> Option<(ByteClass, usize)> {
    let path = head.uri.path();
    let (class, at_most) = match path {
        "/upload" | "/api/upload" => (ByteClass::Upload, UPLOAD_BYTES),
        "/raft/snapshot" => (ByteClass::Raft, SNAPSHOT_BYTES),
        _ if path.starts_with("/raft/") => (ByteClass::Raft, MAX_BATCH_BYTES as u64),
        calls::PUT if is_local(head) => (ByteClass::Copy, MAX_BATCH_BYTES as u64),
        calls::PUT => (ByteClass::Put, MAX_BATCH_BYTES as u64),
        _ if head.method == Method::PUT => (ByteClass::Upload, UPLOAD_BYTES),
        _ => (ByteClass::Copy, MAX_BATCH_BYTES as u64),
    };
    let bytes = length.unwrap_or(at_most);
    (bytes > SMALL_BODY_BYTES).then(|| (class, bytes.min(at_most) as usize))
}

/// True for a put that stores on this node only, and so waits for no other.
fn is_local(head: &Parts) -> bool {
    head.uri.query().is_some_and(|query| query.split('&').any(|part| part == "copies=1"))
}

fn refusal(waited: Duration) -> Response {
    let waited = humantime::format_duration(waited);
    overloaded(format!("this node found no room for the request within {waited}: too many bytes are under way"))
}

fn overloaded(reason: String) -> Response {
    let text = format!("{reason}; send the request again in a second, or to another node");
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Why a body was ended before its last byte.
#[derive(Clone, Default)]
struct BodyFailure(Arc<AtomicU8>);

impl BodyFailure {
    const SLOW: u8 = 1;
    const GAVE_WAY: u8 = 2;

    /// The answer in place of that of the route, which knows only that the body ended early.
    fn response(&self) -> Option<Response> {
        match self.0.load(Relaxed) {
            Self::SLOW => {
                let text = "the request's body stopped arriving, or arrived too slowly; send the request again";
                Some(HttpError::new(StatusCode::REQUEST_TIMEOUT, text).into_response())
            }
            Self::GAVE_WAY => {
                Some(overloaded("the request's body arrived too slowly for a node on whose memory others wait".into()))
            }
            _ => None,
        }
    }
}

/// Ends a body with an error when it arrives too slowly. Only the time counts in which the route waits for it.
struct ArrivalWatch {
    limits: BodyLimits,
    holds_room: bool,
    failure: BodyFailure,
    /// When the present wait began.
    waiting_since: Option<Instant>,
    /// The waits, and the bytes that arrived, since the pace was last kept; under pressure likewise.
    normal: PaceMeter,
    pressed: PaceMeter,
    check: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct PaceMeter {
    waited: Duration,
    bytes: usize,
}

impl PaceMeter {
    fn add(&mut self, pace: ArrivalPace, waited: Duration, bytes: usize) {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= pace.bytes {
            *self = Self::default();
        }
    }

    fn is_too_slow(&self, pace: ArrivalPace, waiting: Duration) -> bool {
        self.waited + waiting >= pace.period
    }
}

impl ArrivalWatch {
    fn new(limits: &BodyLimits, holds_room: bool, failure: BodyFailure) -> Self {
        let check = Box::pin(sleep(limits.check_period()));
        Self {
            limits: limits.clone(),
            holds_room,
            failure,
            waiting_since: None,
            normal: PaceMeter::default(),
            pressed: PaceMeter::default(),
            check,
        }
    }

    fn arrived(&mut self, bytes: usize) {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.normal.add(self.limits.pace, waited, bytes);
        self.pressed.add(self.limits.pace_under_pressure, waited, bytes);
    }

    /// Returns why the body ends here, if it is too slow.
    fn too_slow(&self) -> Option<u8> {
        let waiting = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        if self.normal.is_too_slow(self.limits.pace, waiting) {
            return Some(BodyFailure::SLOW);
        }
        let must_give_way = self.holds_room
            && self.limits.budget.is_pressed()
            && self.pressed.is_too_slow(self.limits.pace_under_pressure, waiting);
        must_give_way.then_some(BodyFailure::GAVE_WAY)
    }

    /// Waits for the next check; an error when one finds the body too slow.
    fn poll_check(&mut self, context: &mut Context<'_>) -> Poll<axum::Error> {
        self.waiting_since.get_or_insert_with(Instant::now);
        while self.check.as_mut().poll(context).is_ready() {
            if let Some(why) = self.too_slow() {
                self.failure.0.store(why, Relaxed);
                return Poll::Ready(axum::Error::new("it arrived too slowly"));
            }
            let next = Instant::now() + self.limits.check_period();
            self.check.as_mut().reset(next);
        }
        Poll::Pending
    }
}

impl BodyObserver for ArrivalWatch {
    fn observe(&mut self, polled: PolledFrame, context: &mut Context<'_>) -> PolledFrame {
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.arrived(frame.data_ref().map_or(0, |data| data.len())),
            Poll::Ready(_) => {}
            Poll::Pending => return self.poll_check(context).map(|error| Some(Err(error))),
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, uri: &str, length: Option<u64>, expected: Option<(ByteClass, usize)>) {
        let (head, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        assert_eq!(demand(&head, length), expected, "{uri} {length:?}");
    }

    #[test]
    fn a_body_needs_room_for_what_the_node_holds_of_it() {
        const MIB: usize = 1 << 20;
        let mib = |count: u64| Some(count << 20);
        check(Method::POST, "/upload", Some(4500), None);
        check(Method::POST, "/upload", mib(1), Some((ByteClass::Upload, MIB)));
        check(Method::PUT, "/upload", mib(1000), Some((ByteClass::Upload, 16 * MIB)));
        check(Method::POST, "/upload", None, Some((ByteClass::Upload, 16 * MIB)));
        check(Method::POST, "/api/upload", mib(5000), Some((ByteClass::Upload, 16 * MIB)));
        check(Method::PUT, "/a/b.txt", mib(5000), Some((ByteClass::Upload, 16 * MIB)));
        check(Method::POST, "/chunks/put?copies=3", mib(4), Some((ByteClass::Put, 4 * MIB)));
        check(Method::POST, "/chunks/put?durability=disk&copies=1", mib(4), Some((ByteClass::Copy, 4 * MIB)));
        check(Method::POST, "/chunks/get", mib(100), Some((ByteClass::Copy, 64 * MIB)));
        check(Method::POST, "/raft/append?to=1&of=2", mib(2), Some((ByteClass::Raft, 2 * MIB)));
        check(Method::POST, "/raft/snapshot?to=1&of=2", mib(2000), Some((ByteClass::Raft, MIB)));
    }
}
