//! Which files have chunks that their holders have acknowledged but may not have on disk. It outlives the files' being
//! open: a program may write and close, then open again and fsync.

use chordfs_net::clients::ChunkTransport;
use std::collections::HashMap;

use chordfs_types::{fs_error::FsError, namespace::Ino};
use parking_lot::Mutex;

use crate::cache::chunks::ChunkCache;

/// Beyond this many files they are no longer told apart.
const FILES: usize = 65_536;

#[derive(Default)]
pub(super) struct UnsyncedFiles {
    inner: Mutex<UnsyncedPuts>,
}

#[derive(Default)]
struct UnsyncedPuts {
    /// Number of the last put that was not durable.
    last: u64,
    by_file: HashMap<Ino, u64>,
    /// As if every file had this put.
    any_file: Option<u64>,
}

impl UnsyncedFiles {
    /// Chunks of `ino` have been put without `durable`.
    pub(super) fn note(&self, ino: Ino) {
        let mut puts = self.inner.lock();
        puts.last += 1;
        let last = puts.last;
        puts.by_file.insert(ino, last);
        if puts.by_file.len() > FILES {
            puts.by_file.clear();
            puts.any_file = Some(last);
        }
    }

    /// Returns when all that was noted of `ino` is on disk. Its holders may have lost chunks that the cache still has.
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
    struct Forgetful;

    impl ChunkTransport for Forgetful {
        fn put(&self, _: Vec<NewChunk>, _: Durability) -> BoxFuture<'_, Result<(), FsError>> {
            unreachable!("a sync puts nothing by this way")
        }

        fn get(&self, _: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
            unreachable!("a sync reads nothing")
        }

        fn sync<'a>(&'a self, kept: LocalCopies<'a>) -> BoxFuture<'a, Result<(), FsError>> {
            let found = kept(LOST).map(drop);
            Box::pin(async move { found.ok_or(FsError::NoReplica { detail: "it is nowhere".into() }) })
        }
    }

    #[tokio::test]
    async fn what_holders_have_lost_is_taken_from_the_cache() {
        let (unsynced, cache) = (UnsyncedFiles::default(), ChunkCache::new(1 << 20));
        unsynced.note(Ino(2));
        unsynced.sync(Ino(2), &Forgetful, &cache).await.expect_err("the cache is empty");
        cache.insert(LOST, Bytes::from_static(b"here"));
        unsynced.sync(Ino(2), &Forgetful, &cache).await.expect("the cache has it");
    }
}
