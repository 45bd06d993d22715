//! How the namespace's leader stores logged chunks on their holders: as a mount would.

use std::{sync::Arc, time::Duration};

use chordfs_namespace::{ChunkPlacer, ChunkToPlace};
use chordfs_net::chunk_client::{ChunkClient, NewChunk};
use chordfs_types::chunk_api::Durability;

use super::core::Core;

/// For one request, which has at most 2 MiB. A chunk that becomes garbage meanwhile is deleted from the nodes later
/// than this.
const PLACE_DEADLINE: Duration = Duration::from_secs(8);

/// Stores chunks on their holders' disks.
pub(super) fn placer(core: &Core) -> ChunkPlacer {
    let client = ChunkClient::new(core.router(), core.pool.clone(), PLACE_DEADLINE);
    Arc::new(move |chunks: Vec<ChunkToPlace>| {
        let client = client.clone();
        let chunks: Vec<NewChunk> =
            chunks.into_iter().map(|ChunkToPlace { file, id, data }| NewChunk { file, id, data }).collect();
        Box::pin(async move { client.put(chunks, Durability::Disk).await.map_err(|error| error.to_string()) })
    })
}
