//! Checks for each chunk whether enough disks have it. The nodes that stored the chunks and their current holders are
//! queried repeatedly until they do or the time is up, because repair may be copying to the current holders.
//!
//! A holder that lacks a chunk which another has on disk receives a copy from this client: repair has its own order,
//! and may copy a whole node's chunks before these. If no node has the chunk, this client sends it from memory: the two
//! nodes that acknowledged it can fail in the same moment, before the third has its copy.
//!
//! If all nodes report that they lack a chunk, it may have been deleted so long ago that they have forgotten it. Then
//! the namespace is asked whether any file references it, but not before every commit that could still name it has been
//! applied or given up. All members of the ring are asked, too. A chunk that none of them has by the end is lost. The
//! check does not wait for the end if the writer has replaced the lost chunk, and does not report it then.
//!
//! Each node has one request at a time, independently of the others, so an unresponsive node delays no other. The
//! current holders are looked up concurrently. A node is not asked again about a chunk that it has reported on its
//! disk: the chunk stays there.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
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

use super::{ChunkClient, LocalChunks, attempt_deadline, batch::KeyedRef, get::FoundChunks};
use crate::boot_clock::since_boot;

/// How often the ring and the nodes are queried.
const PERIOD: Duration = Duration::from_millis(500);
/// For one answer. A slower disk has begun to sync by then, and is queried again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Chunks in one query to the namespace.
const QUERIED_CHUNKS: usize = 1024;
/// Chunks copied to a node at a time.
const COPIED_CHUNKS: usize = 1024;

/// A chunk counts as lost when all members of the ring were asked about it for this long: a copy may be on its way from
/// one node to another meanwhile.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// A chunk that may be on too few disks.
pub(super) struct DurabilityCheck {
    key: RingId,
    chunk: ChunkRef,
    /// When the chunk was put, by the boot clock.
    sent: Duration,
    /// The current holders, the holders at the time of the put, and the nodes known to have stored the chunk.
    nodes: Vec<NodeRef>,
    /// The current holders; empty until they are looked up.
    holders: Vec<NodeRef>,
    /// The number of disks that must have the chunk.
    required: usize,
    on_disk: Vec<NodeRef>,
    /// Nodes that reported that they lack the chunk.
    absent: Vec<NodeRef>,
    /// All members of the ring, once they are asked, and since when they are.
    members: Option<(Arc<[NodeRef]>, Instant)>,
}

impl DurabilityCheck {
    pub(super) fn new(key: RingId, chunk: ChunkRef, stored: &[NodeRef], holders: &[NodeRef], sent: Duration) -> Self {
        // Until the holders are looked up, their full number is assumed.
        let nodes = stored.to_vec();
        let required = write_quorum(REPLICAS);
        let (holders_now, on_disk, absent, members) = (vec![], vec![], vec![], None);
        let mut new = Self { key, chunk, sent, nodes, holders: holders_now, required, on_disk, absent, members };
        new.add_nodes(holders);
        new
    }

    fn is_safe(&self) -> bool {
        self.on_disk.len() >= self.required
    }

    /// Whether every node that had the chunk, or should have it, has reported that it lacks it.
    fn is_nowhere(&self) -> bool {
        !self.holders.is_empty() && self.on_disk.is_empty() && self.nodes.iter().all(|node| self.absent.contains(node))
    }

    /// Whether every member of the ring has reported that it lacks the chunk. Nodes outside the ring do not count.
    fn is_lost(&self, local_copies: &dyn LocalChunks) -> bool {
        let lack = |(members, since): &(Arc<[NodeRef]>, Instant)| {
            since.elapsed() >= LOST_AFTER && members.iter().all(|node| self.absent.contains(node))
        };
        self.on_disk.is_empty() && self.members.as_ref().is_some_and(lack) && local_copies.copy(self.chunk.id).is_none()
    }

    fn learn_members(&mut self, members: &Arc<[NodeRef]>) {
        let since = self.members.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        self.members = Some((members.clone(), since));
        self.add_nodes(members);
    }

    fn learn_holders(&mut self, holders: &[NodeRef]) {
        self.required = write_quorum(holders.len());
        self.holders = holders.to_vec();
        self.add_nodes(holders);
    }

    /// The source of a copy for `node`, if it should have the chunk and lacks it.
    fn source_for(&self, node: &NodeRef, local_copies: &dyn LocalChunks) -> Option<CopySource> {
        if !self.holders.contains(node) || !self.absent.contains(node) {
            return None;
        }
        let here = || local_copies.copy(self.chunk.id).map(|_| CopySource::Memory);
        self.on_disk.first().map(|node| CopySource::Disk(*node)).or_else(here)
    }

    fn add_nodes(&mut self, nodes: &[NodeRef]) {
        for node in nodes {
            if !self.nodes.contains(node) {
                self.nodes.push(*node);
            }
        }
    }
}

/// The source of a copy: another node's disk, or this client's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum CopySource {
    Disk(NodeRef),
    Memory,
}

/// The chunks of which too few disks have a copy.
pub(super) struct NotDurable {
    pub chunks: HashSet<ChunkId>,
    pub error: FsError,
}

