//! Looks for orphans: stored chunks that belong to no file, left by writers that died before their commit or by
//! deletions that a node missed. Each chunk is judged by itself, because the rest of the same write may belong to a
//! file. Orphans take space and do no harm, so a check lists them without failing.
//!
//! A chunk is stored before it becomes part of a file, and a deleted chunk is removed some seconds after it has left
//! its file. So a candidate is checked again after the grace: against the files of that moment, and on the nodes that
//! had it.

use std::{collections::HashMap, time::Instant};

use anyhow::Result;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef},
    chunk_api::ChunkList,
    namespace::Ino,
    ring_id::NodeRef,
};
use tokio::time::sleep;

use super::{
    RingCheck,
    judge::{CopyFinding, Referenced},
};

/// The most candidates, which are looked at twice. Further ones are only counted.
const MAX_CANDIDATES: usize = 256 << 10;

type UnnamedChunks = HashMap<ChunkId, (ChunkRef, Vec<NodeRef>)>;

impl RingCheck {
    /// `referenced`: the chunks of the files at the time of the walk.
    pub(super) async fn orphans(&mut self, referenced: Referenced) -> Result<()> {
        let listed = Instant::now();
        let mut candidates = UnnamedChunks::new();
        for node in self.holder_map.nodes().to_vec() {
            self.list(node, &referenced, &mut candidates).await;
        }
        if candidates.is_empty() {
            return Ok(());
        }
        sleep(self.options.grace.saturating_sub(listed.elapsed())).await;
        let referenced = self.walk_files().await?;
        candidates.retain(|id, _| !referenced.contains(*id));
        self.report_still_stored(candidates).await;
        Ok(())
    }

    async fn list(&mut self, node: NodeRef, referenced: &Referenced, candidates: &mut UnnamedChunks) {
        let mut next = Some(0);
        while let Some(from) = next {
            let Some(ChunkList { chunks, next: rest }) = self.peers.stored(&node, from).await else {
                return self.add_unresponsive(node);
            };
            for chunk in chunks.into_iter().map(|listed| listed.chunk) {
                if referenced.contains(chunk.id) {
                    self.report.surplus_copies += u64::from(!self.holder_map.is_holder(&node, chunk.key()));
                } else if !add_candidate(candidates, chunk, node, MAX_CANDIDATES) {
                    self.report.unexamined_copies += 1;
                }
            }
            next = rest;
        }
    }

    /// Walks the files again, without asking holders.
    async fn walk_files(&mut self) -> Result<Referenced> {
        let mut referenced = Referenced::default();
        let mut next = Some((Ino(0), 0));
        while let Some(from) = next {
            let (files, rest) = self.contents(from).await?;
            files.iter().flat_map(|file| &file.extents).for_each(|extent| referenced.add(extent));
            next = rest;
        }
        Ok(referenced.seal())
    }

    async fn report_still_stored(&mut self, candidates: UnnamedChunks) {
        let mut groups: HashMap<NodeRef, Vec<ChunkRef>> = HashMap::new();
        for (chunk, nodes) in candidates.into_values() {
            nodes.into_iter().for_each(|node| groups.entry(node).or_default().push(chunk.clone()));
        }
        let asked: Vec<(NodeRef, Vec<ChunkRef>)> = groups.clone().into_iter().collect();
        let mut stored = UnnamedChunks::new();
        for (node, copies) in self.peers.copies(asked, false).await {
            let here = groups[&node].iter().zip(copies).filter(|(_, copy)| *copy == CopyFinding::Sound);
            for (chunk, _) in here {
                stored.entry(chunk.id).or_insert_with(|| (chunk.clone(), Vec::new())).1.push(node);
            }
        }
        let mut orphans: Vec<_> = stored.into_values().collect();
        orphans.sort_by_key(|(chunk, _)| chunk.id);
        orphans.into_iter().for_each(|(chunk, nodes)| self.report.orphaned.add(&chunk, nodes.into_iter()));
    }
}

/// Returns false if there are too many candidates already.
fn add_candidate(candidates: &mut UnnamedChunks, chunk: ChunkRef, node: NodeRef, most: usize) -> bool {
    let fits = candidates.len() < most || candidates.contains_key(&chunk.id);
    if fits {
        candidates.entry(chunk.id).or_insert_with(|| (chunk, Vec::new())).1.push(node);
    }
    fits
}

#[cfg(test)]
mod tests {
    use chordfs_types::{
        chunk::{FileName, Version},
        ring_id::RingId,
    };

    use super::*;

    #[test]
    fn no_copy_beyond_the_bound_goes_uncounted() {
        let node = NodeRef { ip: [127, 0, 0, 1].into(), port: 1, id: RingId(1) };
        let chunk =
            |index| ChunkRef { file: FileName::new("a").expect("a name"), id: ChunkId { version: Version(7), index } };
        let mut candidates = UnnamedChunks::new();
        let mut added = |index| add_candidate(&mut candidates, chunk(index), node, 2);
        assert_eq!([1, 2, 3, 1, 4].map(&mut added), [true, true, false, true, false]);
    }
}
