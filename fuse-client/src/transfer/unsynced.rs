//! The files with chunks that their holders have acknowledged but may not have on disk yet. This outlives the handles:
//! a program may write and close, then open again and fsync.

use chordfs_net::clients::ChunkTransport;
use std::collections::HashMap;

use chordfs_types::{fs_error::FsError, namespace::Ino};
use parking_lot::Mutex;

use crate::cache::chunks::ChunkCache;

/// Beyond this many files, each file counts as unsynced.
const MAX_FILES: usize = 65_536;

#[derive(Default)]
pub(super) struct UnsyncedFiles {
    inner: Mutex<UnsyncedPuts>,
}

#[derive(Default)]
struct UnsyncedPuts {
    /// The number of the last put that was not durable.
    last: u64,
    by_file: HashMap<Ino, u64>,
    /// If set, this put counts for every file.
    any_file: Option<u64>,
}

impl UnsyncedFiles {
    /// Notes that chunks of `ino` were put in memory only.
    pub(super) fn note_put(&self, ino: Ino) {
        let mut puts = self.inner.lock();
        puts.last += 1;
        let last = puts.last;
        puts.by_file.insert(ino, last);
        if puts.by_file.len() > MAX_FILES {
            puts.by_file.clear();
            puts.any_file = Some(last);
        }
    }

    /// Returns when all noted puts of `ino` are on disk. Chunks that their holders have lost are taken from the cache.
    pub(super) async fn sync(&self, ino: Ino, chunks: &dyn ChunkTransport, cache: &ChunkCache) -> Result<(), FsError> {
        let upto = {
            let puts = self.inner.lock();
            if puts.any_file.is_none() && !puts.by_file.contains_key(&ino) {
                return Ok(());
            }
            puts.last
        };
        chunks.sync(&|id| cache.get(id)).await?;
        let mut puts = self.inner.lock();
        puts.by_file.retain(|_, put| *put > upto);
        puts.any_file = puts.any_file.filter(|put| *put > upto);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chordfs_net::chunk_client::{LocalCopies, NewChunk};
    use chordfs_types::chunk::{ChunkId, ChunkRef, Version};
    use futures_util::future::BoxFuture;

    use super::*;
    use chordfs_types::chunk_api::Durability;

    const LOST: ChunkId = ChunkId { version: Version(1), index: 1 };

    /// Holders that have lost a chunk, and need it from the writer to sync.
    struct ForgetfulHolders;

    impl ChunkTransport for ForgetfulHolders {
        fn put(&self, _: Vec<NewChunk>, _: Durability) -> BoxFuture<'_, Result<(), FsError>> {
            unreachable!("a sync does not call put")
        }

        fn get(&self, _: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
            unreachable!("a sync does not call get")
        }

        fn sync<'a>(&'a self, local_copies: LocalCopies<'a>) -> BoxFuture<'a, Result<(), FsError>> {
            let found = local_copies(LOST).map(drop);
            Box::pin(async move { found.ok_or(FsError::NoReplica { detail: "no node has the chunk".into() }) })
        }
    }

    #[tokio::test]
    async fn a_chunk_that_its_holders_have_lost_is_taken_from_the_cache() {
        let (unsynced, cache) = (UnsyncedFiles::default(), ChunkCache::new(1 << 20));
        unsynced.note_put(Ino(2));
        unsynced.sync(Ino(2), &ForgetfulHolders, &cache).await.expect_err("the cache is empty");
        cache.insert(LOST, Bytes::from_static(b"here"));
        unsynced.sync(Ino(2), &ForgetfulHolders, &cache).await.expect("the cache has it");
    }
}
