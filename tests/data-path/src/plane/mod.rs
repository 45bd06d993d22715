//! The simulated chunk plane: nodes that keep copies, each on its disk or only in its page cache.
//!
//! Rules as in `chordfs-node`: a chunk has three holders, the nodes after its key; two of them make a put successful;
//! what the namespace has deleted leaves a tombstone, so that a late copy does not come back. Reports of what happened
//! to every chunk go into `known`, from which the reference model reads.

mod client;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, FileName, chunk_key},
    chunk_api::{Durability, REPLICAS},
};
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use self::client::SimChunks;
use crate::world::World;

pub(crate) const NODES: usize = 5;
/// How many holders make a put successful, or a chunk durable.
pub(crate) const QUORUM: usize = 2;
/// A node that is away for longer is no member of the ring any more.
const DROPPED_AFTER: Duration = Duration::from_secs(3);

pub(crate) struct Plane {
    world: Arc<World>,
    state: Mutex<PlaneState>,
}

struct PlaneState {
    nodes: Vec<Node>,
    known: BTreeMap<ChunkId, KnownChunk>,
    /// Puts find no room.
    full: bool,
    /// Longest time that a put takes at a node, in milliseconds.
    slowness: u64,
}

#[derive(Default)]
struct Node {
    down_since: Option<Instant>,
    copies: BTreeMap<ChunkId, Stored>,
    tombstones: BTreeSet<ChunkId>,
}

#[derive(Clone, Copy)]
struct Stored {
    on_disk: bool,
}

struct KnownChunk {
    data: Bytes,
    file: FileName,
    put_at: Instant,
    /// Every copy was lost with nodes that had not synced it.
    lost: bool,
}

impl Node {
    fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    fn is_member(&self) -> bool {
        self.down_since.is_none_or(|since| since.elapsed() < DROPPED_AFTER)
    }

    fn store(&mut self, id: ChunkId, on_disk: bool) {
        if self.tombstones.contains(&id) {
            return;
        }
        let stored = self.copies.entry(id).or_insert(Stored { on_disk });
        stored.on_disk |= on_disk;
    }
}

impl PlaneState {
    /// The holders of a chunk, as the ring is now.
    fn holders(&self, file: &FileName, index: u32) -> Vec<usize> {
        let share = (1_u64 << 32) / NODES as u64;
        let owner = (u64::from(chunk_key(file, index).0) / share) as usize;
        let members = (0..NODES).map(|step| (owner + step) % NODES).filter(|node| self.nodes[*node].is_member());
        members.take(REPLICAS).collect()
    }

    fn up_holders(&self, file: &FileName, index: u32) -> Vec<usize> {
        self.holders(file, index).into_iter().filter(|node| self.nodes[*node].is_up()).collect()
    }

    fn has_copy(&self, id: ChunkId) -> bool {
        self.nodes.iter().any(|node| node.copies.contains_key(&id))
    }

    fn on_disks(&self, id: ChunkId) -> usize {
        self.nodes.iter().filter(|node| node.copies.get(&id).is_some_and(|stored| stored.on_disk)).count()
    }

    fn is_deleted(&self, id: ChunkId) -> bool {
        self.nodes.iter().any(|node| node.tombstones.contains(&id))
    }
}

impl Plane {
    pub(crate) fn new(world: Arc<World>) -> Arc<Self> {
        let nodes = (0..NODES).map(|_| Node::default()).collect();
        let state = PlaneState { nodes, known: BTreeMap::new(), full: false, slowness: 10 };
        Arc::new(Self { world, state: Mutex::new(state) })
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    pub(crate) fn set_slowness(&self, millis: u64) {
        self.state.lock().slowness = millis;
    }

    /// The data that was ever put as this chunk.
    pub(crate) fn data(&self, id: ChunkId) -> Option<Bytes> {
        Some(self.state.lock().known.get(&id)?.data.clone())
    }

    pub(crate) fn has_copy(&self, id: ChunkId) -> bool {
        self.state.lock().has_copy(id)
    }

    /// On how many disks the chunk is, those of nodes that are down included.
    pub(crate) fn on_disks(&self, id: ChunkId) -> usize {
        self.state.lock().on_disks(id)
    }

    /// Whether all copies were lost with nodes that had not synced them.
    pub(crate) fn is_lost(&self, id: ChunkId) -> bool {
        self.state.lock().known.get(&id).is_some_and(|known| known.lost)
    }

    /// All chunks of which a node that is up has a copy.
    pub(crate) fn stored_chunks(&self) -> BTreeSet<ChunkId> {
        let state = self.state.lock();
        state.nodes.iter().filter(|node| node.is_up()).flat_map(|node| node.copies.keys().copied()).collect()
    }

    /// Deletes runs on all nodes that are up; false if one was down.
    pub(crate) fn delete(&self, runs: &[ChunkRun]) -> bool {
        let mut state = self.state.lock();
        for run in runs {
            let version = run.version;
            for id in (run.first..run.first + run.count).map(|index| ChunkId { version, index }) {
                for node in state.nodes.iter_mut().filter(|node| node.is_up()) {
                    node.copies.remove(&id);
                    node.tombstones.insert(id);
                }
            }
        }
        drop(state);
        self.world.note(format!("deleted {}", describe(runs)));
        self.state.lock().nodes.iter().all(Node::is_up)
    }

    fn remember(&self, chunk: &ChunkRef, data: &Bytes) {
        let known = KnownChunk { data: data.clone(), file: chunk.file.clone(), put_at: Instant::now(), lost: false };
        self.state.lock().known.entry(chunk.id).or_insert(known);
    }

    /// Stores a chunk at two holders; the nodes of the others, for a copy that comes later.
    fn store(&self, chunk: &ChunkRef, durability: Durability) -> Option<Vec<usize>> {
        let mut state = self.state.lock();
        let up = state.up_holders(&chunk.file, chunk.id.index);
        if up.len() < QUORUM {
            return None;
        }
        for node in &up[..QUORUM] {
            state.nodes[*node].store(chunk.id, durability.is_disk());
        }
        if let Some(known) = state.known.get_mut(&chunk.id) {
            known.lost = false;
        }
        Some(up[QUORUM..].to_vec())
    }
}

fn describe(runs: &[ChunkRun]) -> String {
    let shown = runs.iter().take(6).map(|run| format!("{}:{}+{}@{}", run.file, run.first, run.count, run.version.0));
    shown.collect::<Vec<_>>().join(" ")
}
