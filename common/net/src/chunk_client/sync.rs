//! Bringing to disk what was stored without waiting for disks: `fsync` on a file whose chunks have left long ago.
//!
//! A put's answer says which nodes have the batch, and when two of these have synced, two of three have it on disk. That is
//! one small request to each node. Only where one of them is silent, gone, or has been started again since are chunks
//! asked for one by one, in [`super::secure`]: another holder may have its copy late or by repair, or not yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, chunk_key},
    chunk_api::{Synced, calls, write_quorum},
    fs_error::FsError,
    ring_id::NodeRef,
    route_table::Route,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    select,
    time::{Instant, sleep, timeout_at},
};
use tracing::debug;

use super::{ChunkClient, Kept, NewChunk, PATIENCE, put::Placed, secure::Endangered};
use crate::boot_clock::since_boot;

/// Beyond this many notes a put syncs first: nobody calls fsync, and memory is bounded.
const MAX_NOTES: usize = 1 << 16;
/// Where that came to nothing, puts go on for so long before one tries again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The chunks of `runs` with keys in the arc of `route` were stored by these nodes.
pub struct Note {
    runs: Arc<[ChunkRun]>,
    route: Arc<Route>,
    stored: Vec<NodeRef>,
    /// By the boot clock.
    sent: Duration,
}

impl Note {
    pub fn new(runs: &Arc<[ChunkRun]>, placed: Placed) -> Self {
        Self { runs: runs.clone(), route: placed.route, stored: placed.stored, sent: placed.sent }
    }

    /// Nodes that have been running since before the batch was sent have synced it, and they are enough.
    fn is_on_disk(&self, lives: &HashMap<NodeRef, Life>) -> bool {
        let synced = |node: &&NodeRef| lives.get(node).is_some_and(|life| life.began_before(self.sent));
        !self.stored.is_empty() && self.stored.iter().filter(synced).count() >= write_quorum(self.stored.len())
    }

    fn chunks(&self) -> impl Iterator<Item = Endangered> + '_ {
        let chunks = self.runs.iter().flat_map(|run| (0..run.count).map(move |step| (run, run.first + step)));
        chunks.filter_map(|(run, index)| {
            let key = chunk_key(&run.file, index);
            let chunk = || ChunkRef { file: run.file.clone(), id: ChunkId { version: run.version, index } };
            let endangered = || Endangered::new(key, chunk(), &self.stored, &self.route.holders, self.sent);
            self.route.arc.contains(key).then(endangered)
        })
    }
}

/// A node said, at that moment of the boot clock, for how long it has been running.
#[derive(Clone, Copy)]
struct Life {
    running_for: Duration,
    at: Duration,
}

impl Life {
    fn began_before(&self, sent: Duration) -> bool {
        self.at.saturating_sub(sent) <= self.running_for
    }
}

/// What was stored since the last sync. A sync takes it all and then works for everybody, so syncs take turns: one that
/// found nothing while another was at work would answer too early.
#[derive(Default)]
pub struct Unsynced {
    notes: Mutex<Vec<Note>>,
    /// A put that found too many tried to sync in vain.
    tried: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
}

/// The notes that a sync has taken. Unless it ends well they go back, also when nobody waits for it any more.
struct Taken<'a> {
    from: &'a Unsynced,
    notes: Vec<Note>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.notes.lock().append(&mut self.notes);
    }
}

impl ChunkClient {
    pub(super) async fn note_unsynced(&self, notes: Vec<Note>) {
        self.unsynced.notes.lock().extend(notes);
        let rests = self.unsynced.tried.lock().is_some_and(|tried| tried.elapsed() < TRY_AGAIN);
        if rests || self.unsynced.notes.lock().len() <= MAX_NOTES {
            return;
        }
        let done = self.sync(&|_| None).await;
        *self.unsynced.tried.lock() = done.is_err().then(Instant::now);
        if let Err(error) = done {
            debug!(%error, "what nobody has synced for long could not be brought to disk; a later put tries again");
        }
    }

