//! The namespace's settings, and the configuration of openraft that follows from them.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

/// Raft requires a name for its cluster; all of ours have this one.
const CLUSTER: &str = "chordfs";
/// How many entries one message to a member carries at most; their bytes are limited too.
const APPEND_ENTRIES: u64 = 1024;
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct NamespaceSettings {
    pub heartbeat: Duration,
    /// A follower that receives nothing waits for `election_timeout_max`, the leader's lease, and then for a random
    /// time between the two.
    pub election_timeout_min: Duration,
    pub election_timeout_max: Duration,
    /// How long a voter may be unresponsive before another node takes its place.
    pub member_timeout: Duration,
    /// How long a member may take to answer a message.
    pub message_deadline: Duration,
    /// How long an operation or a query may take before its sender has to send it again.
    pub call_deadline: Duration,
    /// How long a session may send nothing before the leader closes it and releases its holds.
    pub session_lease: Duration,
    /// A snapshot is made after this many log entries, or bytes of them; they are in memory until then.
    pub snapshot_after_entries: u64,
    pub snapshot_after_bytes: u64,
    /// How many entries are kept after a snapshot, for followers that lag.
    pub keep_entries: u64,
    pub log_file_bytes: u64,
    /// Owner of a new namespace's root directory, if this node leads it.
    pub root_owner: RootOwner,
}

/// Numbers of a user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootOwner {
    pub uid: u32,
    pub gid: u32,
}

impl Default for NamespaceSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_timeout_min: Duration::from_millis(700),
            election_timeout_max: Duration::from_millis(1300),
            member_timeout: Duration::from_secs(30),
            message_deadline: Duration::from_millis(1000),
            call_deadline: Duration::from_secs(10),
            session_lease: Duration::from_secs(60),
            snapshot_after_entries: 20_000,
            snapshot_after_bytes: 64 << 20,
            keep_entries: 2_000,
            log_file_bytes: 16 << 20,
            root_owner: RootOwner::default(),
        }
    }
}

/// The configuration of openraft, checked. An error explains which settings contradict each other.
pub(crate) fn raft_config(settings: &NamespaceSettings, enable_elect: bool) -> Result<Config, String> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = Config {
        cluster_name: CLUSTER.into(),
        enable_elect,
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election_timeout_min),
        election_timeout_max: millis(settings.election_timeout_max),
        install_snapshot_timeout: millis(SNAPSHOT_DEADLINE),
        max_payload_entries: APPEND_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_after_entries),
        max_in_snapshot_log_to_keep: settings.keep_entries,
        // A member behind the kept entries needs the snapshot; one within them never does.
        replication_lag_threshold: settings.snapshot_after_entries.saturating_mul(4),
        purge_batch_size: settings.keep_entries.clamp(1, 256),
        enable_pre_vote: Some(true),
        // The tables are not durable by themselves, so a leader that restarts has to be elected again.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}
