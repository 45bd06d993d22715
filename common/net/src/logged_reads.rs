//! Reading chunks that may not have reached their holders yet: some are kept in the namespace's log for a moment, see
//! `Change::CommitWithData`. The holders are asked first, since nearly all chunks are there; if they do not answer soon
//! or have not all chunks, the namespace is asked for what it keeps.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef},
    fs_error::FsError,
    namespace::{Answer, LoggedChunk, PAGE_ITEMS, Query},
};
use tokio::time::timeout;

use crate::clients::{ChunkTransport, NamespaceClient};

/// How long holders are waited for before the namespace is asked as well.
const ASK_AFTER: Duration = Duration::from_millis(50);

/// Returns the data of each chunk, in the order of `chunks`.
///
/// Errors: those of [`ChunkTransport::get`].
pub async fn get(
    nodes: &dyn ChunkTransport,
    namespace: &dyn NamespaceClient,
    chunks: Vec<ChunkRef>,
) -> Result<Vec<Bytes>, FsError> {
    let mut stored = nodes.get(chunks.clone());
    let outcome = timeout(ASK_AFTER, &mut stored).await;
    match outcome {
        Ok(Err(FsError::NoReplica { .. })) | Err(_) => {}
        Ok(outcome) => return outcome,
    }
    let mut found = logged_data(namespace, &chunks).await;
    if found.is_empty() && outcome.is_err() {
        return stored.await;
    }
    drop(stored);
    // Those that the log does not keep are stored. Some may have moved to their holders in between.
    let rest: Vec<ChunkRef> = chunks.iter().filter(|chunk| !found.contains_key(&chunk.id)).cloned().collect();
    if !rest.is_empty() {
        let ids: Vec<ChunkId> = rest.iter().map(|chunk| chunk.id).collect();
        found.extend(ids.into_iter().zip(nodes.get(rest).await?));
    }
    let in_order = chunks.iter().map(|chunk| found.get(&chunk.id).cloned());
    in_order
        .collect::<Option<_>>()
        .ok_or_else(|| FsError::Internal { detail: "a chunk is missing among those found".into() })
}

/// Those of the chunks that the namespace keeps; none if it does not answer.
async fn logged_data(namespace: &dyn NamespaceClient, chunks: &[ChunkRef]) -> HashMap<ChunkId, Bytes> {
    let mut found = HashMap::new();
    for page in chunks.chunks(PAGE_ITEMS as usize) {
        let mut ids: Vec<ChunkId> = page.iter().map(|chunk| chunk.id).collect();
        while !ids.is_empty() {
            let kept = match namespace.query_contents(Query::LoggedChunks { ids: ids.clone() }).await {
                Ok(Answer::LoggedChunks(kept)) => kept,
                Ok(other) => {
                    tracing::debug!(?other, "the namespace answered LoggedChunks with something else");
                    return found;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot ask the namespace for chunks that it keeps");
                    return found;
                }
            };
            // An answer holds as many as fit, in the order of the query.
            let Some(last) = kept.last().map(|chunk| chunk.id) else { break };
            let at = ids.iter().position(|id| *id == last).map_or(ids.len(), |at| at + 1);
            ids.drain(..at);
            found.extend(kept.into_iter().map(|LoggedChunk { id, data }| (id, data)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use chordfs_types::{
        chunk::{FileName, Version},
        chunk_api::Durability,
        namespace::{Change, Reply},
    };
    use tokio::time::sleep;

    use super::*;
    use crate::{
        chunk_client::{LocalChunks, NewChunk},
        clients::FsResult,
    };

    /// Chunks 1 to 9 are stored, 10 to 19 are in the log, of which an answer holds two, and there are no others.
    struct Ring {
        slowness: Duration,
        queries: AtomicUsize,
    }

    impl ChunkTransport for Ring {
        fn put(&self, _: Vec<NewChunk>, _: Durability) -> FsResult<'_, ()> {
            unreachable!("this test reads")
        }

        fn get(&self, chunks: Vec<ChunkRef>) -> FsResult<'_, Vec<Bytes>> {
            Box::pin(async move {
                sleep(self.slowness).await;
                let stored = |chunk: &ChunkRef| (chunk.id.index < 10).then(|| data(chunk.id));
                let found = chunks.iter().map(stored).collect::<Option<_>>();
                found.ok_or_else(|| FsError::NoReplica { detail: "none has it".into() })
            })
        }

        fn sync<'a>(&'a self, _: &'a FileName, _: &'a dyn LocalChunks) -> FsResult<'a, ()> {
            unreachable!("this test reads")
        }
    }

    impl NamespaceClient for Ring {
        fn apply(&self, _: Change) -> FsResult<'_, Reply> {
            unreachable!("this test reads")
        }

        fn query(&self, query: Query) -> FsResult<'_, Answer> {
            self.queries.fetch_add(1, SeqCst);
            let Query::LoggedChunks { ids } = query else { unreachable!("{query:?}") };
            let kept = ids.into_iter().filter(|id| (10..20).contains(&id.index)).take(2);
            let kept = kept.map(|id| LoggedChunk { id, data: data(id) }).collect();
            Box::pin(async move { Ok(Answer::LoggedChunks(kept)) })
        }

        fn next_version(&self) -> FsResult<'_, Version> {
            unreachable!("this test reads")
        }
    }

    fn data(id: ChunkId) -> Bytes {
        Bytes::from(id.index.to_string())
    }

    async fn read(slowness: Duration, indexes: &[u32]) -> (Result<Vec<Bytes>, FsError>, usize) {
        let ring = Ring { slowness, queries: AtomicUsize::new(0) };
        let id = |index: &u32| ChunkId { version: Version(7), index: *index };
        let chunks = indexes.iter().map(|index| ChunkRef { file: FileName::new("f").unwrap(), id: id(index) });
        let found = get(&ring, &ring, chunks.collect()).await;
        let expected: Vec<Bytes> = indexes.iter().map(|index| data(id(index))).collect();
        assert!(found.as_ref().map_or(true, |found| *found == expected), "{found:?}");
        (found, ring.queries.load(SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn the_namespace_is_asked_for_what_the_nodes_do_not_have_or_do_not_send_soon() {
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(2));
        for slowness in [quick, slow] {
            assert!(read(slowness, &[12, 3, 10, 11, 15, 9]).await.0.is_ok());
            assert!(read(slowness, &[12, 25]).await.0.is_err());
        }
        let (stored, queries) = read(quick, &[4, 5]).await;
        assert!(stored.is_ok() && queries == 0);
        let (stored, queries) = read(slow, &[4, 5]).await;
        assert!(stored.is_ok() && queries == 1);
    }
}