impl NotDurable {
    /// Whether no more than lost chunks is left.
    pub(super) fn is_loss(&self) -> bool {
        matches!(self.error, FsError::Lost { .. })
    }
}

/// The ring as it is now.
struct LookedUp {
    holders: Vec<(ChunkId, Vec<NodeRef>)>,
    /// All members of the ring, if there are chunks that no holder has.
    members: Option<Arc<[NodeRef]>>,
}

/// A node, and the status byte that it returned for each chunk; empty if it did not answer.
type DurabilityAnswer = (NodeRef, Vec<(ChunkId, u8)>);

impl ChunkClient {
    /// Returns when each chunk is on the disks of two of its holders (of all in a smaller ring), or is deleted.
    pub(super) async fn ensure_durable(
        &self,
        chunks: Vec<DurabilityCheck>,
        end: Instant,
        local_copies: &dyn LocalChunks,
    ) -> Result<(), NotDurable> {
        let mut open: HashMap<ChunkId, DurabilityCheck> = HashMap::with_capacity(chunks.len());
        for chunk in chunks {
            match open.entry(chunk.chunk.id) {
                Entry::Occupied(mut known) => known.get_mut().add_nodes(&chunk.nodes),
                Entry::Vacant(vacant) => drop(vacant.insert(chunk)),
            }
        }
        let mut requests: FuturesUnordered<BoxFuture<'_, DurabilityAnswer>> = FuturesUnordered::new();
        let mut busy = HashSet::new();
        let mut reference_query = None;
        let mut look_up = Some(Box::pin(self.current_holders(&open)));
        let mut next_look_up = Instant::now();
        while !open.is_empty() {
            select! {
                Some(found) = OptionFuture::from(look_up.as_mut()) => {
                    (look_up, next_look_up) = (None, Instant::now() + PERIOD);
                    for (id, holders) in found.holders {
                        open.get_mut(&id).into_iter().for_each(|chunk| chunk.learn_holders(&holders));
                    }
                    if let Some(members) = found.members {
                        open.values_mut().filter(|chunk| chunk.is_nowhere()).for_each(|chunk| chunk.learn_members(&members));
                    }
                    open.retain(|id, chunk| {
                        let is_no_loss = chunk.is_lost(local_copies) && local_copies.is_superseded(*id);
                        !(chunk.is_safe() || is_no_loss)
                    });
                    if reference_query.is_none() {
                        reference_query = self.query_unreferenced(&open, local_copies).map(Box::pin);
                    }
                    for ((from, to), requested) in copies_to_make(&open, &busy, local_copies) {
                        if busy.insert(to) {
                            requests.push(Box::pin(self.copy(from, to, requested, local_copies)));
                        }
                    }
                    for (node, refs) in open_by_node(&open, &busy) {
                        busy.insert(node);
                        requests.push(Box::pin(self.check_at(node, refs)));
                    }
                }
                Some(dead) = OptionFuture::from(reference_query.as_mut()) => {
                    reference_query = None;
                    open.retain(|id, _| !dead.contains(id));
                }
                () = sleep_until(next_look_up), if look_up.is_none() => look_up = Some(Box::pin(self.current_holders(&open))),
                Some((node, statuses)) = requests.next() => {
                    busy.remove(&node);
                    statuses.into_iter().for_each(|(id, byte)| note_answer(&mut open, node, id, byte));
                }
                () = sleep_until(end) => return Err(not_durable(&open, local_copies)),
            }
        }
        Ok(())
    }

