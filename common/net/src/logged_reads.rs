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
    let absent = match timeout(ASK_AFTER, &mut stored).await {
        Ok(Err(error @ FsError::NoReplica { .. })) => Some(error),
        Ok(outcome) => return outcome,
        Err(_) => None,
    };
    let mut logged = logged_data(namespace, &chunks).await;
    if logged.is_empty() {
        return match absent {
            // They may have moved to their holders in between.
            Some(_) => nodes.get(chunks).await,
            None => stored.await,
        };
    }
    drop(stored);
    let rest: Vec<ChunkRef> = chunks.iter().filter(|chunk| !logged.contains_key(&chunk.id)).cloned().collect();
    if !rest.is_empty() {
        let ids: Vec<ChunkId> = rest.iter().map(|chunk| chunk.id).collect();
        logged.extend(ids.into_iter().zip(nodes.get(rest).await?));
    }
    let in_order = chunks.iter().map(|chunk| logged.get(&chunk.id).cloned());
    in_order
        .collect::<Option<_>>()
        .ok_or_else(|| FsError::Internal { detail: "a chunk is missing among those found".into() })
}

/// Those of the chunks that the namespace keeps; none if it does not answer.
async fn logged_data(namespace: &dyn NamespaceClient, chunks: &[ChunkRef]) -> HashMap<ChunkId, Bytes> {
    let mut found = HashMap::new();
    for page in chunks.chunks(PAGE_ITEMS as usize) {
        let ids = page.iter().map(|chunk| chunk.id).collect();
        match namespace.query_contents(Query::LoggedChunks { ids }).await {
            Ok(Answer::LoggedChunks(kept)) => found.extend(kept.into_iter().map(|LoggedChunk { id, data }| (id, data))),
            Ok(other) => tracing::debug!(?other, "the namespace answered LoggedChunks with something else"),
            Err(error) => tracing::debug!(%error, "cannot ask the namespace for chunks that it keeps"),
        }
    }
    found
}
