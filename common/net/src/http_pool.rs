//! A small pool of keep-alive HTTP/1.1 connections, over which chunks and the namespace's log travel between processes.
//!
//! It uses hyper's connection directly, because on this path every copy counts: request bodies are sent as slices, an
//! answer of one frame is returned without a copy, and a longer one is joined once.

use std::{
    collections::HashMap,
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream::BoxStream};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::timeout;

use crate::transport::Connector;

/// Connections kept idle for each peer; more may be in use at a time.
const IDLE_PER_PEER: usize = 8;
/// A host that is off does not refuse a connection; it does not answer at all.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// An answer longer than this is refused: the largest batch and its headers fit.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// The read buffer of a connection. The mount's allocator maps a buffer of this size by itself. Half the size made
/// reads faster, and let the mount outgrow its bound by 17 MiB.
const READ_BUFFER_BYTES: usize = 1 << 20;
/// A shorter answer gets a buffer of its own. Otherwise it would keep the connection's read buffer in memory, up to
/// 1 MiB of it, for as long as a cache has a part of the answer.
const COPIED_BELOW_BYTES: usize = 256 << 10;

#[derive(Clone, Debug, Error)]
pub enum HttpClientError {
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, kind: io::ErrorKind, reason: String },
    #[error("no answer from {address} within {deadline:?}")]
    Deadline { address: SocketAddr, deadline: Duration },
    #[error("the exchange with {address} broke off: {reason}")]
    Broken { address: SocketAddr, reason: String },
}

#[derive(Clone, Debug)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpAnswer {
    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

pub struct HttpPool {
    connector: Connector,
    idle: Mutex<HashMap<SocketAddr, Vec<SendRequest<RequestBody>>>>,
    max_answer_bytes: usize,
}

impl Default for HttpPool {
    fn default() -> Self {
        Self::over(Connector::Plain)
    }
}

impl HttpPool {
    /// A pool of plain connections.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn over(connector: Connector) -> Self {
        Self { connector, idle: Mutex::default(), max_answer_bytes: MAX_ANSWER_BYTES }
    }

    /// A pool for short-lived commands, which may list everything that a node stores.
    pub fn with_unlimited_answers(self) -> Self {
        Self { max_answer_bytes: usize::MAX, ..self }
    }

    /// How this pool connects, for those who need connections of their own.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Sends `body` piece by piece and joins the answer. An idle connection that turns out closed is replaced.
    pub async fn request(
        &self,
        address: SocketAddr,
        method: Method,
        path_and_query: &str,
        headers: HeaderMap,
        body: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<HttpAnswer, HttpClientError> {
        let exchange = self.exchange(address, method, path_and_query, headers, body);
        timeout(deadline, Box::pin(exchange)).await.unwrap_or(Err(HttpClientError::Deadline { address, deadline }))
    }

    /// `POST` without further headers.
    pub async fn post(
        &self,
        address: SocketAddr,
        path_and_query: &str,
        body: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<HttpAnswer, HttpClientError> {
        self.request(address, Method::POST, path_and_query, HeaderMap::new(), body, deadline).await
    }

    /// `POST` of a body that comes bit by bit and may be long, on a connection of its own.
    pub async fn post_stream(
        &self,
        address: SocketAddr,
        path_and_query: &str,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        deadline: Duration,
    ) -> Result<HttpAnswer, HttpClientError> {
        let exchange = async {
            let body = RequestBody::Stream(Box::pin(body));
            let request = build_request(address, &Method::POST, path_and_query, &HeaderMap::new(), body)?;
            self.send_anew(address, request).await
        };
        timeout(deadline, Box::pin(exchange)).await.unwrap_or(Err(HttpClientError::Deadline { address, deadline }))
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        method: Method,
        path_and_query: &str,
        headers: HeaderMap,
        body: Vec<Bytes>,
    ) -> Result<HttpAnswer, HttpClientError> {
        while let Some(mut connection) = self.take_idle(address) {
            let request = build_request(address, &method, path_and_query, &headers, RequestBody::pieces(body.clone()))?;
            match connection.try_send_request(request).await {
                Ok(response) => return self.gather(address, connection, response).await,
                // The peer closed the idle connection; nothing was sent.
                Err(error) if error.message().is_some() => continue,
                Err(error) => {
                    return Err(HttpClientError::Broken { address, reason: error_chain(&error.into_error()) });
                }
            }
        }
        let request = build_request(address, &method, path_and_query, &headers, RequestBody::pieces(body))?;
        self.send_anew(address, request).await
    }

    /// Sends a request on a new connection.
    async fn send_anew(
        &self,
        address: SocketAddr,
        request: Request<RequestBody>,
    ) -> Result<HttpAnswer, HttpClientError> {
        let mut connection = connect(&self.connector, address).await?;
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| HttpClientError::Broken { address, reason: error_chain(&error) })?;
        self.gather(address, connection, response).await
    }

    fn take_idle(&self, address: SocketAddr) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(&address)?;
        std::iter::from_fn(|| connections.pop()).find(|connection| !connection.is_closed() && connection.is_ready())
    }

    async fn gather(
        &self,
        address: SocketAddr,
        mut connection: SendRequest<RequestBody>,
        response: hyper::Response<Incoming>,
    ) -> Result<HttpAnswer, HttpClientError> {
        let (parts, body) = response.into_parts();
        let body = gather_body(body, self.max_answer_bytes)
            .await
            .map_err(|reason| HttpClientError::Broken { address, reason })?;
        if connection.ready().await.is_ok() {
            self.return_idle(address, connection);
        }
        Ok(HttpAnswer { status: parts.status, headers: parts.headers, body })
    }

    fn return_idle(&self, address: SocketAddr, connection: SendRequest<RequestBody>) {
        let mut idle = self.idle.lock();
        let connections = idle.entry(address).or_default();
        if connections.len() < IDLE_PER_PEER {
            connections.push(connection);
        }
    }
}

