//! How the namespace's garbage collection deletes chunks: on the storage nodes of the ring.

use std::sync::Arc;

use chordfs_namespace::{Deleter, DeletionTargets, FailedDeletion};
use chordfs_types::{chunk::ChunkRun, ring_id::NodeRef};
use futures_util::future::join_all;

use crate::{
    driver::RingHandle,
    replica::peer::{PeerError, Peers},
};

/// Deletes dead versions on the targets, all at the same time; each is given the deadline of `peers`.
pub(super) fn deleter(ring: RingHandle, peers: Peers) -> Deleter {
    Arc::new(move |runs: Vec<ChunkRun>, targets: DeletionTargets| {
        let (ring, peers) = (ring.clone(), peers.clone());
        Box::pin(async move {
            let members = ring.storage_members().await.map_err(|error| error.to_string())?;
            let targets: Vec<NodeRef> = members.into_iter().filter(|node| targets.contain(node)).collect();
            let deleted = join_all(targets.iter().map(|node| peers.delete(node, &runs))).await;
            let failed = |(node, deleted): (&NodeRef, Result<_, PeerError>)| {
                let error = deleted.err()?;
                Some(FailedDeletion { node: *node, reason: error.to_string() })
            };
            Ok(targets.iter().zip(deleted).filter_map(failed).collect())
        })
    })
}
