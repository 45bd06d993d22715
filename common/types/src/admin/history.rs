//! The last half hour of a node at one point a minute: `GET /history`, and of all nodes: `GET /ring/history`.
//!
//! Counts are those of the minute, not totals; sizes are as of the end of the minute. A minute that a node did not
//! watch has no point: a gap, which is not the same as zero.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The points of one node at most, and the minutes that a chart shows.
pub const HISTORY_POINTS: usize = 30;

/// What one node has recorded since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeHistory {
    /// The length of a minute, for tests: everybody else has 60.
    pub period_seconds: u64,
    /// Ascending by time, at most [`HISTORY_POINTS`].
    pub points: Vec<HistoryPoint>,
}

/// The histories of all nodes of a ring, as one node gathered them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingHistory {
    /// Ring address of the node that gathered this.
    pub asked: SocketAddr,
    /// The gathering node's clock, in seconds since 1970.
    pub time: u64,
    /// See [`NodeHistory::period_seconds`].
    pub period_seconds: u64,
    /// In the order of [`RingStatus::nodes`](super::RingStatus::nodes); nodes that have left come last.
    pub nodes: Vec<RingNodeHistory>,
}

/// One node of a [`RingHistory`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingNodeHistory {
    /// Ring address.
    pub address: SocketAddr,
    /// Whether the points are complete.
    pub source: HistorySource,
    /// As in [`NodeHistory::points`].
    pub points: Vec<HistoryPoint>,
}

/// Where the points of a node come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistorySource {
    /// The node itself.
    Answered,
    /// The node is in the ring and did not answer; the points are those that it sent before, if any.
    Unresponsive,
    /// The node is no longer in the ring; the points are those that it sent before.
    Left,
}

/// One minute of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryPoint {
    /// The beginning of the minute by the node's clock, in seconds since 1970: a multiple of the period.
    pub time: u64,
    /// How long the node watched, by a clock that never jumps: divide counts by it.
    pub seconds: f64,
    /// Storage nodes in the ring, as the node saw it; `None` while it could not walk around the ring.
    pub nodes: Option<u32>,
    /// The cache of chunks.
    pub cache: CacheMinute,
    /// HTTP requests that were answered on 5058, those of other nodes included.
    pub requests: u64,
    /// Bytes of records that this node sent to readers. Copies for other nodes do not count.
    pub read_bytes: u64,
    /// Bytes of records that writers sent to this node as the owner. Copies from other nodes do not count.
    pub written_bytes: u64,
    /// The disk.
    pub disk: DiskMinute,
    /// Copies that other holders lack and this node has to send.
    pub repair: BacklogMinute,
    /// Copies that this node lacks.
    pub filling: BacklogMinute,
    /// Batches of chunks that were read from this node, until the first byte of the answer.
    pub reads: LatencySummary,
    /// Batches of chunks that this node stored as the owner, until two holders had them.
    pub writes: LatencySummary,
    /// Operations and queries that this node carried out as the leader of the namespace.
    pub names: LatencySummary,
    /// Appends to the log of the namespace, until they were on the disk; `None` where the node has no vote.
    pub log: Option<LatencySummary>,
}

/// [`CacheStatus`](super::CacheStatus) of a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheMinute {
    /// In this minute.
    pub hits: u64,
    /// In this minute.
    pub misses: u64,
    /// At its end.
    pub items: u64,
    /// At its end.
    pub bytes: u64,
    /// At its end.
    pub capacity_bytes: u64,
}

/// [`StoreStatus`](super::StoreStatus) at the end of a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskMinute {
    /// The capacity without what is free.
    pub used_bytes: u64,
    /// See [`StoreStatus::capacity_bytes`](super::StoreStatus::capacity_bytes).
    pub capacity_bytes: u64,
}

/// Copies that are still to be made at the end of a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BacklogMinute {
    /// Estimated until the arcs have been compared.
    pub chunks_left: u64,
    /// Bytes of these copies.
    pub bytes_left: u64,
}

/// How long the operations of a minute took, within about six per cent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencySummary {
    /// How many there were.
    pub count: u64,
    /// Microseconds that half of them did not exceed; `None` without any.
    pub p50_us: Option<u64>,
    /// Microseconds that 99 of 100 did not exceed; `None` without any.
    pub p99_us: Option<u64>,
    /// All of them, so that those of several nodes can be put together: `[microseconds, count]`, ascending.
    pub buckets: Vec<(u64, u64)>,
}
