//! What nodes do and suffer by themselves: page caches are written out, copies repaired, nodes crash and come back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chordfs_types::{
    chunk::{ChunkId, ChunkRun, FileName, Version},
    chunk_api::REPLICAS,
};
use tokio::time::{Instant, sleep};

use super::{NODES, Node, Plane, PlaneState};

const REPAIR_EVERY: Duration = Duration::from_secs(4);

impl Plane {
    /// Starts the upkeep; it ends with the runtime.
    pub(crate) fn start_upkeep(self: &Arc<Self>) {
        for node in 0..NODES {
            let plane = self.clone();
            tokio::spawn(async move {
                loop {
                    let pause = plane.world.random(|random| random.between(5_000, 30_000));
                    sleep(Duration::from_millis(pause)).await;
                    plane.state.lock().nodes[node].sync();
                }
            });
        }
        let plane = self.clone();
        tokio::spawn(async move {
            loop {
                sleep(REPAIR_EVERY).await;
                plane.state.lock().repair();
            }
        });
    }

    /// The node stops. With `loses` its machine does, and what it had not synced is gone.
    pub(crate) fn crash(&self, node: usize, loses: bool) {
        let mut state = self.state.lock();
        state.nodes[node].down_since.get_or_insert_with(Instant::now);
        let gone = if loses { state.nodes[node].lose_unsynced() } else { Vec::new() };
        let lost = gone.iter().filter(|id| state.is_lost(**id));
        let lost: Vec<String> = lost.map(|id| format!("{}@{}", id.index, id.version.0)).collect();
        drop(state);
        self.world.note(format!("node {node} crashes, loses {} copies; lost with it: {}", gone.len(), lost.join(" ")));
    }

    pub(crate) fn restart(&self, node: usize) {
        self.state.lock().nodes[node].down_since = None;
        self.world.note(format!("node {node} is back"));
    }

    /// Runs of chunks whose version was put longer ago than `age` as a whole.
    pub(crate) fn old_chunks(&self, age: Duration) -> Vec<ChunkRun> {
        let state = self.state.lock();
        let mut versions: BTreeMap<Version, (FileName, Instant, Vec<u32>)> = BTreeMap::new();
        for (id, known) in &state.known {
            if state.nodes.iter().any(|node| node.is_up() && node.copies.contains_key(id)) {
                let entry = versions.entry(id.version).or_insert((known.file.clone(), known.put_at, Vec::new()));
                entry.1 = entry.1.max(known.put_at);
                entry.2.push(id.index);
            }
        }
        let old = versions.into_iter().filter(|(_, (_, put_at, _))| put_at.elapsed() >= age);
        let runs = old.flat_map(|(version, (file, _, indexes))| {
            indexes.into_iter().map(move |first| ChunkRun { file: file.clone(), first, count: 1, version })
        });
        runs.collect()
    }
}

impl Node {
    pub(super) fn sync(&mut self) {
        if self.is_up() {
            self.copies.values_mut().for_each(|stored| stored.on_disk = true);
        }
    }

    fn lose_unsynced(&mut self) -> Vec<ChunkId> {
        let gone: Vec<ChunkId> = self.copies.iter().filter(|(_, stored)| !stored.on_disk).map(|(id, _)| *id).collect();
        self.copies.retain(|_, stored| stored.on_disk);
        gone
    }
}

impl PlaneState {
    /// Each holder gets what it lacks and another node that is up has.
    fn repair(&mut self) {
        let mut missing = Vec::new();
        for (id, known) in &self.known {
            let copies = self.nodes.iter().filter(|node| node.is_up() && node.copies.contains_key(id)).count();
            if (1..REPLICAS).contains(&copies) && !self.is_deleted(*id) {
                let holders = self.up_holders(&known.file, id.index);
                missing.extend(holders.into_iter().map(|node| (node, *id)));
            }
        }
        for (node, id) in missing {
            self.store_at(node, id, false);
        }
    }
}
