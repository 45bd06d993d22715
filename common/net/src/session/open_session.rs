//! One session of the namespace: its id, its operations under way, and the versions allocated to it. A mount whose
//! session has expired continues with a new one.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use chordfs_types::{
    chunk::Version,
    namespace::{OpId, SessionId, VersionBlock},
};
use parking_lot::Mutex;

/// Versions in one allocation.
pub(super) const BLOCK_VERSIONS: u32 = 1024;
/// The next block is fetched when fewer versions are left.
const LOW_VERSIONS: u64 = BLOCK_VERSIONS as u64 / 2;

pub(super) struct OpenSession {
    pub id: SessionId,
    sequences: Mutex<Sequences>,
    versions: Mutex<Versions>,
}

#[derive(Default)]
struct Sequences {
    last: u64,
    under_way: BTreeSet<u64>,
}

#[derive(Default)]
struct Versions {
    blocks: VecDeque<VersionBlock>,
    fetching: bool,
}

/// An operation under way. Its sequence number counts as answered when this is dropped: the caller has the reply, or
/// has given up and will not send the operation again.
pub(super) struct PendingOperation {
    pub session: Arc<OpenSession>,
    pub op: OpId,
}

impl Drop for PendingOperation {
    fn drop(&mut self) {
        self.session.sequences.lock().under_way.remove(&self.op.sequence);
    }
}

pub(super) struct AllocatedVersion {
    pub version: Version,
    /// Whether this caller has to fetch a block and call `refill`.
    pub fetch: bool,
}

impl OpenSession {
    pub(super) fn new(id: SessionId, versions: VersionBlock) -> Self {
        let versions = Versions { blocks: [versions].into(), fetching: false };
        Self { id, sequences: Mutex::default(), versions: Mutex::new(versions) }
    }

    pub(super) fn begin(self: &Arc<Self>) -> PendingOperation {
        let mut sequences = self.sequences.lock();
        sequences.last += 1;
        let sequence = sequences.last;
        sequences.under_way.insert(sequence);
        let answered_below = *sequences.under_way.first().expect("one was just inserted");
        let op = OpId { session: self.id, sequence, answered_below };
        PendingOperation { session: self.clone(), op }
    }

    /// Returns `None` if no version is left.
    pub(super) fn take_version(&self) -> Option<AllocatedVersion> {
        let mut versions = self.versions.lock();
        let version = versions.take()?;
        let fetch = !versions.fetching && versions.left() < LOW_VERSIONS;
        versions.fetching |= fetch;
        Some(AllocatedVersion { version, fetch })
    }

    /// Ends a fetch that `take_version` requested. `None` means that the fetch failed.
    pub(super) fn refill(&self, block: Option<VersionBlock>) {
        let mut versions = self.versions.lock();
        versions.fetching = false;
        versions.blocks.extend(block);
    }

    /// Adds a block that was fetched because no version was left.
    pub(super) fn add_versions(&self, block: VersionBlock) {
        self.versions.lock().blocks.push_back(block);
    }
}

impl Versions {
    fn take(&mut self) -> Option<Version> {
        while let Some(block) = self.blocks.front_mut() {
            if block.count > 0 {
                let version = block.first;
                *block = VersionBlock { first: Version(version.0 + 1), count: block.count - 1 };
                return Some(version);
            }
            self.blocks.pop_front();
        }
        None
    }

    fn left(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_session(versions: u32) -> Arc<OpenSession> {
        Arc::new(OpenSession::new(SessionId(9), VersionBlock { first: Version(100), count: versions }))
    }

    #[test]
    fn answered_below_is_the_oldest_operation_under_way() {
        let session = open_session(0);
        let (first, second) = (session.begin(), session.begin());
        assert_eq!(second.op, OpId { session: SessionId(9), sequence: 2, answered_below: 1 });
        drop(second);
        assert_eq!(session.begin().op.answered_below, 1);
        drop(first);
        assert_eq!(session.begin().op, OpId { session: SessionId(9), sequence: 4, answered_below: 4 });
    }

    #[test]
    fn each_version_is_allocated_once_and_one_caller_refills() {
        let session = open_session(BLOCK_VERSIONS);
        let mut taken = Vec::new();
        let mut fetches = 0;
        while let Some(AllocatedVersion { version, fetch }) = session.take_version() {
            taken.push(version.0);
            fetches += u32::from(fetch);
        }
        assert_eq!(taken, (100..100 + u64::from(BLOCK_VERSIONS)).collect::<Vec<_>>());
        assert_eq!(fetches, 1);
        session.refill(Some(VersionBlock { first: Version(7), count: 1 }));
        let taken = session.take_version().unwrap();
        assert_eq!((taken.version, taken.fetch), (Version(7), true));
        session.refill(None);
        assert!(session.take_version().is_none());
        session.add_versions(VersionBlock { first: Version(8), count: 1 });
        assert!(session.take_version().is_some_and(|taken| taken.fetch), "a failed fetch is tried again");
    }
}
