//! How the namespace's garbage collection deletes chunks: on every storage node of the ring.

use std::sync::Arc;

use chordfs_namespace::Deleter;
use chordfs_types::chunk::ChunkRun;
use futures_util::future::join_all;

use crate::{driver::RingHandle, replica::peer::Peers};

/// Deletes dead versions on every node of the ring; the error names all that did not.
pub(super) fn deleter(ring: RingHandle, peers: Peers) -> Deleter {
    Arc::new(move |runs: Vec<ChunkRun>| {
        let (ring, peers) = (ring.clone(), peers.clone());
        Box::pin(async move {
            let members = ring.storage_members().await.map_err(|error| error.to_string())?;
            let deleted = join_all(members.iter().map(|node| peers.delete(node, &runs))).await;
            let failed: Vec<String> =
                deleted.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
            if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
        })
    })
}
