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
use chordfs_tables::Tables;
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
    /// Chunks whose data the log has. It is on the disks of a majority of voters.
    logged: BTreeSet<ChunkId>,
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
    /// A node has had a copy.
    was_stored: bool,
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

    /// Whether a node or the log has the chunk.
    fn has_copy(&self, id: ChunkId) -> bool {
        self.logged.contains(&id) || self.nodes.iter().any(|node| node.copies.contains_key(&id))
    }

    fn on_disks(&self, id: ChunkId) -> usize {
        if self.logged.contains(&id) {
            return QUORUM;
        }
        self.nodes.iter().filter(|node| node.copies.get(&id).is_some_and(|stored| stored.on_disk)).count()
    }

    fn is_deleted(&self, id: ChunkId) -> bool {
        self.nodes.iter().any(|node| node.tombstones.contains(&id))
    }

    /// Whether every copy was lost with nodes that had not synced it. A copy that arrives later ends the loss.
    fn is_lost(&self, id: ChunkId) -> bool {
        let was_stored = self.known.get(&id).is_some_and(|known| known.was_stored);
        was_stored && !self.has_copy(id) && !self.is_deleted(id)
    }

    fn store_at(&mut self, node: usize, id: ChunkId, on_disk: bool) {
        self.nodes[node].store(id, on_disk);
        if let Some(known) = self.known.get_mut(&id) {
            known.was_stored = true;
        }
    }
}

impl Plane {
    pub(crate) fn new(world: Arc<World>) -> Arc<Self> {
        let nodes = (0..NODES).map(|_| Node::default()).collect();
        let state = PlaneState { nodes, known: BTreeMap::new(), logged: BTreeSet::new(), full: false, slowness: 10 };
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
        self.state.lock().is_lost(id)
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

    /// These are the chunks whose data the log has now.
    pub(crate) fn note_logged(&self, tables: &Tables) {
        let mut state = self.state.lock();
        state.logged.clear();
        for (id, file, data) in tables.chunks_to_place(u64::MAX) {
            state.logged.insert(id);
            let known = KnownChunk { data: data.clone(), file: file.clone(), put_at: Instant::now(), was_stored: true };
            state.known.entry(id).or_insert(known).was_stored = true;
        }
    }

    /// Stores chunks of the log on their holders' disks. Returns those that enough holders have; `None` if there is no
    /// room. A holder that misses one gets it by repair.
    pub(crate) async fn place(&self, chunks: &[ChunkRef]) -> Option<Vec<ChunkId>> {
        self.work().await;
        if self.state.lock().full {
            return None;
        }
        let placed = chunks.iter().filter(|chunk| self.store(chunk, Durability::Disk).is_some());
        Some(placed.map(|chunk| chunk.id).collect())
    }

    fn remember(&self, chunk: &ChunkRef, data: &Bytes) {
        let new =
            KnownChunk { data: data.clone(), file: chunk.file.clone(), put_at: Instant::now(), was_stored: false };
        let mut state = self.state.lock();
        let known = state.known.entry(chunk.id).or_insert(new);
        if known.data != *data {
            let ChunkRef { file, id } = chunk;
            self.world
                .fail(format!("chunk {}@{} of {file} is put a second time, with other bytes", id.index, id.version.0));
        }
    }

    /// Stores a chunk at two holders; the nodes of the others, for a copy that comes later.
    fn store(&self, chunk: &ChunkRef, durability: Durability) -> Option<Vec<usize>> {
        let mut state = self.state.lock();
        let up = state.up_holders(&chunk.file, chunk.id.index);
        if up.len() < QUORUM {
            return None;
        }
        for node in &up[..QUORUM] {
            state.store_at(*node, chunk.id, durability.is_disk());
        }
        Some(up[QUORUM..].to_vec())
    }

    /// The copies for the other holders arrive.
    fn store_late(&self, nodes: &[usize], id: ChunkId, durability: Durability) {
        let mut state = self.state.lock();
        for node in nodes {
            if state.nodes[*node].is_up() {
                state.store_at(*node, id, durability.is_disk());
            }
        }
    }
}

fn describe(runs: &[ChunkRun]) -> String {
    let shown = runs.iter().take(6).map(|run| format!("{}:{}+{}@{}", run.file, run.first, run.count, run.version.0));
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;
    use crate::faults::Faults;

    /// A chunk that two holders have in memory, and the holder whose copy is on its way.
    fn put_one() -> (Arc<Plane>, ChunkRef, Vec<usize>) {
        let plane = Plane::new(Arc::new(World::new(1, Faults::ALL)));
        let file = FileName::new("a").expect("it is a plain name");
        let chunk = ChunkRef { file, id: ChunkId { version: Version(7), index: 1 } };
        plane.remember(&chunk, &Bytes::from_static(b"data"));
        assert!(!plane.is_lost(chunk.id), "no node has had it");
        let later = plane.store(&chunk, Durability::Memory).expect("all nodes are up");
        (plane, chunk, later)
    }

    fn cut_the_power(plane: &Plane) {
        (0..NODES).for_each(|node| plane.crash(node, true));
        (0..NODES).for_each(|node| plane.restart(node));
    }

    /// In seed 105349 a chunk on three disks was called lost: its third copy had arrived after a power cut that took the
    /// other two.
    #[tokio::test(start_paused = true)]
    async fn a_copy_that_arrives_late_ends_a_loss() {
        let (plane, chunk, later) = put_one();
        cut_the_power(&plane);
        assert!(plane.is_lost(chunk.id));
        plane.store_late(&later, chunk.id, Durability::Memory);
        assert!(!plane.is_lost(chunk.id));
        cut_the_power(&plane);
        assert!(plane.is_lost(chunk.id), "the late copy was not synced");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_chunk_is_not_lost() {
        let (plane, chunk, _) = put_one();
        plane.delete(&[ChunkRun { file: chunk.file, first: 1, count: 1, version: chunk.id.version }]);
        assert!(!plane.is_lost(chunk.id));
    }
}
