//! Versions of clones: no chunk is stored under them, so a reader asks the namespace once what they stand for.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use chordfs_types::{
    chunk::{ChunkId, ChunkRef, Version},
    fs_error::FsError,
    namespace::{ClonedRun, PAGE_ITEMS},
};
use lru::LruCache;
use parking_lot::Mutex;

use super::ChunkReferences;

/// Each takes about 150 bytes.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(1 << 15).expect("it is not 0");

/// The clones that a reader has met.
pub(super) struct KnownClones(Mutex<LruCache<Version, Arc<ClonedRun>>>);

impl Default for KnownClones {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_KNOWN)))
    }
}

impl KnownClones {
    /// The chunks as they are stored, in their order.
    ///
    /// Errors: `NoReplica` if a clone is gone, as for any chunk that no file has any more.
    pub(super) async fn resolve(
        &self,
        chunks: &[ChunkRef],
        namespace: Option<&Arc<dyn ChunkReferences>>,
    ) -> Result<Vec<ChunkRef>, FsError> {
        let clones: HashSet<Version> =
            chunks.iter().map(|chunk| chunk.id.version).filter(|version| version.is_clone()).collect();
        let (mut known, unknown) = self.split_known(clones);
        for page in unknown.chunks(PAGE_ITEMS as usize) {
            let Some(namespace) = namespace else { break };
            let described = namespace.clones(page.to_vec()).await.map_err(|error| match error {
                // The file that had it has lost it, and the caller reaches no other one.
                FsError::NotPermitted { reason } => FsError::NoReplica { detail: reason },
                other => other,
            })?;
            let described = described.into_iter().map(|clone| (clone.version, Arc::new(clone)));
            let mut remembered = self.0.lock();
            known.extend(described.inspect(|(version, clone)| drop(remembered.put(*version, clone.clone()))));
        }
        let stored = |chunk: &ChunkRef| {
            let ChunkId { version, index } = chunk.id;
            if !version.is_clone() {
                return Ok(chunk.clone());
            }
            let detail = || format!("chunk {index} of {} was a clone, which is gone", chunk.file);
            let stored = known.get(&version).and_then(|clone| clone.stored_chunk(index));
            stored.ok_or_else(|| FsError::NoReplica { detail: detail() })
        };
        chunks.iter().map(stored).collect()
    }

    fn split_known(&self, clones: HashSet<Version>) -> (HashMap<Version, Arc<ClonedRun>>, Vec<Version>) {
        let (mut remembered, mut known, mut unknown) = (self.0.lock(), HashMap::new(), Vec::new());
        for version in clones {
            match remembered.get(&version) {
                Some(clone) => drop(known.insert(version, clone.clone())),
                None => unknown.push(version),
            }
        }
        (known, unknown)
    }
}
