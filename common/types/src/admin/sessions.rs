//! The sessions of mounts and nodes with the namespace, as its leader knows them: `GET /sessions`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Never given out twice.
    pub id: u64,
    /// How the client describes itself: the host and the mount point, or the node.
    pub client: String,
    /// The clients' ends of its connections; empty while it is not connected.
    pub addresses: Vec<SocketAddr>,
    /// Since its last message.
    pub silent_seconds: u64,
    /// The session is closed if it sends nothing for this long; a message renews it.
    pub lease_seconds_left: u64,
    /// Files without a name that it holds open.
    pub held_files: u64,
    /// Bytes that it has not stored yet; `None` from a node, and from a mount that has not reported them.
    #[serde(default)]
    pub dirty_bytes: Option<u64>,
    /// Files and directories that programs have open there.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Directories and inodes of which it may answer from memory.
    #[serde(default)]
    pub leases: u64,
}