async fn connect(connector: &Connector, address: SocketAddr) -> Result<SendRequest<RequestBody>, HttpClientError> {
    let failed = |kind, reason: String| HttpClientError::Connect { address, kind, reason };
    let broken = |error: &io::Error| failed(error.kind(), error.to_string());
    let stream = timeout(CONNECT_DEADLINE, connector.connect(address)).await;
    let stream =
        stream.map_err(|_| failed(io::ErrorKind::TimedOut, format!("no answer within {CONNECT_DEADLINE:?}")))?;
    let stream = stream.map_err(|error| broken(&error))?;
    let handshake =
        http1::Builder::new().max_buf_size(READ_BUFFER_BYTES).writev(true).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| failed(io::ErrorKind::Other, error_chain(&error)))?;
    // Ends by itself when the sender is dropped or the peer closes.
    tokio::spawn(connection);
    Ok(sender)
}

fn build_request(
    address: SocketAddr,
    method: &Method,
    path_and_query: &str,
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Request<RequestBody>, HttpClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path_and_query)
        .header(header::HOST, address.to_string())
        .body(body)
        .map_err(|error| HttpClientError::Broken { address, reason: error.to_string() })?;
    request.headers_mut().extend(headers.clone());
    Ok(request)
}

async fn gather_body(mut body: Incoming, max_bytes: usize) -> Result<Bytes, String> {
    let expected = body.size_hint().exact().unwrap_or(0) as usize;
    if expected > max_bytes {
        return Err(format!("an answer of {expected} bytes, at most {max_bytes} are accepted"));
    }
    // A body in one frame is not copied. Every other frame is copied and dropped at once, because the connection reads
    // into the same buffer again only if nobody holds a part of it.
    let mut first = Bytes::new();
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error_chain(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() && gathered.is_empty() && data.len() >= expected {
            first = data;
            continue;
        }
        if gathered.is_empty() {
            gathered.reserve(expected.max(first.len() + data.len()));
            gathered.extend_from_slice(&std::mem::take(&mut first));
        }
        if gathered.len() + data.len() > max_bytes {
            return Err(format!("an answer of more than {max_bytes} bytes"));
        }
        gathered.extend_from_slice(&data);
    }
    Ok(if !gathered.is_empty() {
        gathered.freeze()
    } else if first.len() < COPIED_BELOW_BYTES {
        Bytes::copy_from_slice(&first)
    } else {
        first
    })
}

/// An error with its causes, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

enum RequestBody {
    /// The length is known; the pieces are sent without being joined.
    Pieces(VecDeque<Bytes>),
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

impl RequestBody {
    fn pieces(pieces: Vec<Bytes>) -> Self {
        Self::Pieces(pieces.into())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream(stream) => stream.as_mut().poll_next(context).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Pieces(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
