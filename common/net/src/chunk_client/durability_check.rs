//! Checks chunk by chunk whether enough disks have it. The nodes that stored the chunks and their current holders are
//! asked again and again until the answer is yes or the time is up: repair may just be copying to the current holders.
//!
//! A holder that lacks a chunk while another has it on disk receives it from here: repair has its own order, and a
//! whole node's chunks may come before these. If no node has it, the writer's own memory may: the two nodes that
//! acknowledged it can vanish in the same moment, before the third has its copy.
//!
//! If all nodes report that they lack a chunk, it may have been deleted, so long ago that they have forgotten it. Then
//! the namespace is asked whether any file has it, but not before every commit that could still name it is made or
//! given up.
//!
//! Each node is asked one question at a time, independently of the others, so an unresponsive node delays no other; the
//! current holders are looked up meanwhile. A chunk that a node once reported on its disk stays there: it is not asked
//! again.

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

use super::{ChunkClient, LocalCopies, batch::KeyedRef, get::FoundChunks, try_deadline};
use crate::boot_clock::since_boot;

/// How often the ring and the nodes are asked again.
const PERIOD: Duration = Duration::from_millis(500);
/// For one answer. A slower disk has begun to sync, and is asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Chunks that the namespace is asked about at a time.
const ASKED_CHUNKS: usize = 1024;
/// Chunks copied to a node at a time.
const COPIED_CHUNKS: usize = 1024;

/// A chunk that may be on too few disks.
pub(super) struct DurabilityCheck {
    key: RingId,
    chunk: ChunkRef,
    /// When it was put, by the boot clock.
    sent: Duration,
    /// The current holders, the holders when it was put, and the nodes known to have stored it.
    nodes: Vec<NodeRef>,
    /// The current holders, as far as they are known.
    holders: Vec<NodeRef>,
    /// Disks that it must be on.
    required: usize,
    on_disk: Vec<NodeRef>,
    /// Nodes that reported that they lack it.
    absent: Vec<NodeRef>,
}

impl DurabilityCheck {
    pub(super) fn new(key: RingId, chunk: ChunkRef, stored: &[NodeRef], holders: &[NodeRef], sent: Duration) -> Self {
        // Until the ring is asked, the full number of holders is assumed.
        let nodes = stored.to_vec();
        let required = write_quorum(REPLICAS);
        let mut new = Self { key, chunk, sent, nodes, holders: vec![], required, on_disk: vec![], absent: vec![] };
        new.also_at(holders);
        new
    }

    fn is_safe(&self) -> bool {
        self.on_disk.len() >= self.required
    }

    /// Whether every node that ever had it, or should, has reported that it lacks it.
    fn is_nowhere(&self) -> bool {
        !self.holders.is_empty() && self.on_disk.is_empty() && self.nodes.iter().all(|node| self.absent.contains(node))
    }

    fn learn_holders(&mut self, holders: &[NodeRef]) {
        self.required = write_quorum(holders.len());
        self.holders = holders.to_vec();
        self.also_at(holders);
    }