    /// Finds out which of the chunks that no node has are referenced by no file. `None` if there is no such chunk, or
    /// no namespace to query.
    fn query_unreferenced(
        &self,
        open: &HashMap<ChunkId, DurabilityCheck>,
        local_copies: &dyn LocalChunks,
    ) -> Option<impl Future<Output = HashSet<ChunkId>> + use<'_>> {
        let (references, now) = (self.references.get()?, since_boot());
        let is_old = |chunk: &DurabilityCheck| now.saturating_sub(chunk.sent) >= self.settled_after;
        let nowhere = open.values().filter(|chunk| chunk.is_nowhere() && is_old(chunk));
        let ids = nowhere.map(|chunk| chunk.chunk.id).filter(|id| local_copies.copy(*id).is_none());
        let runs: Vec<Extent> =
            ids.take(QUERIED_CHUNKS).map(|id| Extent { first: id.index, count: 1, version: id.version }).collect();
        if runs.is_empty() {
            return None;
        }
        Some(async move {
            let dead = references.unreferenced(runs).await.unwrap_or_else(|error| {
                debug!(%error, "cannot find out whether chunks that no node has are in use");
                Vec::new()
            });
            dead.into_iter().map(|piece| ChunkId { version: piece.version, index: piece.first }).collect()
        })
    }

    /// Looks up the current holders of the chunks. The known routes may be older than the failure, but stay valid until
    /// newer ones are learnt: before the ring has closed up around an unresponsive node, no node knows better. So the
    /// holders are asked for their neighbours, and the rest of the ring only if all holders are unresponsive.
    fn current_holders(&self, open: &HashMap<ChunkId, DurabilityCheck>) -> impl Future<Output = LookedUp> + use<'_> {
        let requested: Vec<(RingId, ChunkId)> = open.values().map(|chunk| (chunk.key, chunk.chunk.id)).collect();
        let nodes: HashSet<NodeRef> = open.values().flat_map(|chunk| &chunk.nodes).copied().collect();
        let any_nowhere = open.values().any(DurabilityCheck::is_nowhere);
        async move {
            join_all(
                nodes.iter().filter(|node| !self.router.is_unresponsive(node)).map(|node| self.router.refresh(node)),
            )
            .await;
            let routes = self.routes(requested.iter().map(|(key, _)| *key)).await;
            for route in routes
                .iter()
                .flatten()
                .filter(|route| route.holders.iter().all(|node| self.router.is_unresponsive(node)))
            {
                self.router.drop_route(route);
            }
            let known = requested.iter().zip(routes).filter_map(|((_, id), route)| Some((*id, route?.holders.clone())));
            let members = if any_nowhere { self.all_members().await } else { None };
            LookedUp { holders: known.collect(), members: members.map(Arc::from) }
        }
    }

    /// Copies chunks to a node's disk.
    async fn copy(
        &self,
        from: CopySource,
        to: NodeRef,
        requested: Vec<KeyedRef>,
        local_copies: &dyn LocalChunks,
    ) -> DurabilityAnswer {
        let found = match from {
            CopySource::Disk(node) => self.get_group(node, requested.clone()).await.records,
            CopySource::Memory => requested
                .iter()
                .filter_map(|(_, chunk)| Some((chunk.id, local_copies.copy(chunk.id)?)))
                .collect::<FoundChunks>(),
        };
        let mut body = BytesMut::new();
        let mut brought = Vec::with_capacity(found.len());
        for (key, chunk) in &requested {
            if let Some(data) = found.get(&chunk.id) {
                encode_record(&mut body, &chunk.file, chunk.id, *key, data);
                brought.push((chunk.id, ON_DISK));
            }
        }
        let (target, deadline) = (PutQuery::local(Durability::Disk).target(), attempt_deadline(body.len()));
        match self.pool.post(to.files_address(), &target, vec![body.freeze()], deadline).await {
            Ok(answer) if answer.status.is_success() => return (to, brought),
            Ok(answer) => debug!(node = %to, status = %answer.status, reason = answer.text(), "a copy was refused"),
            Err(error) => debug!(node = %to, %error, "a copy did not arrive"),
        }
        (to, Vec::new())
    }

    async fn check_at(&self, node: NodeRef, chunks: Vec<ChunkRef>) -> DurabilityAnswer {
        let mut statuses = Vec::with_capacity(chunks.len());
        for refs in chunks.chunks(MAX_BATCH_CHUNKS) {
            let request = self.pool.post(node.files_address(), calls::SECURE, vec![encode_refs(refs)], ANSWER_DEADLINE);
            match request.await {
                Ok(answer) if answer.status.is_success() && answer.body.len() == refs.len() => {
                    statuses.extend(refs.iter().map(|chunk| chunk.id).zip(answer.body));
                }
                Ok(answer) => {
                    debug!(%node, status = %answer.status, bytes = answer.body.len(), "an unusable answer to a durability check");
                    break;
                }
                Err(error) => {
                    debug!(%node, %error, "no answer to a durability check");
                    break;
                }
            }
        }
        (node, statuses)
    }
}

/// For each node without a request in flight, the chunks that it has not reported on its disk.
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
    local_copies: &dyn LocalChunks,
) -> HashMap<(CopySource, NodeRef), Vec<KeyedRef>> {
    let mut copies: HashMap<_, Vec<KeyedRef>> = HashMap::new();
    for chunk in open.values() {
        let to = chunk.holders.iter().filter(|node| !busy.contains(node));
        let ways = to.filter_map(|to| Some((chunk.source_for(to, local_copies)?, *to)));
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
    let nodes = if byte == ON_DISK { &mut chunk.on_disk } else { &mut chunk.absent };
    if !nodes.contains(&node) {
        nodes.push(node);
    }
    if byte == DELETED || chunk.is_safe() {
        open.remove(&id);
    }
}

fn not_durable(open: &HashMap<ChunkId, DurabilityCheck>, local_copies: &dyn LocalChunks) -> NotDurable {
    let is_loss = open.values().all(|chunk| chunk.is_lost(local_copies));
    let example = open.values().next().map(|chunk| {
        let (file, index) = (&chunk.chunk.file, chunk.chunk.id.index);
        format!("{file}_chunk_{index}, on disk at {:?}, requested from {:?}", chunk.on_disk, chunk.nodes)
    });
    let (count, example) = (open.len(), example.unwrap_or_default());
    let error = if is_loss {
        FsError::Lost { detail: format!("{count} chunks, of which no storage node has a copy: {example}") }
    } else {
        FsError::NoReplica { detail: format!("too few holders have {count} chunks on disk: {example}") }
    };
    NotDurable { chunks: open.keys().copied().collect(), error }
}
