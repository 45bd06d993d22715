//! The client end: any number of concurrent calls on one connection, each with its own deadline.
//!
//! One task reads and one writes. Calls wait in the table `pending`, by id; the end of the connection empties that
//! table, so no call outlives it. The caller decides whether to reconnect or to use another node.

use chordfs_log::warn_limited;
use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::AsyncRead,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, trace};

use super::{
    Notification, RpcError, RpcLimits, Value,
    codec::{RpcMessage, StreamError},
    dialer::{DialedStream, Dialer},
    wire::{MessageReader, write_queued},
};
use crate::{tasks, transport::Connector};

/// Messages that may wait for the writer. A call beyond this number waits, within its deadline.
const QUEUE_MESSAGES: usize = 1024;

/// One multiplexed connection for any number of concurrent calls. Cheap to clone; closed with the last clone.
#[derive(Clone)]
pub struct RpcClient {
    shared: Arc<ClientConnection>,
    queue: mpsc::Sender<Bytes>,
    _close_on_drop: Arc<DropGuard>,
}

struct ClientConnection {
    address: SocketAddr,
    /// `None` once the connection is closed.
    pending: Mutex<Option<PendingCalls>>,
    closed: CancellationToken,
}

#[derive(Default)]
struct PendingCalls {
    last_id: u32,
    calls: HashMap<u64, oneshot::Sender<Result<Value, Value>>>,
}

/// The receiver of notifications.
enum NotificationSink {
    Nowhere,
    Channel(mpsc::Sender<Notification>),
    Handler(Box<dyn FnMut(Notification) + Send>),
}

impl RpcClient {
    /// Connects plainly to a peer, whose notifications are sent to `notifications`, if given, in order with the
    /// responses. While that channel is full the connection is not read, so its receiver must not wait for a call on
    /// the same connection.
    pub async fn connect(
        address: SocketAddr,
        deadline: Duration,
        notifications: Option<mpsc::Sender<Notification>>,
    ) -> Result<Self, RpcError> {
        let sink = notifications.map_or(NotificationSink::Nowhere, NotificationSink::Channel);
        Self::connect_to(&Connector::Plain, address, deadline, sink).await
    }

    /// Like `connect`, but runs `handler` on each notification, before any response after it is delivered. It must not
    /// block.
    pub async fn connect_with_handler(
        address: SocketAddr,
        deadline: Duration,
        handler: impl FnMut(Notification) + Send + 'static,
    ) -> Result<Self, RpcError> {
        Self::connect_over(&Connector::Plain, address, deadline, handler).await
    }

    /// Connects by `dialer` to a peer whose notifications do not matter.
    pub async fn dial(dialer: &dyn Dialer, address: SocketAddr, deadline: Duration) -> Result<Self, RpcError> {
        Self::connect_to(dialer, address, deadline, NotificationSink::Nowhere).await
    }

    /// Like `connect_with_handler`, on a connection that `dialer` makes.
    pub async fn connect_over(
        dialer: &dyn Dialer,
        address: SocketAddr,
        deadline: Duration,
        handler: impl FnMut(Notification) + Send + 'static,
    ) -> Result<Self, RpcError> {
        Self::connect_to(dialer, address, deadline, NotificationSink::Handler(Box::new(handler))).await
    }

    async fn connect_to(
        dialer: &dyn Dialer,
        address: SocketAddr,
        deadline: Duration,
        sink: NotificationSink,
    ) -> Result<Self, RpcError> {
        let failed = |kind, reason: String| RpcError::Connect { address, kind, reason };
        let stream = timeout(deadline, dialer.connect(address))
            .await
            .map_err(|_| failed(ErrorKind::TimedOut, format!("no answer within {deadline:?}")))?
            .map_err(|error| failed(error.kind(), error.to_string()))?;
        Ok(Self::start(stream, address, sink))
    }

    fn start(stream: DialedStream, address: SocketAddr, sink: NotificationSink) -> Self {
        let closed = CancellationToken::new();
        let shared = Arc::new(ClientConnection {
            address,
            pending: Mutex::new(Some(PendingCalls::default())),
            closed: closed.clone(),
        });
        let (queue, waiting) = mpsc::channel(QUEUE_MESSAGES);
        tasks::spawn(run_reader(shared.clone(), stream.read, sink));
        let writer = write_queued(stream.write, waiting, CancellationToken::new());
        tasks::spawn(run_writer(shared.clone(), writer));
        Self { shared, queue, _close_on_drop: Arc::new(closed.drop_guard()) }
    }