    /// Where `node` can get it from, if it should have it and lacks it.
    fn source_for(&self, node: &NodeRef, kept: LocalCopies<'_>) -> Option<CopySource> {
        if !self.holders.contains(node) || !self.absent.contains(node) {
            return None;
        }
        let here = || kept(self.chunk.id).map(|_| CopySource::Memory);
        self.on_disk.first().map(|node| CopySource::Disk(*node)).or_else(here)
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
enum CopySource {
    Disk(NodeRef),
    Memory,
}

/// A node's answer about some chunks, each with its byte; empty if it did not answer.
type DurabilityAnswer = (NodeRef, Vec<(ChunkId, u8)>);

impl ChunkClient {
    /// Returns when each chunk is on the disks of two of its holders (of all in a smaller ring), or is deleted.
    pub(super) async fn ensure_durable(
        &self,
        chunks: Vec<DurabilityCheck>,
        end: Instant,
        kept: LocalCopies<'_>,
    ) -> Result<(), FsError> {
        let mut open: HashMap<ChunkId, DurabilityCheck> = HashMap::with_capacity(chunks.len());
        for chunk in chunks {
            match open.entry(chunk.chunk.id) {
                Entry::Occupied(mut known) => known.get_mut().also_at(&chunk.nodes),
                Entry::Vacant(vacant) => drop(vacant.insert(chunk)),
            }
        }
        let mut asked: FuturesUnordered<BoxFuture<'_, DurabilityAnswer>> = FuturesUnordered::new();
        let mut busy = HashSet::new();
        let mut doubted = None;
        let mut look = Some(Box::pin(self.current_holders(&open)));
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
                        doubted = self.ask_for_unreferenced(&open, kept).map(Box::pin);
                    }
                    for ((from, to), wanted) in copies_to_make(&open, &busy, kept) {
                        if busy.insert(to) {
                            asked.push(Box::pin(self.copy(from, to, wanted, kept)));
                        }
                    }
                    for (node, refs) in open_by_node(&open, &busy) {
                        busy.insert(node);
                        asked.push(Box::pin(self.check_at(node, refs)));
                    }
                }
                Some(dead) = OptionFuture::from(doubted.as_mut()) => {
                    doubted = None;
                    open.retain(|id, _| !dead.contains(id));
                }
                () = sleep_until(next_look), if look.is_none() => look = Some(Box::pin(self.current_holders(&open))),
                Some((node, said)) = asked.next() => {
                    busy.remove(&node);
                    said.into_iter().for_each(|(id, byte)| note_answer(&mut open, node, id, byte));
                }
                () = sleep_until(end) => return Err(too_few(&open)),
            }
        }
        Ok(())
    }

    /// Finds out which of the chunks that no node has are in no file. `None` if there is nothing to ask, or no
    /// registry.
    fn ask_for_unreferenced(
        &self,
        open: &HashMap<ChunkId, DurabilityCheck>,
        kept: LocalCopies<'_>,
    ) -> Option<impl Future<Output = HashSet<ChunkId>> + use<'_>> {
        let (registry, now) = (self.registry.get()?, since_boot());
        let is_old = |chunk: &DurabilityCheck| now.saturating_sub(chunk.sent) >= self.settled_after;
        let nowhere = open.values().filter(|chunk| chunk.is_nowhere() && is_old(chunk));
        let ids = nowhere.map(|chunk| chunk.chunk.id).filter(|id| kept(*id).is_none());
        let runs: Vec<Extent> =
            ids.take(ASKED_CHUNKS).map(|id| Extent { first: id.index, count: 1, version: id.version }).collect();
        if runs.is_empty() {
            return None;
        }
        Some(async move {
            let dead = registry.unreferenced(runs).await.unwrap_or_else(|error| {
                debug!(%error, "cannot find out whether chunks that no node has are in use");
                Vec::new()
            });
            dead.into_iter().map(|piece| ChunkId { version: piece.version, index: piece.first }).collect()
        })
    }

    /// The routes may be older than the failure, and are kept until newer ones are learnt: until the ring has closed up
    /// around an unresponsive node, no node knows more. So the holders are asked, and the ring if all are unresponsive.
    fn current_holders(
        &self,
        open: &HashMap<ChunkId, DurabilityCheck>,
    ) -> impl Future<Output = Vec<(ChunkId, Vec<NodeRef>)>> + use<'_> {
        let wanted: Vec<(RingId, ChunkId)> = open.values().map(|chunk| (chunk.key, chunk.chunk.id)).collect();
        let nodes: HashSet<NodeRef> = open.values().flat_map(|chunk| &chunk.nodes).copied().collect();
        async move {
            join_all(
                nodes.iter().filter(|node| !self.router.is_unresponsive(node)).map(|node| self.router.refresh(node)),
            )
            .await;
            let routes = self.routes(wanted.iter().map(|(key, _)| *key)).await;
            for route in routes
                .iter()
                .flatten()
                .filter(|route| route.holders.iter().all(|node| self.router.is_unresponsive(node)))
            {
                self.router.forget(route);
            }
            let known = wanted.iter().zip(routes).filter_map(|((_, id), route)| Some((*id, route?.holders.clone())));
            known.collect()
        }
    }

    /// Brings chunks to a node's disk.
    async fn copy(
        &self,
        from: CopySource,
        to: NodeRef,
        wanted: Vec<KeyedRef>,
        kept: LocalCopies<'_>,
    ) -> DurabilityAnswer {
        let found = match from {
            CopySource::Disk(node) => self.get_group(node, wanted.clone()).await.records,
            CopySource::Memory => {
                wanted.iter().filter_map(|(_, chunk)| Some((chunk.id, kept(chunk.id)?))).collect::<FoundChunks>()
            }
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

    async fn check_at(&self, node: NodeRef, chunks: Vec<ChunkRef>) -> DurabilityAnswer {
        let mut said = Vec::with_capacity(chunks.len());
        for refs in chunks.chunks(MAX_BATCH_CHUNKS) {
            let asked = self.pool.post(node.files_address(), calls::SECURE, vec![encode_refs(refs)], ANSWER_DEADLINE);
            match asked.await {
                Ok(answer) if answer.status.is_success() && answer.body.len() == refs.len() => {
                    said.extend(refs.iter().map(|chunk| chunk.id).zip(answer.body));
                }
                Ok(answer) => {
                    debug!(%node, status = %answer.status, bytes = answer.body.len(), "an unusable answer about what is on disk");
                    break;
                }
                Err(error) => {
                    debug!(%node, %error, "no answer about what is on disk");
                    break;
                }
            }
        }
        (node, said)
    }
}

/// For each node that is not being asked already, the chunks that it has not reported on its disk.
fn open_by_node(open: &HashMap<ChunkId, DurabilityCheck>, busy: &HashSet<NodeRef>) -> HashMap<NodeRef, Vec<ChunkRef>> {
    let mut by_node: HashMap<NodeRef, Vec<ChunkRef>> = HashMap::new();
    for chunk in open.values() {
        for node in chunk.nodes.iter().filter(|node| !busy.contains(node) && !chunk.on_disk.contains(node)) {
            by_node.entry(*node).or_default().push(chunk.chunk.clone());
        }
    }
    by_node
}

/// For each pair of source and receiver, as many chunks as one batch may carry.
fn copies_to_make(
    open: &HashMap<ChunkId, DurabilityCheck>,
    busy: &HashSet<NodeRef>,
    kept: LocalCopies<'_>,
) -> HashMap<(CopySource, NodeRef), Vec<KeyedRef>> {
    let mut copies: HashMap<_, Vec<KeyedRef>> = HashMap::new();
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

fn note_answer(open: &mut HashMap<ChunkId, DurabilityCheck>, node: NodeRef, id: ChunkId, byte: u8) {
    let Some(chunk) = open.get_mut(&id) else { return };
    let seen = if byte == ON_DISK { &mut chunk.on_disk } else { &mut chunk.absent };
    if !seen.contains(&node) {
        seen.push(node);
    }
    if byte == DELETED || chunk.is_safe() {
        open.remove(&id);
    }
}

fn too_few(open: &HashMap<ChunkId, DurabilityCheck>) -> FsError {
    let example = open.values().next().map(|chunk| {
        let (file, index) = (&chunk.chunk.file, chunk.chunk.id.index);
        format!("{file}_chunk_{index}, on disk at {:?}, asked of {:?}", chunk.on_disk, chunk.nodes)
    });
    FsError::NoReplica {
        detail: format!("too few holders have {} chunks on disk: {}", open.len(), example.unwrap_or_default()),
    }
}