    /// Everything put before through this client is on the disks of its holders when this returns. What those have lost
    /// that had it, they get again, of what is `kept`.
    pub async fn sync(&self, kept: Kept<'_>) -> Result<(), FsError> {
        let end = Instant::now() + self.deadline;
        let turn = timeout_at(end, self.unsynced.turn.lock()).await;
        let _turn =
            turn.map_err(|_| FsError::NoReplica { detail: "another sync is still waiting for disks".into() })?;
        let notes = std::mem::take(&mut *self.unsynced.notes.lock());
        let mut taken = Taken { from: &self.unsynced, notes };
        self.sync_notes(&taken.notes, end, kept).await?;
        taken.notes.clear();
        Ok(())
    }

    async fn sync_notes(&self, notes: &[Note], end: Instant, kept: Kept<'_>) -> Result<(), FsError> {
        let nodes: HashSet<NodeRef> = notes.iter().flat_map(|note| &note.stored).copied().collect();
        let mut asked: FuturesUnordered<_> = nodes.iter().map(|node| self.sync_node(*node, end)).collect();
        let (mut lives, mut open) = (HashMap::new(), notes.iter().collect::<Vec<_>>());
        let patience = sleep(PATIENCE);
        tokio::pin!(patience);
        while !open.is_empty() {
            select! {
                answer = asked.next() => match answer {
                    Some(answer) => count(answer, &mut lives, &mut open),
                    None => break,
                },
                () = &mut patience => break,
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        nodes.iter().filter(|node| !lives.contains_key(node)).for_each(|node| self.router.note_quiet(node));
        debug!(notes = open.len(), "not all that have stored chunks bring them to disk; asking for each chunk");
        // Boxed: a rare way with much state.
        let mut secured = Box::pin(self.secure(open.iter().flat_map(|note| note.chunks()).collect(), end, kept));
        loop {
            select! {
                result = &mut secured => return result,
                Some(answer) = asked.next() => count(answer, &mut lives, &mut open),
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// For how long the node that has synced is running. A slow disk has time until the end.
    async fn sync_node(&self, node: NodeRef, end: Instant) -> (NodeRef, Option<Life>) {
        let left = end.saturating_duration_since(Instant::now());
        let answer = self.pool.post(node.files_address(), calls::SYNC, vec![], left).await;
        let life = match answer {
            Ok(answer) if answer.status.is_success() => life(&node, &answer.body),
            Ok(answer) => {
                debug!(%node, status = %answer.status, reason = answer.text(), "sync refused");
                None
            }
            Err(error) => {
                debug!(%node, %error, "sync failed");
                None
            }
        };
        (node, life)
    }
}

/// Drops from `open` what is on disk by this answer.
fn count((node, life): (NodeRef, Option<Life>), lives: &mut HashMap<NodeRef, Life>, open: &mut Vec<&Note>) {
    lives.extend(life.map(|life| (node, life)));
    open.retain(|note| !note.is_on_disk(lives));
}

fn life(node: &NodeRef, answer: &[u8]) -> Option<Life> {
    let synced: Synced = postcard::from_bytes(answer)
        .inspect_err(|error| debug!(%node, %error, "the answer to a sync does not decode"))
        .ok()?;
    Some(Life { running_for: synced.running_for, at: since_boot() })
}

/// Chunks of one version that follow each other are one run.
pub fn runs_of(chunks: &[NewChunk]) -> Arc<[ChunkRun]> {
    let mut runs: Vec<ChunkRun> = Vec::new();
    for chunk in chunks {
        let follows = |run: &&mut ChunkRun| {
            run.version == chunk.id.version && run.first.checked_add(run.count) == Some(chunk.id.index)
        };
        match runs.last_mut().filter(follows) {
            Some(run) => run.count += 1,
            None => runs.push(ChunkRun {
                file: chunk.file.clone(),
                first: chunk.id.index,
                count: 1,
                version: chunk.id.version,
            }),
        }
    }
    runs.into()
}
