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
    /// If it sends nothing for this long, it loses the files without a name that it holds open, and a node its session;
    /// a message renews it.
    pub lease_seconds_left: u64,
    /// Files without a name that it holds open.
    pub held_files: u64,
    /// Bytes that it has not stored yet; `None` from a node, and from a mount that has not reported them.
    #[serde(default)]
    pub dirty_bytes: Option<u64>,
    /// Files and directories that programs have open there.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Whether it may hold leases, as mounts do.
    #[serde(default)]
    pub is_mount: bool,
    /// It was silent for so long that it holds nothing any longer. It may come back until its session is closed.
    #[serde(default)]
    pub is_suspended: bool,
    /// Directories and inodes of which it may answer from memory.
    #[serde(default)]
    pub leases: u64,
    /// Messages about its leases that it has not acknowledged. Others wait for it until it has, or until its leases
    /// have run out.
    #[serde(default)]
    pub recalls: u64,
    /// Changes that programs there were told of and that are not logged; `None` like `dirty_bytes`.
    #[serde(default)]
    pub unlogged_changes: Option<u64>,
    /// The age of the first of them when it was reported, in milliseconds.
    #[serde(default)]
    pub oldest_unlogged_millis: Option<u64>,
}

impl SessionStatus {
    /// The changes that are not logged, and the age of the first: `57, 0.4 s`. `None` if it has not reported them.
    pub fn unlogged_text(&self) -> Option<String> {
        let (count, millis) = (self.unlogged_changes?, self.oldest_unlogged_millis.unwrap_or_default());
        Some(if count == 0 { "0".into() } else { format!("{count}, {:.1} s", millis as f64 / 1000.0) })
    }
}
