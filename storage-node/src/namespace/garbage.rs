//! Taking out the garbage, on the leader: contents of files without name and holder, then versions nobody references.
//!
//! Nothing is logged unless there is something to do; looking costs a query of the tables in memory.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use common::{
    chunk::ChunkRun,
    namespace::{Answer, Change, Query, Reply, Time},
};

use super::Inner;

/// Between a name's end and the end of the contents: another mount may have the file open and learns only now that it
/// should hold it. Between a version's end and its deletion: a reader may have learnt of it just before.
const GRACE_SECS: i64 = 10;
/// Done in one round at most; the next round follows at once.
const ROUND: u32 = 1024;

/// Deletes runs of chunks from all nodes of the ring. An error means: perhaps not everywhere, do it again later.
pub type Deleter = Arc<dyn Fn(Vec<ChunkRun>) -> DeleterFuture + Send + Sync>;
pub type DeleterFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One look round. True when there may be more to do at once.
pub(super) async fn collect(inner: &Inner, deleter: &Deleter, now: Time) -> bool {
    let before = Time { secs: now.secs - GRACE_SECS, nanos: now.nanos };
    let purged = purge_orphans(inner, before, now).await;
    let deleted = delete_dead(inner, deleter, before, now).await;
    purged.max(deleted) >= ROUND as usize
}

async fn purge_orphans(inner: &Inner, before: Time, now: Time) -> usize {
    let purge = Change::PurgeOrphans { before, limit: ROUND };
    // Tried on a copy first, which costs nothing, because a logged operation does.
    let attempt = common::namespace::NamespaceOp { origin: None, now, change: purge.clone() };
    match inner.state.tables().apply(0, &attempt).reply {
        Ok(Reply::Purged { count: 0 }) | Err(_) => return 0,
        Ok(_) => {}
    }
    match inner.propose(purge, now).await {
        Ok(Reply::Purged { count }) => count as usize,
        Ok(_) => 0,
        Err(reason) => {
            tracing::debug!(reason, "could not purge files without a name; trying again");
            0
        }
    }
}

async fn delete_dead(inner: &Inner, deleter: &Deleter, before: Time, now: Time) -> usize {
    let Ok(Answer::Dead(dead)) = inner.state.query(&Query::Dead { before, limit: ROUND }) else { return 0 };
    if dead.is_empty() {
        return 0;
    }
    let (ids, runs): (Vec<u64>, Vec<ChunkRun>) = dead.into_iter().unzip();
    let count = ids.len();
    if let Err(reason) = deleter(runs).await {
        tracing::warn!(reason, count, "could not delete dead chunks everywhere; trying again");
        return 0;
    }
    match inner.propose(Change::ForgetDead { ids }, now).await {
        Ok(_) => count,
        Err(reason) => {
            tracing::debug!(reason, "could not forget deleted chunks; they are deleted again");
            0
        }
    }
}

/// How often the leader looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
