//! Reconciles two holders of an arc: compares them, fetches the chunks missing here, sends the chunks missing there.
//!
//! No chunk is copied that the receiver has or is about to get. Chunks that a writer is sending are left out, chunks to
//! fetch are claimed, and chunks to send are offered first: the receiver replies which it wants, and takes each chunk
//! from one node at a time.
//!
//! A chunk that one of the two has deleted recently is not copied back: the other was away during the deletion, and
//! deletes the chunk now.

use chordfs_log::{info_limited, warn_limited};
use chordfs_replication::{
    arc_comparison::{ArcComparison, ComparisonStep, CopyAmount, Difference, compare},
    repair_progress::Direction,
};
use chordfs_types::{
    chunk::VerifiedBatch,
    chunk_api::Durability,
    compare_api::{ArcSum, ChunkAt, GONE, IdsRequest, SEND},
    ring_id::{Neighbours, NodeRef, RingArc},
};
use tracing::debug;

use super::{
    peer::{PeerError, Sender},
    repair::{Repair, RepairError},
};
use crate::blocking::with_store;

/// The most chunks, and bytes, that one request moves.
const MOVE_CHUNKS: usize = 1024;
const MOVE_BYTES: u64 = 4 << 20;
/// How many chunks may have arrived at a peer since it counted them; a peer that lists more is faulty.
const MAX_ARRIVED_MEANWHILE: u64 = 1 << 18;

/// How many chunks a round copied in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCounts {
    pub pushed: u64,
    pub pulled: u64,
}

impl CopyCounts {
    pub fn plus(self, other: Self) -> Self {
        Self { pushed: self.pushed + other.pushed, pulled: self.pulled + other.pulled }
    }
}

impl Repair {
    /// Counts what the holder lacks of the arc that this node owns, for the status, and copies nothing.
    pub(super) async fn compare_only(&self, view: &Neighbours, holder: &NodeRef) -> Result<CopyCounts, RepairError> {
        let (ours, theirs) = self.both_sums(holder, &[view.arc()]).await?;
        self.traffic.compared_with(holder, ArcComparison::new(view.arc(), ours[0], theirs[0]).left());
        Ok(CopyCounts::default())
    }

    /// Copies until the holder and this node have the same chunks in the arc that this node owns.
    pub async fn reconcile(&self, view: &Neighbours, holder: &NodeRef) -> Result<CopyCounts, RepairError> {
        let arc = view.arc();
        let (ours, theirs) = self.both_sums(holder, &[arc]).await?;
        let mut comparison = ArcComparison::new(arc, ours[0], theirs[0]);
        let mut moved = CopyCounts::default();
        self.traffic.compared_with(holder, comparison.left());
        let mut outcome = Ok(());
        while let Some(step) = comparison.next_step() {
            match step {
                ComparisonStep::Sums(arcs) => {
                    let (ours, theirs) = self.both_sums(holder, &arcs).await?;
                    comparison.learn(&arcs, &ours, &theirs);
                    self.traffic.plan(holder, comparison.left());
                }
                ComparisonStep::Ids { arcs, expected } => {
                    let difference = self.difference_with(holder, arcs, expected).await?;
                    let (more, settled) = self.copy_difference(view, holder, difference, comparison.left()).await;
                    moved = moved.plus(more);
                    match settled {
                        // If one side has no space left, the other still gets its missing chunks.
                        Err(error) if error.is_no_space() => outcome = Err(error),
                        settled => settled?,
                    }
                }
            }
        }
        if moved != CopyCounts::default() {
            info_limited!(peer = %holder, pushed = moved.pushed, pulled = moved.pulled, "reconciled with a holder");
        }
        outcome?;
        if self.traffic.expecting_peers().contains(holder) {
            self.announce_nothing_left(view, holder).await;
        }
        Ok(moved)
    }

    /// Tells a node that no more chunks follow: it has received the announced ones from elsewhere, and would continue
    /// to expect them. If this call fails, the node stops expecting them after a while.
    pub(super) async fn announce_nothing_left(&self, view: &Neighbours, node: &NodeRef) {
        self.traffic.set_announced(node, CopyAmount::default());
        let from = Sender { node: view.node.id, left: CopyAmount::default() };
        if let Err(error) = self.peers.offer(node, &from, &[]).await {
            debug!(peer = %node, %error, "cannot tell the node that no more chunks follow");
        }
    }

