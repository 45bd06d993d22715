//! The server end: requests of one connection are executed concurrently, up to a bound, and answered as they finish.
//!
//! A connection stays open until the peer closes it, violates the protocol or does not read its answers, or until it
//! has been idle for long or has to make room for another. It counts against the limit of connections until all its
//! calls have ended, so a peer cannot evade the limit by reconnecting.

use chordfs_log::{error_limited, warn_limited};
use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    RpcLimits, Value,
    codec::{RpcMessage, StreamError},
    dialer::DialedStream,
    wire::{MessageReader, Outgoing, configure_socket, write_queued},
};
use crate::{
    limits::{
        ByteBudget, ByteClass, ByteReservation, ConnectionLimiter, ConnectionLimits, ConnectionPlace, PeerKey,
        PeerShare, PeerShares, RequestMark,
    },
    transport::{Acceptor, RemoteCaller},
};

/// Notifications that may be queued for a peer that reads slowly.
const QUEUE_NOTIFICATIONS: usize = 1024;
/// How long the server waits for requests under way when the peer has closed its side or the server stops.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);
/// How long a connection has been idle before another may take its place.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Pause after a failure to accept, which is most likely a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

static LAST_CONNECTION_ID: AtomicU64 = AtomicU64::new(0);

pub trait RpcService: Send + Sync + 'static {
    /// Executes a call. The error value is sent to the caller unchanged; by convention it is text.
    fn call(
        &self,
        peer: &RpcPeer,
        method: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Value, Value>> + Send;

    /// Whether a neighbour in the ring has this address, so that the number of its connections is not limited.
    fn is_neighbour(&self, _address: IpAddr) -> bool {
        false
    }
}

/// The peer of a served connection, to which notifications can be sent. Cheap to clone.
#[derive(Clone)]
pub struct RpcPeer(Arc<PeerConnection>);

struct PeerConnection {
    address: SocketAddr,
    caller: RemoteCaller,
    connection_id: u64,
    queue: mpsc::Sender<QueuedFrame>,
    closed: CancellationToken,
}

/// The permits that a call holds until its answer is sent, so that a peer that does not read cannot accumulate answers.
struct CallReservation {
    _call: OwnedSemaphorePermit,
    _share: Option<PeerShare>,
    _memory: Vec<ByteReservation>,
    _request: RequestMark,
}

struct QueuedFrame {
    frame: Bytes,
    _reservation: Option<CallReservation>,
}

impl Outgoing for QueuedFrame {
    fn frame(&self) -> &[u8] {
        &self.frame
    }
}

impl RpcPeer {
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The one that made the connection.
    pub fn caller(&self) -> &RemoteCaller {
        &self.0.caller
    }

    /// Unique among all connections of this process.
    pub fn connection_id(&self) -> u64 {
        self.0.connection_id
    }

    /// Queues a notification. Returns false if the connection is closed. If the queue is full, closes the connection.
    pub fn notify(&self, method: &str, params: Vec<Value>) -> bool {
        if self.0.closed.is_cancelled() {
            return false;
        }
        let message = RpcMessage::Notification { method: method.to_owned(), params };
        match self.0.queue.try_send(QueuedFrame { frame: message.encode(), _reservation: None }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn_limited!(
                    peer = %self.0.address, method,
                    "closing a connection whose peer does not read its notifications"
                );
                self.0.closed.cancel();
                false
            }
        }
    }

    /// Closes the connection at once, without sending queued answers.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Resolves when the connection is closed.
    pub async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }
}

/// Like [`serve_within`], for plain connections of anyone and with a budget of its own.
pub async fn serve<S: RpcService>(
    listener: TcpListener,
    service: Arc<S>,
    limits: RpcLimits,
    shutdown: CancellationToken,
) {
    serve_within(listener, Acceptor::default(), service, limits, ByteBudget::default(), shutdown).await;
}

