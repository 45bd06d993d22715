//! Are these chunks on enough disks? Asked chunk by chunk, of those that have stored them and of today's holders, again and
//! again until the answer is yes or the time is up: repair may just be bringing copies to those that hold them today.
//!
//! A holder that has nothing while another has a chunk on disk is given it right here: repair has its own order, and a whole
//! node's chunks may come before these. Where no other has it either, the writer's own memory may: the two that had
//! acknowledged it can vanish in the same moment, before the third had its copy.
//!
//! Where all say that they have nothing, it may have been deleted, and so long ago that they forget it. Then the namespace
//! is asked whether any file has it; but not before every commit that could still name it has been made or given up.
//!
//! Each node is asked one thing at a time and on its own, so a silent one delays nobody; who holds a chunk today is looked
//! up meanwhile. What a node has once said to be on its disk stays there and is not asked again.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::Duration,
};

use bytes::BytesMut;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, encode_record},
    chunk_api::{DELETED, Durability, MAX_BATCH_CHUNKS, ON_DISK, PutQuery, REPLICAS, calls, encode_refs, write_quorum},
    fs_error::FsError,
    namespace::Extent,
    ring_id::{NodeRef, RingId},
};
use futures_util::{
    StreamExt,
    future::{BoxFuture, OptionFuture, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{ChunkClient, Kept, batch::Wanted, get::Found, try_deadline};
use crate::boot_clock::since_boot;

/// How often the ring and the nodes are asked again.
const PERIOD: Duration = Duration::from_millis(500);
/// One answer. A disk that takes longer has begun, and is asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The namespace is asked about so many chunks at a time.
const ASKED_CHUNKS: usize = 1024;
/// Chunks copied to a node at a time.
const COPIED_CHUNKS: usize = 1024;

/// A chunk that may be on too few disks.
pub struct Endangered {
    key: RingId,
    chunk: ChunkRef,
    /// When it was put, by the boot clock.
    sent: Duration,
    /// Those that hold it today or did when it was put, and those that are known to have stored it.
    nodes: Vec<NodeRef>,
    /// Those that hold it today, as far as that is known.
    holders: Vec<NodeRef>,
    /// Disks that it must be on.
    required: usize,
    on_disk: Vec<NodeRef>,
    /// Said to have none.
    absent: Vec<NodeRef>,
}

impl Endangered {
    pub fn new(key: RingId, chunk: ChunkRef, stored: &[NodeRef], holders: &[NodeRef], sent: Duration) -> Self {
        // Until the ring says how many holders there are, it has all it should.
        let nodes = stored.to_vec();
        let required = write_quorum(REPLICAS);
        let mut new = Self { key, chunk, sent, nodes, holders: vec![], required, on_disk: vec![], absent: vec![] };
        new.also_at(holders);
        new
    }

    fn is_safe(&self) -> bool {
        self.on_disk.len() >= self.required
    }

    /// All that ever had it, or should, have said that they have nothing.
    fn is_nowhere(&self) -> bool {
        !self.holders.is_empty() && self.on_disk.is_empty() && self.nodes.iter().all(|node| self.absent.contains(node))
    }

    fn learn_holders(&mut self, holders: &[NodeRef]) {
        self.required = write_quorum(holders.len());
        self.holders = holders.to_vec();
        self.also_at(holders);
    }

    /// Who can give it to `node`, which should have it and does not.
    fn source_for(&self, node: &NodeRef, kept: Kept<'_>) -> Option<Source> {
        if !self.holders.contains(node) || !self.absent.contains(node) {
            return None;
        }
        let here = || kept(self.chunk.id).map(|_| Source::Here);
        self.on_disk.first().map(|node| Source::Disk(*node)).or_else(here)
    }

    fn also_at(&mut self, nodes: &[NodeRef]) {
        for node in nodes {
            if !self.nodes.contains(node) {
                self.nodes.push(*node);
            }
        }
    }
}

/// Where a copy comes from: another node's disk, or this client's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Disk(NodeRef),
    Here,
}

/// What a node said of some chunks: each with its byte; nothing where it did not answer.
type Answer = (NodeRef, Vec<(ChunkId, u8)>);

impl ChunkClient {
    /// Returns when each is on the disks of two of its holders, of all in a smaller ring, or deleted.
    pub(super) async fn secure(&self, chunks: Vec<Endangered>, end: Instant, kept: Kept<'_>) -> Result<(), FsError> {
        let mut open: HashMap<ChunkId, Endangered> = HashMap::with_capacity(chunks.len());
        for chunk in chunks {
            match open.entry(chunk.chunk.id) {
                Entry::Occupied(mut known) => known.get_mut().also_at(&chunk.nodes),
                Entry::Vacant(place) => drop(place.insert(chunk)),
            }
        }
        let mut asked: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
        let mut busy = HashSet::new();
        let mut doubted = None;
        let mut look = Some(Box::pin(self.holders_today(&open)));
        let mut next_look = Instant::now();
        while !open.is_empty() {
            select! {
                Some(found) = OptionFuture::from(look.as_mut()) => {
                    (look, next_look) = (None, Instant::now() + PERIOD);
                    for (id, holders) in found {
                        open.get_mut(&id).into_iter().for_each(|chunk| chunk.learn_holders(&holders));
                    }
                    open.retain(|_, chunk| !chunk.is_safe());
                    if doubted.is_none() {
                        doubted = self.ask_whether_dead(&open, kept).map(Box::pin);
                    }
                    for ((from, to), wanted) in copies_to_make(&open, &busy, kept) {
                        if busy.insert(to) {
                            asked.push(Box::pin(self.copy(from, to, wanted, kept)));
                        }
                    }
                    for (node, refs) in open_by_node(&open, &busy) {
                        busy.insert(node);
                        asked.push(Box::pin(self.secure_at(node, refs)));
                    }
                }
                Some(dead) = OptionFuture::from(doubted.as_mut()) => {
                    doubted = None;
                    open.retain(|id, _| !dead.contains(id));
                }
                () = sleep_until(next_look), if look.is_none() => look = Some(Box::pin(self.holders_today(&open))),
                Some((node, said)) = asked.next() => {
                    busy.remove(&node);
                    said.into_iter().for_each(|(id, byte)| note_answer(&mut open, node, id, byte));
                }
                () = sleep_until(end) => return Err(too_few(&open)),
            }
        }
        Ok(())
    }

    /// Of what is nowhere, which chunks no file has. `None`: there is nothing to ask, or nobody.
    fn ask_whether_dead(
        &self,
        open: &HashMap<ChunkId, Endangered>,
        kept: Kept<'_>,
    ) -> Option<impl Future<Output = HashSet<ChunkId>> + use<'_>> {
        let (registry, now) = (self.registry.get()?, since_boot());
        let is_old = |chunk: &Endangered| now.saturating_sub(chunk.sent) >= self.settled_after;
        let nowhere = open.values().filter(|chunk| chunk.is_nowhere() && is_old(chunk));
        let ids = nowhere.map(|chunk| chunk.chunk.id).filter(|id| kept(*id).is_none());
        let runs: Vec<Extent> =
            ids.take(ASKED_CHUNKS).map(|id| Extent { first: id.index, count: 1, version: id.version }).collect();
        if runs.is_empty() {
            return None;
        }
        Some(async move {
            let dead = registry.unreferenced(runs).await.unwrap_or_else(|error| {
                debug!(%error, "nobody says whether chunks that are nowhere are needed");
                Vec::new()
            });
            dead.into_iter().map(|piece| ChunkId { version: piece.version, index: piece.first }).collect()
        })
    }

    /// What was learnt may be of before the trouble, and stays until something newer is: while the ring has not closed up
    /// around a silent node, nobody can say more. So those that hold the chunks are asked, and the ring where all are silent.
    fn holders_today(
        &self,
        open: &HashMap<ChunkId, Endangered>,
    ) -> impl Future<Output = Vec<(ChunkId, Vec<NodeRef>)>> + use<'_> {
        let wanted: Vec<(RingId, ChunkId)> = open.values().map(|chunk| (chunk.key, chunk.chunk.id)).collect();
        let nodes: HashSet<NodeRef> = open.values().flat_map(|chunk| &chunk.nodes).copied().collect();
        async move {
            join_all(nodes.iter().filter(|node| !self.router.is_quiet(node)).map(|node| self.router.refresh(node)))
                .await;
            let routes = self.routes(wanted.iter().map(|(key, _)| *key)).await;
            for route in
                routes.iter().flatten().filter(|route| route.holders.iter().all(|node| self.router.is_quiet(node)))
            {
                self.router.forget(route);
            }
            let known = wanted.iter().zip(routes).filter_map(|((_, id), route)| Some((*id, route?.holders.clone())));
            known.collect()
        }
    }

    /// Brings chunks to a node's disk.
    async fn copy(&self, from: Source, to: NodeRef, wanted: Vec<Wanted>, kept: Kept<'_>) -> Answer {
        let found = match from {
            Source::Disk(node) => self.get_group(node, wanted.clone()).await.records,
            Source::Here => wanted.iter().filter_map(|(_, chunk)| Some((chunk.id, kept(chunk.id)?))).collect::<Found>(),
        };
        let mut body = BytesMut::new();
        let mut brought = Vec::with_capacity(found.len());
        for (key, chunk) in &wanted {
            if let Some(data) = found.get(&chunk.id) {
                encode_record(&mut body, &chunk.file, chunk.id, *key, data);
                brought.push((chunk.id, ON_DISK));
            }
        }
        let (target, deadline) = (PutQuery::local(Durability::Disk).target(), try_deadline(body.len()));
        match self.pool.post(to.files_address(), &target, vec![body.freeze()], deadline).await {
            Ok(answer) if answer.status.is_success() => return (to, brought),
            Ok(answer) => debug!(node = %to, status = %answer.status, reason = answer.text(), "a copy was refused"),
            Err(error) => debug!(node = %to, %error, "a copy did not arrive"),
        }
        (to, Vec::new())
    }

    async fn secure_at(&self, node: NodeRef, chunks: Vec<ChunkRef>) -> Answer {
        let mut said = Vec::with_capacity(chunks.len());
        for refs in chunks.chunks(MAX_BATCH_CHUNKS) {
            let asked = self.pool.post(node.files_address(), calls::SECURE, vec![encode_refs(refs)], ANSWER_DEADLINE);
            match asked.await {
                Ok(answer) if answer.status.is_success() && answer.body.len() == refs.len() => {
                    said.extend(refs.iter().map(|chunk| chunk.id).zip(answer.body));
                }
                Ok(answer) => {
                    debug!(%node, status = %answer.status, bytes = answer.body.len(), "no use of what it has on disk");
                    break;
                }
                Err(error) => {
                    debug!(%node, %error, "it does not say what it has on disk");
                    break;
                }
            }
        }
        (node, said)
    }
}

