//! Bringing to disk what was stored without waiting for disks: `fsync` on a file whose chunks have left long ago.

use std::collections::HashSet;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tracing::debug;

use super::{ChunkClient, Rounds, TRY_DEADLINE};
use crate::{
    chunk_api::write_quorum,
    fs_error::FsError,
    ring_id::{NodeRef, RingId},
    router::Route,
};

/// Holders that were given chunks, and a key by which to find who holds them today.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct HolderSet {
    key: RingId,
    holders: Vec<NodeRef>,
}

/// What was stored since the last sync. A sync takes it all and then works for everybody, so syncs take turns: one that
/// found nothing while another was at work would answer too early.
#[derive(Default)]
pub struct Unsynced {
    sets: Mutex<HashSet<HolderSet>>,
    turn: tokio::sync::Mutex<()>,
}

impl Unsynced {
    pub fn note(&self, route: &Route) {
        self.sets.lock().insert(HolderSet { key: route.arc.upto, holders: route.holders.clone() });
    }
}

impl ChunkClient {
    /// Everything put before through this client is on the disks of its holders when this returns.
    pub async fn sync(&self) -> Result<(), FsError> {
        let _turn = self.unsynced.turn.lock().await;
        let sets = std::mem::take(&mut *self.unsynced.sets.lock());
        let result = self.sync_sets(&sets).await;
        if result.is_err() {
            self.unsynced.sets.lock().extend(sets);
        }
        result
    }

    /// A holder that does not answer does not count, as long as its set keeps a quorum.
    async fn sync_sets(&self, sets: &HashSet<HolderSet>) -> Result<(), FsError> {
        let mut synced = HashSet::new();
        let mut rounds = Rounds::new(self.deadline);
        loop {
            let open = sets.iter().flat_map(|set| &set.holders).copied();
            self.sync_nodes(open.collect(), &mut synced).await;
            let mut short = Vec::new();
            for set in sets.iter().filter(|set| !is_enough(&set.holders, &synced)).cloned().collect::<Vec<_>>() {
                if !self.sync_heirs(&set, &mut synced).await {
                    short.push(set);
                }
            }
            let Some(set) = short.first() else { return Ok(()) };
            rounds.pause(|| format!("too few of {:?} brought their chunks to disk", set.holders)).await?;
        }
    }

    /// Where most of a set is gone, repair has brought its chunks to others from one that is left; these must have them
    /// on disk.
    async fn sync_heirs(&self, set: &HolderSet, synced: &mut HashSet<NodeRef>) -> bool {
        self.router.forget_all();
        let Ok(route) = self.router.route(set.key).await else { return false };
        self.sync_nodes(route.holders.iter().copied().collect(), synced).await;
        set.holders.iter().any(|node| synced.contains(node)) && is_enough(&route.holders, synced)
    }

    async fn sync_nodes(&self, nodes: HashSet<NodeRef>, synced: &mut HashSet<NodeRef>) {
        let asked = nodes.difference(synced).map(|&node| async move {
            let answer = self.pool.post(node.files_address(), "/chunks/sync", vec![], 2 * TRY_DEADLINE).await;
            match answer {
                Ok(answer) if answer.status.is_success() => return Some(node),
                Ok(answer) => debug!(%node, status = %answer.status, reason = answer.text(), "sync refused"),
                Err(error) => debug!(%node, %error, "sync failed"),
            }
            None
        });
        let done = join_all(asked).await;
        synced.extend(done.into_iter().flatten());
    }
}

fn is_enough(holders: &[NodeRef], synced: &HashSet<NodeRef>) -> bool {
    holders.iter().filter(|node| synced.contains(node)).count() >= write_quorum(holders.len())
}
