//! Rings of thousands of nodes, grown only by the shipping protocol: every node joins through a member.

use chordfs_types::ring_id::{NodeRef, RingId};

use crate::network::Sim;

impl Sim {
    /// Starts nodes until there are `size`, in waves that double the ring, and waits until all have their neighbours
    /// and fingers. False if the ring does not stabilize.
    pub fn grow_to(&mut self, size: usize) -> bool {
        if self.started() == 0 {
            self.start(None);
        }
        while self.started() < size {
            let wave = self.started().min(size - self.started());
            self.join_some(wave);
            if !self.settles() {
                return false;
            }
        }
        self.stabilizes()
    }

    /// Waits until neighbours and fingers are right. False if the ring does not stabilize.
    pub fn stabilizes(&mut self) -> bool {
        let has_settled = self.settles();
        self.run_for(self.period() * self.ticks_for_fingers());
        has_settled && self.is_ideal()
    }

    /// The ticks that look up all fingers beyond the successor once: about log2 of the ring's size, and a few more
    /// where the successor is near.
    fn ticks_for_fingers(&self) -> u32 {
        let fingers = self.started().ilog2() + NEAR_SUCCESSOR;
        fingers.min(FINGERS).div_ceil(self.fingers_per_tick() as u32) + 1
    }

    /// Checks only once a period, because the check visits every node.
    fn settles(&mut self) -> bool {
        (0..PERIODS_TO_SETTLE).any(|_| {
            self.run_for(self.period());
            self.is_ideal()
        })
    }

    /// Starts `count` nodes within a period, each joining through a random member.
    fn join_some(&mut self, count: usize) {
        let members = self.started() as u64;
        for _ in 0..count {
            self.run_for(self.period() / count as u32);
            let (node, member) = (self.start(None), self.rng.below(members) as usize);
            self.join(node, member);
        }
    }
}

const PERIODS_TO_SETTLE: u32 = 200;
const FINGERS: u32 = 32;
/// One successor in a hundred is 2^7 times nearer than the mean.
const NEAR_SUCCESSOR: u32 = 7;

/// The right owner of every key: the nodes that are up, sorted once for many queries.
pub struct Owners(Vec<NodeRef>);

impl Owners {
    pub fn of(sim: &Sim) -> Self {
        let mut nodes: Vec<NodeRef> = sim.up().into_iter().map(|node| sim.ring(node).me()).collect();
        nodes.sort_by_key(|node| node.id.0);
        Self(nodes)
    }

    pub fn owner(&self, key: RingId) -> Option<NodeRef> {
        self.holders(key, 1).next()
    }

    /// The owner and the nodes after it.
    pub fn holders(&self, key: RingId, copies: usize) -> impl Iterator<Item = NodeRef> + '_ {
        let place = self.0.partition_point(|node| node.id.0 < key.0);
        self.0.iter().cycle().skip(place).take(copies.min(self.0.len())).copied()
    }
}
