//! One session as the feed sees it: its connections, how long it has been silent, and what it has said of its open
//! files.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chordfs_net::rpc::{RpcPeer, Value};
use chordfs_types::namespace::{ClientReport, SessionRequests, calls};

/// The part of a connection that the feed needs.
pub(crate) trait FeedConnection: Send + Sync + 'static {
    /// An id that is unique within this process.
    fn id(&self) -> u64;
    /// The address of the other end.
    fn address(&self) -> SocketAddr;
    /// Queues encoded feed events; returns false when the connection is gone.
    fn push(&self, events: Bytes) -> bool;
    /// Closes the connection; the session attaches again and drops everything that it has cached.
    fn close(&self);
    /// Resolves when the connection is gone.
    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl FeedConnection for RpcPeer {
    fn id(&self) -> u64 {
        self.connection_id()
    }

    fn address(&self) -> SocketAddr {
        RpcPeer::address(self)
    }

    fn push(&self, events: Bytes) -> bool {
        self.notify(calls::FEED, vec![Value::Binary(events.to_vec())])
    }

    fn close(&self) {
        RpcPeer::close(self);
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(RpcPeer::closed(self))
    }
}

/// A session that has sent nothing for this long is silent: it may not have received its events.
const SILENT_AFTER: Duration = Duration::from_secs(10);

pub(super) struct SessionConnections {
    pub(super) connections: HashMap<u64, Arc<dyn FeedConnection>>,
    pub(super) last_request: Instant,
    /// The beginning of the time in which it was never silent.
    pub(super) heard_since: Instant,
    /// How far this node had applied the log when the session attached last, and the connection.
    pub(super) attached_at: u64,
    pub(super) attached_by: Option<u64>,
    /// The session holds all files that it has open and that lost their names up to this place in the log.
    pub(super) answered: u64,
    /// The operations and queries that were received.
    pub(super) requests: u64,
    /// The session had nothing open when it had sent exactly these requests.
    pub(super) nothing_open: Option<SessionRequests>,
    pub(super) report: Option<ClientReport>,
    /// Whether it remembers what it is told, as mounts do.
    pub(super) holds_leases: bool,
    /// It sees one folder only.
    pub(super) is_bound: bool,
}

/// What is known of a session beside the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionContact {
    /// The other ends of its connections.
    pub addresses: Vec<SocketAddr>,
    /// The time since its last message.
    pub silent: Duration,
    pub report: Option<ClientReport>,
    /// How many leases it holds.
    pub leases: usize,
    /// How many messages about them it has not acknowledged.
    pub recalls: usize,
}

impl SessionConnections {
    pub(super) fn new(now: Instant) -> Self {
        let connections = HashMap::new();
        Self {
            connections,
            last_request: now,
            heard_since: now,
            attached_at: 0,
            attached_by: None,
            answered: 0,
            requests: 0,
            nothing_open: None,
            report: None,
            holds_leases: false,
            is_bound: false,
        }
    }

    pub(super) fn renew(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_request) > SILENT_AFTER {
            self.heard_since = now;
        }
        self.last_request = now;
    }

    /// Whether the session had nothing open when it sent its last request in this term. One that may hold leases may
    /// have opened a file since, from memory.
    pub(super) fn had_nothing_open(&self, term: u64) -> bool {
        self.nothing_open == Some(SessionRequests { term, count: self.requests })
    }

    /// Whether the session has nothing open and is opening nothing, although it may be gone: without leases, the
    /// opening of a file takes a request.
    pub(super) fn has_nothing_open(&self, term: u64) -> bool {
        !self.holds_leases && self.had_nothing_open(term)
    }

    /// Whether the session could have answered for at least `time`.
    pub(super) fn heard_for(&self, time: Duration, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.last_request) > SILENT_AFTER;
        !silent && now.saturating_duration_since(self.heard_since) >= time
    }
}
