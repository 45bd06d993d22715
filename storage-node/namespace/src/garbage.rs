//! Taking out the garbage, on the leader: contents of files without name and holder, then versions nobody references.
//!
//! A node that cannot delete (it is sick, or away for long) must not hold up the others for ever: after some tries its
//! copies are left to it. They take space there and do no harm, because a version never comes back.
//!
//! Nothing is logged unless there is something to do; looking costs a query of the tables in memory.

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use chordfs_types::{
    chunk::ChunkRun,
    namespace::{Answer, Change, Query, Reply, Time},
};

use super::Inner;

/// Between a name's end and the end of the contents: another mount may have the file open and learns only now that it
/// should hold it. Between a version's end and its deletion: a reader may have learnt of it just before.
const GRACE_SECS: i64 = 10;
/// Done in one round at most; the next round follows at once.
const ROUND: u32 = 1024;
/// How often the same runs are tried before they are forgotten all the same.
const TRIES: u32 = 10;

/// Deletes runs of chunks from all nodes of the ring. An error means: perhaps not everywhere, do it again later; it names
/// the nodes.
pub type Deleter = Arc<dyn Fn(Vec<ChunkRun>) -> DeleterFuture + Send + Sync>;
pub type DeleterFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What could not be deleted everywhere, and how often it was tried.
#[derive(Default)]
pub(super) struct Tried {
    ids: BTreeSet<u64>,
    times: u32,
}

impl Tried {
    /// What was tried before comes first, and alone.
    fn narrow(&mut self, dead: &mut Vec<(u64, ChunkRun)>) {
        match dead.iter().any(|(id, _)| self.ids.contains(id)) {
            true => dead.retain(|(id, _)| self.ids.contains(id)),
            false => *self = Self::default(),
        }
    }

    /// Counts a failure. True when it was the last.
    fn give_up(&mut self, ids: &[u64]) -> bool {
        self.ids = ids.iter().copied().collect();
        self.times += 1;
        self.times >= TRIES
    }
}

/// One look round. True when there may be more to do at once.
pub(super) async fn collect(inner: &Inner, deleter: &Deleter, tried: &mut Tried, now: Time) -> bool {
    let before = Time { secs: now.secs - GRACE_SECS, nanos: now.nanos };
    let purged = purge_orphans(inner, before, now).await;
    let deleted = delete_dead(inner, deleter, tried, before, now).await;
    purged.max(deleted) >= ROUND as usize
}

async fn purge_orphans(inner: &Inner, before: Time, now: Time) -> usize {
    if !inner.state.tables().has_purgeable(before) {
        return 0;
    }
    match inner.propose(Change::PurgeOrphans { before, limit: ROUND }, now).await {
        Ok(Reply::Purged { count }) => count as usize,
        Ok(_) => 0,
        Err(reason) => {
            tracing::debug!(reason, "could not purge files without a name; trying again");
            0
        }
    }
}

async fn delete_dead(inner: &Inner, deleter: &Deleter, tried: &mut Tried, before: Time, now: Time) -> usize {
    let Ok(Answer::Dead(mut dead)) = inner.state.query(&Query::Dead { before, limit: ROUND }) else { return 0 };
    if dead.is_empty() {
        return 0;
    }
    tried.narrow(&mut dead);
    let (ids, runs): (Vec<u64>, Vec<ChunkRun>) = dead.into_iter().unzip();
    let count = ids.len();
    if let Err(reason) = deleter(runs).await {
        if !tried.give_up(&ids) {
            tracing::debug!(reason, count, "could not delete dead chunks everywhere; trying again");
            return 0;
        }
        tracing::warn!(
            reason,
            count,
            tries = TRIES,
            "not all nodes delete dead chunks; what they have is left to them"
        );
    }
    *tried = Tried::default();
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

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::{FileName, Version};

    use super::*;

    fn dead(ids: std::ops::Range<u64>) -> Vec<(u64, ChunkRun)> {
        let run = |id| ChunkRun { file: FileName::new("f").unwrap(), first: 1, count: 1, version: Version(id) };
        ids.map(|id| (id, run(id))).collect()
    }

    /// One sick node used to stop all deletion, for as long as it was in the ring.
    #[test]
    fn the_same_runs_are_given_up_after_some_tries() {
        let mut tried = Tried::default();
        for time in 1..=TRIES {
            // More dies meanwhile; it waits, and so does not put the end off.
            let mut page = dead(1..3 + u64::from(time));
            tried.narrow(&mut page);
            let ids: Vec<u64> = page.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, [1, 2, 3]);
            assert_eq!(tried.give_up(&ids), time == TRIES);
        }
        let mut page = dead(4..6);
        tried.narrow(&mut page);
        assert_eq!((page.len(), tried.times), (2, 0));
    }
}