/// What each node has not said to be on its disk, of nodes that are not being asked already.
fn open_by_node(open: &HashMap<ChunkId, Endangered>, busy: &HashSet<NodeRef>) -> HashMap<NodeRef, Vec<ChunkRef>> {
    let mut by_node: HashMap<NodeRef, Vec<ChunkRef>> = HashMap::new();
    for chunk in open.values() {
        for node in chunk.nodes.iter().filter(|node| !busy.contains(node) && !chunk.on_disk.contains(node)) {
            by_node.entry(*node).or_default().push(chunk.chunk.clone());
        }
    }
    by_node
}

/// For each way from a node to another so many chunks as one batch may carry.
fn copies_to_make(
    open: &HashMap<ChunkId, Endangered>,
    busy: &HashSet<NodeRef>,
    kept: Kept<'_>,
) -> HashMap<(Source, NodeRef), Vec<Wanted>> {
    let mut copies: HashMap<_, Vec<Wanted>> = HashMap::new();
    for chunk in open.values() {
        let to = chunk.holders.iter().filter(|node| !busy.contains(node));
        let ways = to.filter_map(|to| Some((chunk.source_for(to, kept)?, *to)));
        for way in ways.take(chunk.required.saturating_sub(chunk.on_disk.len())) {
            let batch = copies.entry(way).or_default();
            if batch.len() < COPIED_CHUNKS {
                batch.push((chunk.key, chunk.chunk.clone()));
            }
        }
    }
    copies
}

fn note_answer(open: &mut HashMap<ChunkId, Endangered>, node: NodeRef, id: ChunkId, byte: u8) {
    let Some(chunk) = open.get_mut(&id) else { return };
    let seen = if byte == ON_DISK { &mut chunk.on_disk } else { &mut chunk.absent };
    if !seen.contains(&node) {
        seen.push(node);
    }
    if byte == DELETED || chunk.is_safe() {
        open.remove(&id);
    }
}

fn too_few(open: &HashMap<ChunkId, Endangered>) -> FsError {
    let example = open.values().next().map(|chunk| {
        let (file, index) = (&chunk.chunk.file, chunk.chunk.id.index);
        format!("{file}_chunk_{index}, on disk at {:?}, asked of {:?}", chunk.on_disk, chunk.nodes)
    });
    FsError::NoReplica {
        detail: format!("too few holders have {} chunks on disk: {}", open.len(), example.unwrap_or_default()),
    }
}
