//! A session with the namespace: finds the leader, sends each operation until it is answered, always under the same
//! sequence number, and receives the change feed. Used by mounts, and by nodes acting for scripts and browsers.

use std::{net::SocketAddr, time::Duration};

use tokio::sync::mpsc;

use crate::{
    chunk::Version,
    fs_error::FsError,
    namespace::{Answer, Change, FeedEvent, Query, Reply, SessionId},
};

#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Ring addresses of any nodes.
    pub nodes: Vec<SocketAddr>,
    /// Shown to operators: "host:/mount/point".
    pub client: String,
    /// After this long without an answer an operation fails with `NoQuorum`.
    pub deadline: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    Feed(Vec<FeedEvent>),
    /// The feed was interrupted: whatever is cached about the namespace may be stale.
    Reset,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Session {}

impl Session {
    pub async fn open(_options: SessionOptions) -> Result<(Self, mpsc::UnboundedReceiver<SessionEvent>), FsError> {
        unimplemented!()
    }

    pub fn id(&self) -> SessionId {
        unimplemented!()
    }

    /// Applied exactly once, whatever happens to connections and leaders meanwhile.
    pub async fn apply(&self, _change: Change) -> Result<Reply, FsError> {
        unimplemented!()
    }

    pub async fn query(&self, _query: Query) -> Result<Answer, FsError> {
        unimplemented!()
    }

    /// A version for one run of chunks of one file; from a block fetched ahead, so usually without a round trip.
    pub async fn next_version(&self) -> Result<Version, FsError> {
        unimplemented!()
    }

    /// Grows with every feed event or reset, before the answers that follow it are delivered. An answer may be cached
    /// only if this did not change between asking and storing.
    pub fn feed_epoch(&self) -> u64 {
        unimplemented!()
    }

    /// Ends the session at the namespace.
    pub async fn close(&self) -> Result<(), FsError> {
        unimplemented!()
    }
}