    /// Offers the chunks and sends those that the holder wants. `left` is the amount still to be sent, these included.
    pub(super) async fn push(
        &self,
        view: &Neighbours,
        holder: &NodeRef,
        chunks: &[ChunkAt],
        left: CopyAmount,
    ) -> Result<u64, RepairError> {
        let later = left.without(CopyAmount::of(chunks));
        let chunks = self.traffic.without_replica_writes(holder, chunks);
        if chunks.is_empty() {
            return Ok(0);
        }
        let offered = CopyAmount::of(&chunks);
        let left = later.and(offered);
        self.traffic.set_announced(holder, left);
        self.traffic.spend(offered.bytes).await;
        let from = Sender { node: view.node.id, left };
        let wanted = self.offer(holder, &from, &chunks).await.inspect_err(|_| self.traffic.refund(offered.bytes))?;
        self.traffic.refund(offered.bytes - CopyAmount::of(&wanted).bytes);
        if wanted.is_empty() {
            self.traffic.set_announced(holder, later);
            return Ok(0);
        }
        let records = with_store(&self.store, move |store| store.records_at(&wanted, 2 * MOVE_BYTES)).await?;
        let sent =
            CopyAmount { chunks: records.len() as u64, bytes: records.iter().map(|record| record.len() as u64).sum() };
        self.peers.put_accepted(holder, &Sender { left: later, ..from }, records).await?;
        self.traffic.set_announced(holder, later);
        self.traffic.moved(Direction::Outgoing, sent);
        Ok(sent.chunks)
    }

    /// Offers the chunks and returns those that the holder wants.
    async fn offer(&self, holder: &NodeRef, from: &Sender, chunks: &[ChunkAt]) -> Result<Vec<ChunkAt>, PeerError> {
        let answers = self.peers.offer(holder, from, chunks).await?;
        if let Some(answer) = answers.iter().find(|answer| **answer > GONE) {
            let reason = format!("{answer} is no answer to an offer");
            return Err(PeerError::Answer { node: *holder, reason });
        }
        let answered = |wanted: u8| {
            let found = chunks.iter().zip(&answers).filter(move |(_, answer)| **answer == wanted);
            found.map(|(chunk, _)| *chunk).collect::<Vec<_>>()
        };
        self.delete_here(holder, answered(GONE)).await;
        Ok(answered(SEND))
    }

    /// Deletes chunks here that the peer reports as deleted for good.
    async fn delete_here(&self, peer: &NodeRef, gone: Vec<ChunkAt>) {
        if gone.is_empty() {
            return;
        }
        let count = gone.len();
        match with_store(&self.store, move |store| Ok(store.delete_at(&gone))).await {
            Ok(deleted) => info_limited!(%peer, deleted, count, "deleted chunks that were deleted elsewhere"),
            Err(error) => warn_limited!(%peer, %error, count, "cannot delete chunks that were deleted elsewhere"),
        }
    }

    /// Fetches the chunks that are neither here nor coming from another node. Reports chunks deleted here to the
    /// holder, which deletes them too.
    async fn pull(&self, view: &Neighbours, holder: &NodeRef, chunks: &[ChunkAt]) -> Result<u64, RepairError> {
        let (gone, chunks): (Vec<ChunkAt>, Vec<ChunkAt>) =
            chunks.iter().partition(|chunk| self.store.has_tombstone(chunk));
        if !gone.is_empty() {
            self.peers.report_deleted(holder, &gone).await?;
        }
        let offered = CopyAmount::of(&chunks);
        self.traffic.spend(offered.bytes).await;
        let claimed = self.traffic.claim(&self.store, view.node.id, &chunks);
        self.traffic.refund(offered.bytes - CopyAmount::of(&claimed.chunks).bytes);
        if claimed.chunks.is_empty() {
            return Ok(0);
        }
        let batch = VerifiedBatch::verify(self.peers.fetch(holder, &claimed.chunks).await?)?;
        let moved = CopyAmount { chunks: batch.records.len() as u64, bytes: batch.bytes.len() as u64 };
        let stored = with_store(&self.store, move |store| store.put(&batch, Durability::Disk)).await?.stored;
        self.traffic.moved(Direction::Incoming, moved);
        Ok(stored as u64)
    }

