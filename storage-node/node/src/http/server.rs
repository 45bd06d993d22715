//! Serves a router on a listener, with the limits that a plain `axum::serve` does not set: a client that sends half a
//! request head is cut off, a stop lets running requests end, and buffers are large enough for batches of chunks. The
//! number of connections is limited: a further one takes the place of the idlest, or waits if all have requests.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use chordfs_log::warn_limited;
use chordfs_net::{
    limits::{ConnectionLimiter, ConnectionLimits, ConnectionPlace, ConnectionRefusal, PeerKey, PeerShares},
    transport::{Acceptor, Connection},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    admission::{Admission, BodyLimits, admit},
    answer_room::{AnswerLimits, AnswerRoom},
    api::failure::failures_as_json,
    head_limit::HeadLimitedStream,
    tracked::TrackedService,
};

/// Whether an address is one of a neighbour in the ring.
pub type IsNeighbour = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

#[derive(Clone)]
pub struct ServerOptions {
    /// Takes TLS or plain connections.
    pub acceptor: Acceptor,
    /// Connections served at a time. Each takes a file descriptor, of which the process has a limited number.
    pub max_connections: usize,
    /// Connections of one address, which is neither this machine's own nor a neighbour's.
    pub max_per_address: usize,
    /// Connections of each identity, from wherever they come, and of each address without one.
    pub max_per_peer: u32,
    pub is_neighbour: IsNeighbour,
    /// A connection on which no whole request head arrives for this long is closed; this includes idle ones.
    pub head_silence: Duration,
    /// A client that accepts no bytes for this long is cut off.
    pub write_silence: Duration,
    /// How long running requests may continue after the stop.
    pub stop_grace: Duration,
    /// The names by which browsers and programs may call this server, besides addresses and private names.
    pub names: Arc<[String]>,
    /// The limits of the requests' bodies.
    pub bodies: BodyLimits,
    pub answers: AnswerLimits,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            acceptor: Acceptor::default(),
            max_connections: 4096,
            max_per_address: 512,
            max_per_peer: 256,
            is_neighbour: Arc::new(|_| false),
            head_silence: Duration::from_secs(60),
            write_silence: Duration::from_secs(120),
            stop_grace: Duration::from_secs(5),
            names: Arc::default(),
            bodies: BodyLimits::default(),
            answers: AnswerLimits::default(),
        }
    }
}

/// The largest buffer of a connection. Measured: a smaller one slows batches of several MiB.
const MAX_BUFFER_BYTES: usize = 1 << 20;
/// How long a connection has been idle before another may take its place.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// The pause before the next look for a free place, while all connections have requests.
const PLACE_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a failed accept, until the process may have file descriptors again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, and returns when the running requests have ended or their grace period is over.
pub async fn serve(listener: TcpListener, router: Router, options: ServerOptions, stop: impl Future<Output = ()>) {
    let admission = Admission { names: options.names.clone(), limits: options.bodies.clone() };
    let router = router.layer(from_fn_with_state(admission, admit)).layer(from_fn(failures_as_json));
    let stopping = CancellationToken::new();
    let connections = TaskTracker::new();
    let ServerOptions { max_connections, max_per_address, .. } = options;
    let places = ConnectionLimiter::new(ConnectionLimits { max_connections, max_per_address, min_idle: MIN_IDLE });
    let peers = PeerShares::new(options.max_per_peer);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places, &options) => accepted,
        };
        match accepted {
            Ok((accepted, place)) => {
                let answers = AnswerRoom::new(options.answers.clone());
                let marks = (place.clone(), answers.clone(), peers.clone());
                let connection = serve_accepted(accepted, router.clone(), marks, options.clone(), stopping.clone());
                let idle_timeout = options.head_silence + MIN_IDLE;
                connections.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = place.lost(idle_timeout) => debug!("closing an idle connection"),
                        () = answers.must_give_way() => debug!("closing a connection whose peer reads too slowly"),
                    }
                });
            }
            Err(error) => pause_after(error).await,
        }
    }
    drop(listener);
    stopping.cancel();
    connections.close();
    if tokio::time::timeout(options.stop_grace, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "the stop cut off requests");
    }
}

/// Accepts the next connection, and waits until it has a place. Meanwhile others wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    places: &ConnectionLimiter,
    options: &ServerOptions,
) -> io::Result<((TcpStream, SocketAddr), Arc<ConnectionPlace>)> {
    loop {
        let (stream, peer) = listener.accept().await?;
        match find_place(places, peer.ip(), options).await {
            Ok(place) => return Ok(((stream, peer), place)),
            Err(refusal) => warn_limited!(%peer, %refusal, "refusing a connection: too many are open"),
        }
    }
}

async fn find_place(
    places: &ConnectionLimiter,
    address: IpAddr,
    options: &ServerOptions,
) -> Result<Arc<ConnectionPlace>, ConnectionRefusal> {
    let is_trusted = address.is_loopback() || (options.is_neighbour)(address);
    loop {
        match places.admit(address, is_trusted) {
            Err(ConnectionRefusal::Full(_)) => tokio::time::sleep(PLACE_PAUSE).await,
            result => return result,
        }
    }
}

/// Finds out who has connected, then serves the requests.
async fn serve_accepted(
    (stream, peer): (TcpStream, SocketAddr),
    router: Router,
    (place, answers, peers): (Arc<ConnectionPlace>, AnswerRoom, PeerShares),
    options: ServerOptions,
    stopping: CancellationToken,
) {
    if let Err(error) = set_options(&stream, options.write_silence) {
        debug!(%error, "cannot set the options of a connection");
    }
    let accepted = stopping.run_until_cancelled(options.acceptor.accept(stream, peer.ip())).await;
    match accepted {
        None => {}
        Some(Ok((connection, caller))) => {
            let key = PeerKey::of(&caller, peer.ip());
            let Some(_connection) = key.map_or(Some(None), |key| peers.try_take(key, 1).map(Some)) else {
                warn_limited!(%peer, ?key, "refusing a connection: this peer has too many");
                return;
            };
            let service = TrackedService::new(TowerToHyperService::new(router), caller.clone(), key, place, answers);
            // A certificate that expires stops the connection as a stop of the node does: after the requests under way.
            let ends = stopping.child_token();
            tokio::select! {
                () = serve_connection(connection, service, options, ends.clone()) => {}
                () = async {
                    caller.expired_or_renewed().await;
                    ends.cancel();
                    std::future::pending().await
                } => {}
            }
        }
        Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            warn_limited!(%peer, %error, "refusing a connection");
        }
        Some(Err(error)) => debug!(%peer, %error, "a connection ended before its first request"),
    }
}

async fn serve_connection(
    stream: Connection,
    service: TrackedService<TowerToHyperService<Router>>,
    options: ServerOptions,
    stopping: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_silence)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(HeadLimitedStream::new(stream, service.requests(), service.answers())), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(options.stop_grace, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// Makes the kernel end a connection whose peer acknowledges nothing, or opens no window, for `write_silence`.
fn set_options(stream: &TcpStream, write_silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(write_silence.as_millis()).unwrap_or(u32::MAX);
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &millis)?;
    Ok(())
}

/// Pauses unless the client has ended the connection while it waited: any other error is likely to last for a while.
async fn pause_after(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        warn_limited!(%error, "cannot accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
