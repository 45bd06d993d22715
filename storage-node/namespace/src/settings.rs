//! The namespace's settings, and the configuration of openraft that follows from them.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

/// Raft requires a name for its cluster; all of ours have this one.
const CLUSTER: &str = "chordfs";
/// How many entries one message to a member carries at most; their bytes are limited too.
const APPEND_ENTRIES: u64 = 1024;
/// More entries than a log ever has.
const MAX_LAG: u64 = 1 << 40;
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
    /// How long a session may send nothing before the leader releases its holds and closes it, or suspends that of a
    /// mount.
    pub session_lease: Duration,
    /// How long the session of a mount may send nothing before the leader closes it.
    pub suspended_session: Duration,
    /// When the next snapshot is made.
    pub snapshots: SnapshotInterval,
    /// How many entries are kept after a snapshot, for followers that lag.
    pub keep_entries: u64,
    pub log_file_bytes: u64,
    /// Owner of a new namespace's root directory, if this node leads it.
    pub root_owner: RootOwner,
}

/// A snapshot is made when the log since the last one has grown to half of that one's size. So the disk writes at most
/// three bytes for each byte of the log however large the namespace is, where a fixed interval would write the whole
/// namespace again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInterval {
    /// A shorter log is replayed within about a second.
    pub least_log_bytes: u64,
    /// The log since the last snapshot is in memory, and is replayed at start.
    pub most_log_bytes: u64,
}

impl Default for SnapshotInterval {
    fn default() -> Self {
        Self { least_log_bytes: 16 << 20, most_log_bytes: 256 << 20 }
    }
}

impl SnapshotInterval {
    /// Returns after how many bytes of the log the next snapshot is made, given the size of the last one.
    pub(crate) fn log_bytes(&self, snapshot_bytes: u64) -> u64 {
        (snapshot_bytes / 2).clamp(self.least_log_bytes, self.most_log_bytes)
    }
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
            suspended_session: Duration::from_secs(15 * 60),
            snapshots: SnapshotInterval::default(),
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
        // `duties` makes them, by bytes.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: settings.keep_entries,
        // A member behind the kept entries needs the snapshot; one within them never does.
        replication_lag_threshold: MAX_LAG,
        purge_batch_size: settings.keep_entries.clamp(1, 256),
        enable_pre_vote: Some(true),
        // The tables are not durable by themselves, so a leader that restarts has to be elected again.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Snapshots used to be made after a number of operations, and filling a namespace wrote it thousands of times.
    #[test]
    fn filling_a_namespace_writes_a_few_times_its_size_in_snapshots() {
        let interval = SnapshotInterval { least_log_bytes: 1 << 20, most_log_bytes: u64::MAX };
        // A byte of the log adds about as much to the snapshot.
        let (mut size, mut written) = (0, 0);
        while size < 10 << 30 {
            size += interval.log_bytes(size);
            written += size;
        }
        assert!(written < 4 * size, "{written} bytes for {size}");
    }

    #[test]
    fn the_interval_has_a_floor_and_a_ceiling() {
        let interval = SnapshotInterval::default();
        assert_eq!([0, 64 << 20, 1 << 40].map(|bytes| interval.log_bytes(bytes) >> 20), [16, 32, 256]);
    }
}