/// Serves until `shutdown`; requests take their memory from `budget`. Returns when the requests under way are answered,
/// at the latest after a few seconds.
pub async fn serve_within<S: RpcService>(
    listener: TcpListener,
    acceptor: Acceptor,
    service: Arc<S>,
    limits: RpcLimits,
    budget: ByteBudget,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let server = Arc::new(RpcServer::new(service, limits, budget, shutdown.clone()));
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, address)) => server.admit(stream, address, acceptor.clone(), &tasks),
            Err(error) => {
                warn_limited!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection, made by other means than [`serve`]'s, until either side ends it or `shutdown`.
pub async fn serve_stream<S: RpcService>(
    stream: DialedStream,
    address: SocketAddr,
    service: Arc<S>,
    limits: RpcLimits,
    shutdown: CancellationToken,
) {
    let server = Arc::new(RpcServer::new(service, limits, ByteBudget::default(), shutdown));
    let place = server.connections.admit(address.ip(), true).expect("it is the first connection");
    let (connection, writer) = RpcConnection::new(server, address, RemoteCaller::Unchecked, stream.write, place);
    connection.run(stream.read, writer).await;
}

struct RpcServer<S> {
    service: Arc<S>,
    limits: RpcLimits,
    connections: ConnectionLimiter,
    calls_of_peers: PeerShares,
    budget: ByteBudget,
    shutdown: CancellationToken,
}

impl<S: RpcService> RpcServer<S> {
    fn new(service: Arc<S>, limits: RpcLimits, budget: ByteBudget, shutdown: CancellationToken) -> Self {
        let RpcLimits { max_connections, max_per_address, .. } = limits;
        let connections =
            ConnectionLimiter::new(ConnectionLimits { max_connections, max_per_address, min_idle: MIN_IDLE });
        let calls_of_peers = PeerShares::new(limits.max_calls_of_peer);
        Self { service, limits, connections, calls_of_peers, budget, shutdown }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, acceptor: Acceptor, tasks: &TaskTracker) {
        let is_trusted = address.ip().is_loopback() || self.service.is_neighbour(address.ip());
        let place = match self.connections.admit(address.ip(), is_trusted) {
            Ok(place) => place,
            Err(refusal) => {
                warn_limited!(peer = %address, %refusal, "refusing a connection: too many are open");
                return;
            }
        };
        let server = self.clone();
        tasks.spawn(async move {
            let accepted = tokio::select! {
                accepted = acceptor.accept(stream, address.ip()) => accepted,
                () = server.shutdown.cancelled() => return,
                () = place.lost(server.limits.idle_timeout) => {
                    debug!(peer = %address, "closing a connection on which nothing came");
                    return;
                }
            };
            let accepted = accepted.and_then(|accepted| configure_socket(accepted.0.socket()).map(|()| accepted));
            match accepted {
                Ok((connection, caller)) => {
                    let (read, write) = connection.into_halves();
                    let (connection, writer) = RpcConnection::new(server, address, caller, write, place);
                    connection.run(read, writer).await;
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    warn_limited!(peer = %address, %error, "refusing a connection");
                }
                Err(error) => debug!(peer = %address, %error, "connection lost"),
            }
        });
    }
}

struct RpcConnection<S> {
    server: Arc<RpcServer<S>>,
    peer: RpcPeer,
    /// Has a share of the calls and of the room of long frames.
    key: Option<PeerKey>,
    calls: Arc<Semaphore>,
    place: Arc<ConnectionPlace>,
    /// Makes the writer stop after it has sent the queued messages.
    finish: CancellationToken,
}

impl<S: RpcService> RpcConnection<S> {
    fn new(
        server: Arc<RpcServer<S>>,
        address: SocketAddr,
        caller: RemoteCaller,
        stream: impl AsyncWrite + Send + Unpin,
        place: Arc<ConnectionPlace>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(server.limits.max_calls_in_flight + QUEUE_NOTIFICATIONS);
        let connection_id = LAST_CONNECTION_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let closed = CancellationToken::new();
        let key = PeerKey::of(&caller, address.ip());
        let peer = RpcPeer(Arc::new(PeerConnection { address, caller, connection_id, queue, closed }));
        let finish = CancellationToken::new();
        let writer = run_writer(peer.clone(), write_queued(stream, waiting, finish.clone()));
        let calls = Arc::new(Semaphore::new(server.limits.max_calls_in_flight));
        (Self { server, peer, key, calls, place, finish }, writer)
    }

    async fn run(self, stream: impl AsyncRead + Unpin, writer: impl Future<Output = ()> + Send) {
        tokio::join!(writer, async {
            // A guard, so that even a panicking reader ends the connection.
            let _finish = self.finish.clone().drop_guard();
            let result = tokio::select! {
                () = self.peer.closed() => Ok(()),
                () = self.server.shutdown.cancelled() => Ok(()),
                () = self.peer.caller().expired() => Ok(()),
                () = self.place.lost(self.server.limits.idle_timeout) => {
                    debug!(peer = %self.peer.address(), "closing an idle connection");
                    Ok(())
                }
                result = self.read_messages(stream) => result,
            };
            match result {
                Ok(()) => self.wait_for_calls().await,
                Err(StreamError::Io(error)) => debug!(peer = %self.peer.address(), %error, "connection lost"),
                Err(StreamError::Torn) => debug!(peer = %self.peer.address(), "connection lost inside a message"),
                Err(error @ (StreamError::Overloaded(_) | StreamError::Stalled(_))) => {
                    warn_limited!(peer = %self.peer.address(), %error, "closing a connection whose frame does not arrive")
                }
                Err(error) => {
                    warn_limited!(
                        peer = %self.peer.address(), %error,
                        "closing a connection that violates the protocol"
                    )
                }
            }
        });
        self.peer.0.closed.cancel();
    }

    async fn read_messages(&self, stream: impl AsyncRead + Unpin) -> Result<(), StreamError> {
        let reader = MessageReader::new(stream, &self.server.limits, Some(self.server.budget.clone()));
        let mut reader = reader.of_peer(self.key);
        while let Some(message) = reader.next().await? {
            match message {
                RpcMessage::Request { id, method, params } => {
                    let memory = self.memory_of(&mut reader).await;
                    self.begin(Some(id), method, params, memory).await;
                }
                RpcMessage::Notification { method, params } => {
                    let memory = self.memory_of(&mut reader).await;
                    self.begin(None, method, params, memory).await;
                }
                RpcMessage::BadRequest { .. } => {
                    let _ = self.peer.0.queue.send(QueuedFrame { frame: message.encode(), _reservation: None }).await;
                }
                RpcMessage::Response { id, .. } => {
                    debug!(peer = %self.peer.address(), id, "ignoring an answer on a connection that only serves");
                }
            }
        }
        Ok(())
    }

    /// Returns the room that the last message has in the budget. A small frame, such as those of the ring, gets it only
    /// now, and in a class that long frames cannot fill.
    async fn memory_of<R: AsyncRead + Unpin>(&self, reader: &mut MessageReader<R>) -> Vec<ByteReservation> {
        let reserved = reader.take_reservation();
        if !reserved.is_empty() {
            return reserved;
        }
        vec![self.server.budget.reserve_patiently(ByteClass::Copy, reader.frame_bytes()).await]
    }

    /// Waits until the limits admit the call, then spawns it. A call without an id gets no answer.
    async fn begin(&self, id: Option<u64>, method: String, params: Vec<Value>, memory: Vec<ByteReservation>) {
        let call = self.calls.clone().acquire_owned().await.expect("the semaphore is never closed");
        let share = match self.key {
            Some(peer) => Some(self.server.calls_of_peers.take_patiently(peer, 1).await),
            None => None,
        };
        let request = self.place.begin_request();
        let reservation = CallReservation { _call: call, _share: share, _memory: memory, _request: request };
        let (server, peer) = (self.server.clone(), self.peer.clone());
        tokio::spawn(async move {
            let result = execute(&*server.service, &peer, method, params).await;
            if let Some(id) = id {
                let frame = answer(id, result, server.limits.max_frame_bytes);
                let _ = peer.0.queue.send(QueuedFrame { frame, _reservation: Some(reservation) }).await;
            }
        });
    }

    async fn wait_for_calls(&self) {
        let all = self.calls.acquire_many(self.server.limits.max_calls_in_flight as u32);
        if timeout(FINISH_DEADLINE, all).await.is_err() {
            debug!(peer = %self.peer.address(), "closing a connection before all its requests were answered");
        }
    }
}

/// Runs a call. If it panics, which is a bug, its caller gets an error, and no other call is affected.
async fn execute<S: RpcService>(
    service: &S,
    peer: &RpcPeer,
    method: String,
    params: Vec<Value>,
) -> Result<Value, Value> {
    let name = method.clone();
    AssertUnwindSafe(async { service.call(peer, method, params).await }).catch_unwind().await.unwrap_or_else(|_| {
        error_limited!(peer = %peer.address(), method = name, "a call panicked");
        Err("internal error".into())
    })
}

fn answer(id: u64, result: Result<Value, Value>, max_frame_bytes: usize) -> Bytes {
    let answer = RpcMessage::Response { id, result }.encode();
    if answer.len() <= max_frame_bytes {
        return answer;
    }
    let reason = format!("the answer has {} bytes, at most {max_frame_bytes} can be sent", answer.len());
    RpcMessage::Response { id, result: Err(reason.into()) }.encode()
}

async fn run_writer(peer: RpcPeer, writer: impl Future<Output = std::io::Result<()>> + Send) {
    let result = tokio::select! {
        biased;
        () = peer.closed() => Ok(()),
        result = writer => result,
    };
    if let Err(error) = result {
        debug!(peer = %peer.address(), %error, "cannot send");
    }
    peer.0.closed.cancel();
}