    /// Copies the differing chunks in both directions; an error in one direction does not stop the other. `later` is
    /// the known amount left after that, to fetch and to send.
    async fn copy_difference(
        &self,
        view: &Neighbours,
        holder: &NodeRef,
        difference: Difference,
        later: (CopyAmount, CopyAmount),
    ) -> (CopyCounts, Result<(), RepairError>) {
        let (mut moved, send) = (CopyCounts::default(), later.1.and(CopyAmount::of(&difference.push)));
        let mut fetch = later.0.and(CopyAmount::of(&difference.pull));
        let (mut pulled, mut pushed) = (Ok(()), Ok(()));
        for batch in batches(&difference.pull) {
            self.traffic.plan(holder, (fetch, send));
            match self.pull(view, holder, &batch).await {
                Ok(count) => moved.pulled += count,
                Err(error) => {
                    pulled = Err(error);
                    break;
                }
            }
            fetch = fetch.without(CopyAmount::of(&batch));
        }
        let mut send = send;
        for batch in batches(&difference.push) {
            self.traffic.plan(holder, (fetch, send));
            match self.push(view, holder, &batch, send).await {
                Ok(count) => moved.pushed += count,
                Err(error) => {
                    pushed = Err(error);
                    break;
                }
            }
            send = send.without(CopyAmount::of(&batch));
        }
        self.traffic.plan(holder, (fetch, send));
        (moved, pushed.and(pulled))
    }

    async fn both_sums(&self, peer: &NodeRef, arcs: &[RingArc]) -> Result<(Vec<ArcSum>, Vec<ArcSum>), RepairError> {
        let theirs = self.peers.sums(peer, arcs).await?;
        let arcs = arcs.to_vec();
        Ok((with_store(&self.store, move |store| Ok(store.sums(&arcs))).await?, theirs))
    }

    async fn difference_with(
        &self,
        peer: &NodeRef,
        arcs: Vec<RingArc>,
        expected: u64,
    ) -> Result<Difference, RepairError> {
        let theirs = self.ids_of(peer, arcs.clone(), expected).await?;
        let request = IdsRequest { arcs, after: None };
        let compared =
            with_store(&self.store, move |store| Ok(compare(&store.ids(&request, usize::MAX / 4).chunks, &theirs)));
        Ok(compared.await?)
    }

    async fn ids_of(&self, peer: &NodeRef, arcs: Vec<RingArc>, expected: u64) -> Result<Vec<ChunkAt>, RepairError> {
        let mut request = IdsRequest { arcs, after: None };
        let mut all: Vec<ChunkAt> = Vec::new();
        loop {
            let page = self.peers.ids(peer, &request).await?;
            all.extend(page.chunks);
            if !page.more {
                return Ok(all);
            }
            if all.len() as u64 > expected.saturating_add(MAX_ARRIVED_MEANWHILE) {
                let reason = format!("{} chunks where about {expected} were counted", all.len());
                return Err(PeerError::Answer { node: *peer, reason }.into());
            }
            request = next_page_request(request, all.last().copied());
        }
    }
}

/// The request for the next page, without the arcs that are done.
fn next_page_request(request: IdsRequest, last: Option<ChunkAt>) -> IdsRequest {
    let done = |arc: &RingArc| last.is_some_and(|last| !arc.contains(last.key));
    IdsRequest { arcs: request.arcs.into_iter().skip_while(done).collect(), after: last }
}

/// Cuts `chunks` into what one request may carry, by number and by bytes.
pub(super) fn batches(chunks: &[ChunkAt]) -> Vec<Vec<ChunkAt>> {
    let mut batches: Vec<Vec<ChunkAt>> = Vec::new();
    let mut bytes = 0;
    for chunk in chunks {
        bytes += u64::from(chunk.bytes);
        match batches.last_mut().filter(|batch| bytes <= MOVE_BYTES && batch.len() < MOVE_CHUNKS) {
            Some(batch) => batch.push(*chunk),
            None => {
                bytes = u64::from(chunk.bytes);
                batches.push(vec![*chunk]);
            }
        }
    }
    batches
}