    /// Sends a request and waits for its answer. An answer after the deadline is dropped.
    pub async fn call(&self, method: &str, params: Vec<Value>, deadline: Duration) -> Result<Value, RpcError> {
        let address = self.shared.address;
        match timeout(deadline, self.exchange(method, params)).await {
            Err(_) => Err(RpcError::Deadline { address, deadline }),
            Ok(None) => Err(RpcError::Closed { address }),
            Ok(Some(result)) => result.map_err(|error| RpcError::Remote { address, error }),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Resolves when the connection is closed.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Closes the connection for all clones; pending calls fail.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }

    /// Returns `None` if the connection closes before the answer arrives.
    async fn exchange(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, Value>> {
        let (call, answer) = self.shared.begin()?;
        let request = RpcMessage::Request { id: call.id, method: method.to_owned(), params };
        self.queue.send(request.encode()).await.ok()?;
        answer.await.ok()
    }
}

/// Removes the call from the table when its caller has the answer or has given up.
struct PendingCall<'a> {
    shared: &'a ClientConnection,
    id: u64,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.shared.pending.lock().as_mut() {
            pending.calls.remove(&self.id);
        }
    }
}

impl ClientConnection {
    fn begin(&self) -> Option<(PendingCall<'_>, oneshot::Receiver<Result<Value, Value>>)> {
        let (answer, receiver) = oneshot::channel();
        let mut pending = self.pending.lock();
        let id = pending.as_mut()?.insert(answer);
        Some((PendingCall { shared: self, id }, receiver))
    }

    fn deliver(&self, id: u64, result: Result<Value, Value>) {
        let call = self.pending.lock().as_mut().and_then(|pending| pending.calls.remove(&id));
        match call {
            Some(call) => drop(call.send(result)),
            None => trace!(peer = %self.address, id, "dropping a late answer"),
        }
    }

    /// Closes the connection and fails all calls. It is marked closed first, so that the caller of a failed call finds
    /// it closed.
    fn end(&self) {
        self.closed.cancel();
        self.pending.lock().take();
    }
}

impl PendingCalls {
    fn insert(&mut self, answer: oneshot::Sender<Result<Value, Value>>) -> u64 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = u64::from(self.last_id);
            if let Entry::Vacant(free) = self.calls.entry(id) {
                free.insert(answer);
                return id;
            }
        }
    }
}

async fn run_reader(shared: Arc<ClientConnection>, stream: impl AsyncRead + Unpin, sink: NotificationSink) {
    let result = tokio::select! {
        () = shared.closed.cancelled() => Ok(()),
        result = read_messages(&shared, stream, sink) => result,
    };
    match result {
        Ok(()) => {}
        Err(StreamError::Io(error)) => debug!(peer = %shared.address, %error, "connection lost"),
        Err(error) => {
            warn_limited!(peer = %shared.address, %error, "closing the connection to a peer that breaks the protocol")
        }
    }
    shared.end();
}

async fn read_messages(
    shared: &ClientConnection,
    stream: impl AsyncRead + Unpin,
    mut sink: NotificationSink,
) -> Result<(), StreamError> {
    let mut reader = MessageReader::new(stream, &RpcLimits::default(), None);
    while let Some(message) = reader.next().await? {
        match message {
            RpcMessage::Response { id, result } => shared.deliver(id, result),
            RpcMessage::Notification { method, params } => sink.deliver(Notification { method, params }).await,
            RpcMessage::Request { .. } | RpcMessage::BadRequest { .. } => {
                debug!(peer = %shared.address, "ignoring a request on a connection that only calls");
            }
        }
    }
    Ok(())
}

impl NotificationSink {
    async fn deliver(&mut self, notification: Notification) {
        match self {
            Self::Nowhere => {}
            Self::Channel(channel) => drop(channel.send(notification).await),
            Self::Handler(handler) => handler(notification),
        }
    }
}

async fn run_writer(shared: Arc<ClientConnection>, writer: impl Future<Output = std::io::Result<()>>) {
    tokio::select! {
        () = shared.closed.cancelled() => {}
        result = writer => {
            if let Err(error) = result {
                debug!(peer = %shared.address, %error, "cannot send");
            }
        }
    }
    shared.end();
}
