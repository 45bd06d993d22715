//! Repair against garbage collection: the former brings back what the latter deletes. Whatever happened before, once no
//! node fails any more both converge within a few rounds, with exactly the chunks of the files on every node.
//!
//! Three real stores and the real tables; a random schedule stands for the network, Raft and the order of events. Every
//! chunk counts as old at once, which gives the scrub the most chances to collect too much. A node that comes back has
//! forgotten its tombstones, as after a restart.
//!
//! Why it converges: a chunk that the namespace has declared dead can never be current again, so a chunk only goes from
//! stored to current to dead to forgotten. Only a copy that a deletion did not reach can bring it back. Then it is an
//! orphan wherever repair has copied it, one collection reaches every running node, and the tombstones refuse a copy
//! that repair had under way meanwhile. Another round needs another node that was away.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use bytes::BytesMut;
use chordfs_store::{AgeSpan, DataFolder, Store, StoreOptions, VersionShare};
use chordfs_tables::Tables;
use chordfs_types::{
    chunk::{ChunkId, FileName, VerifiedBatch, Version, chunk_key, encode_record},
    chunk_api::Durability,
    compare_api::{ChunkAt, IdsRequest},
    fs_error::FsError,
    namespace::{
        Answer, Change, Commit, EntryName, Extent, FileKind, Ino, NamespaceOp, NewNode, Query, Reply, SetAttr, Time,
        Truncate,
    },
    ring_id::{RingArc, RingId},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::{
    orphan_candidates::OrphanCandidates,
    unreferenced::{remaining_runs, runs, unreferenced_chunks, version_spans},
};

const CHUNK_BYTES: u32 = 10;
const NODES: usize = 3;

struct Node {
    dir: TempDir,
    /// `None` while the node is away.
    store: Option<Store>,
    candidates: OrphanCandidates,
}

impl Node {
    fn new() -> Self {
        let mut node = Self {
            dir: tempfile::tempdir().unwrap(),
            store: None,
            candidates: OrphanCandidates::new(Duration::from_secs(2)),
        };
        node.open();
        node
    }

    fn open(&mut self) {
        self.store = None;
        let options =
            StoreOptions { segment_writers: 1, reserve_bytes: 0, segment_bytes: 2000, ..StoreOptions::default() };
        self.store = Some(Store::open(&DataFolder::open(self.dir.path()).unwrap(), options).unwrap());
        self.candidates.clear();
    }
}

fn all_of(store: &Store) -> Vec<ChunkAt> {
    let everywhere = RingArc::new(RingId(0), RingId(0));
    store.ids(&IdsRequest { arcs: vec![everywhere], after: None }, usize::MAX / 4).chunks
}

/// Equalizes two stores as two holders do: missing chunks are copied, unless the receiver has a tombstone.
fn make_equal(a: &Store, b: &Store) {
    for (from, to) in [(a, b), (b, a)] {
        let there: HashSet<ChunkId> = all_of(to).iter().map(|chunk| chunk.id).collect();
        let missing = all_of(from).into_iter().filter(|chunk| !there.contains(&chunk.id));
        let (gone, send): (Vec<ChunkAt>, Vec<ChunkAt>) = missing.partition(|chunk| to.has_tombstone(chunk));
        from.delete_at(&gone);
        for record in from.records_at(&send, u64::MAX).unwrap() {
            to.put(&VerifiedBatch::verify(record).unwrap(), Durability::Memory).unwrap();
        }
    }
}

/// A write that is stored and not committed yet.
struct Pending {
    ino: Ino,
    extent: Extent,
}

struct Ring {
    tables: Tables,
    clock: i64,
    nodes: Vec<Node>,
    pending: Vec<Pending>,
    /// Late commits that were refused.
    refused: u32,
    collected: u32,
}

impl Ring {
    fn new() -> Self {
        let nodes = (0..NODES).map(|_| Node::new()).collect();
        Self { tables: Tables::new(), clock: 0, nodes, pending: Vec::new(), refused: 0, collected: 0 }
    }

    fn apply(&mut self, change: Change) -> Result<Reply, FsError> {
        self.clock += 1;
        let now = Time { secs: self.clock, nanos: 0 };
        self.tables.apply(self.clock as u64, now, &NamespaceOp { origin: None, now, change }).reply
    }

    fn file(&mut self, name: &str) -> Ino {
        let kind = FileKind::File;
        let node = NewNode {
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            chunk_bytes: CHUNK_BYTES,
            target: bytes::Bytes::new(),
        };
        let name = EntryName::new(name.as_bytes().to_vec()).unwrap();
        match self.apply(Change::Make { parent: Ino::ROOT, name, node, exclusive: false }) {
            Ok(Reply::Entry { attr, .. }) => attr.ino,
            other => panic!("{other:?}"),
        }
    }

    fn running(&self) -> impl Iterator<Item = &Store> {
        self.nodes.iter().filter_map(|node| node.store.as_ref())
    }

    /// Stores chunks under a version of their own on all nodes that are there.
    fn store(&mut self, name: &str, ino: Ino, first: u32, count: u32) {
        let Ok(Reply::Versions(block)) = self.apply(Change::AllocateVersions { count: 1 }) else {
            panic!("no version")
        };
        let (file, mut records) = (FileName::new(name.to_owned()).unwrap(), BytesMut::new());
        for index in first..first + count {
            let id = ChunkId { version: block.first, index };
            encode_record(&mut records, &file, id, chunk_key(&file, index), &block.first.0.to_le_bytes());
        }
        let batch = VerifiedBatch::verify(records.freeze()).unwrap();
        for store in self.running() {
            store.put(&batch, Durability::Memory).unwrap();
        }
        self.pending.push(Pending { ino, extent: Extent { first, count, version: block.first } });
    }

    fn commit(&mut self, Pending { ino, extent }: Pending) {
        let size_at_least = u64::from(extent.first + extent.count - 1) * u64::from(CHUNK_BYTES);
        let commit = Commit { extents: vec![extent], size_at_least, ..Commit::default() };
        match self.apply(Change::Commit { ino, commit }) {
            Ok(_) | Err(FsError::Stale { .. }) => {}
            Err(FsError::Conflict { .. }) => self.refused += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Commits only a part of the run, as a writer that stored the rest a second time before it committed.
    fn commit_a_part(&mut self, Pending { ino, extent }: Pending) {
        self.commit(Pending { ino, extent: Extent { count: 1.max(extent.count / 2), ..extent } });
    }

    /// Collects dead versions as the leader does.
    fn collect(&mut self) {
        let all = Query::Dead { before: u64::MAX, limit: u32::MAX };
        let Ok(Answer::Dead(dead)) = self.tables.query(&all) else { panic!("the dead versions are not listed") };
        let (ids, dead): (Vec<u64>, Vec<_>) = dead.into_iter().unzip();
        for store in self.running() {
            store.delete(&dead).unwrap();
        }
        self.apply(Change::ForgetDead { ids }).unwrap();
    }

    fn repair(&self, a: usize, b: usize) {
        if let (Some(a), Some(b)) = (&self.nodes[a].store, &self.nodes[b].store) {
            make_equal(a, b);
        }
    }

    fn scrub(&mut self, node: usize) {
        let Some(store) = &self.nodes[node].store else { return };
        let before = std::time::SystemTime::now() + Duration::from_secs(100);
        let (span, all) = (AgeSpan::until(before), VersionShare::new(0, 1));
        let held = store.old_chunks(all, span).unwrap();
        let found = unreferenced_chunks(&held, &unreferenced(&self.tables, version_spans(&held)));
        let chunks: Vec<ChunkId> = found.iter().map(|found| found.chunk.id).collect();
        let now = Duration::from_secs(self.clock as u64);
        let orphans = self.nodes[node].candidates.look(now, &chunks).into_iter().collect();
        let store = self.nodes[node].store.as_ref().expect("it ran a moment ago");
        let runs = store.named(&runs(&found, &orphans)).unwrap();
        match self.apply(Change::CollectOrphans { runs }) {
            Ok(Reply::Collected { runs }) => self.collected += runs,
            other => panic!("{other:?}"),
        }
    }

    fn current(&self) -> BTreeSet<ChunkId> {
        let Ok(Answer::Contents { files, next: None }) = self.tables.query(&Query::Contents { ino: Ino(0), first: 0 })
        else {
            panic!("the contents are on one page")
        };
        let chunks = |extent: &Extent| {
            let (first, version) = (extent.first, extent.version);
            (0..extent.count).map(move |step| ChunkId { version, index: first + step }).collect::<Vec<_>>()
        };
        files.iter().flat_map(|file| file.extents.iter().flat_map(chunks)).collect()
    }

    /// The chunks of each node.
    fn stored(&self) -> Vec<BTreeSet<ChunkId>> {
        self.running().map(|store| all_of(store).iter().map(|chunk| chunk.id).collect()).collect()
    }

    /// Runs rounds without failures and writes. Returns the number of rounds until nothing changes.
    fn settle(&mut self, rng: &mut StdRng) -> u32 {
        let has_converged = |ring: &Self| ring.stored() == vec![ring.current(); NODES];
        for round in 0..20 {
            if has_converged(self) {
                return round;
            }
            self.clock += 2;
            for _ in 0..NODES {
                let (a, b) = (rng.random_range(0..NODES), rng.random_range(1..NODES));
                self.repair(a, (a + b) % NODES);
                self.scrub(rng.random_range(0..NODES));
                self.collect();
            }
            [(0, 1), (1, 2), (2, 0)].into_iter().for_each(|(a, b)| self.repair(a, b));
        }
        panic!("no convergence: {:?} stored, {:?} current", self.stored(), self.current())
    }
}

fn unreferenced(tables: &Tables, mut asked: Vec<Extent>) -> Vec<Extent> {
    let mut all = Vec::new();
    loop {
        let Ok(Answer::Unreferenced { pieces, next }) = tables.query(&Query::Unreferenced { runs: asked.clone() })
        else {
            panic!("the query fails")
        };
        all.extend(pieces);
        let Some(next) = next else { return all };
        asked = remaining_runs(&asked, next).unwrap();
    }
}

/// One random event. At least one node is running at any moment, so that every write is stored somewhere.
fn apply_random_event(ring: &mut Ring, rng: &mut StdRng) {
    let names = ["a", "b", "c"];
    let name = names[rng.random_range(0..names.len())];
    match rng.random_range(0..20) {
        0..5 => {
            let ino = ring.file(name);
            ring.store(name, ino, rng.random_range(1..12), rng.random_range(1..6));
        }
        5..10 if !ring.pending.is_empty() => {
            let pending = ring.pending.swap_remove(rng.random_range(0..ring.pending.len()));
            match rng.random_range(0..8) {
                0 => {}
                1 => ring.commit_a_part(pending),
                _ => ring.commit(pending),
            }
        }
        10 => {
            let (parent, name) = (Ino::ROOT, EntryName::new(name.as_bytes().to_vec()).unwrap());
            let _ = ring.apply(Change::Unlink { parent, name, hold: false });
            ring.apply(Change::PurgeOrphans { before: u64::MAX, limit: u32::MAX }).unwrap();
        }
        11 => {
            let ino = ring.file(name);
            let size = u64::from(rng.random_range(0..10) * CHUNK_BYTES);
            let set = SetAttr { truncate: Some(Truncate { size, tail: None }), ..SetAttr::default() };
            ring.apply(Change::SetAttr { ino, set }).unwrap();
        }
        12 if ring.running().count() > 1 => ring.nodes[rng.random_range(0..NODES)].store = None,
        13 => ring.nodes[rng.random_range(0..NODES)].open(),
        14..16 => ring.collect(),
        16..18 => {
            let (a, b) = (rng.random_range(0..NODES), rng.random_range(1..NODES));
            ring.repair(a, (a + b) % NODES);
        }
        _ => ring.scrub(rng.random_range(0..NODES)),
    }
}

#[test]
fn repair_and_garbage_collection_converge_to_the_chunks_of_the_files_after_any_history() {
    let (mut refused, mut collected, mut slowest, mut single) = (0, 0, 0, 0);
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ring = Ring::new();
        for _ in 0..150 {
            apply_random_event(&mut ring, &mut rng);
        }
        // The worst case: all nodes have forgotten their tombstones.
        ring.nodes.iter_mut().for_each(Node::open);
        let current = ring.current();
        let versions: HashSet<Version> = current.iter().map(|id| id.version).collect();
        let garbage = ring.stored().into_iter().flatten().filter(|id| !current.contains(id));
        single += garbage.filter(|id| versions.contains(&id.version)).count();
        ring.pending.clear();
        slowest = slowest.max(ring.settle(&mut rng));
        assert_eq!(ring.current(), current, "seed {seed}: a chunk of a file was deleted");
        (refused, collected) = (refused + ring.refused, collected + ring.collected);
    }
    println!(
        "{refused} late commits refused, {collected} runs collected, {single} single chunks, converged after {slowest} rounds"
    );
    assert!(refused > 0 && collected > 0 && single > 0, "{refused} {collected} {single}");
    assert!(slowest <= 8, "{slowest} rounds");
}

/// A faulty node that keeps what it should delete brings chunks back only as long as it is faulty.
#[test]
fn chunks_from_a_faulty_node_are_gone_once_it_deletes_again() {
    let mut ring = Ring::new();
    let ino = ring.file("a");
    ring.store("a", ino, 1, 9);
    let pending = ring.pending.pop().unwrap();
    ring.commit(pending);
    ring.store("a", ino, 4, 2);
    let pending = ring.pending.pop().unwrap();
    let faulty = ring.nodes[2].store.take();
    ring.commit(pending);
    ring.collect();
    for _ in 0..3 {
        ring.nodes[..2].iter_mut().for_each(Node::open);
        let faulty = faulty.as_ref().unwrap();
        ring.running().for_each(|store| make_equal(store, faulty));
        assert_eq!(ring.stored()[0].len(), 11, "it is back");
        for node in [0, 1, 0] {
            ring.clock += 2;
            ring.scrub(node);
        }
        ring.collect();
        assert_eq!(ring.stored(), vec![ring.current(); 2]);
    }
    ring.nodes[2].store = faulty;
    let mut rng = StdRng::seed_from_u64(1);
    assert!(ring.settle(&mut rng) <= 4);
}
