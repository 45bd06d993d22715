//! The history of a ring of our and foreign nodes: all join through each other, some crash, one of ours leaves, others
//! join, one restarts. After each of these steps the ring must become ideal, and lookups from either kind must be
//! right.

use std::time::Duration;

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::{NodeRef, RingId};

use crate::{conditions::Conditions, foreign, lives::Violation, network::Sim};

/// The counts of one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub events: u64,
    pub crashes: u64,
    pub lookups: u64,
    /// From the last join, crash or leave to the ideal ring: the longest of these times.
    pub longest_repair: Duration,
}

/// How long a mixed ring may take to become ideal: a foreign node repairs one neighbour in each of its periods.
pub const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long lost and late messages continue after each change.
const DISTURBED_FOR: Duration = Duration::from_secs(5);

/// After this time every message in flight has arrived, or its caller has timed out.
const SETTLED: Duration = Duration::from_secs(3);

/// A short delay: a conversation with a foreign node takes up to six calls in sequence, within one deadline.
pub fn conditions() -> Conditions {
    Conditions { longest_delay: Duration::from_millis(60), ..Conditions::reliable() }
}

/// Runs the history of a ring of `ours` and `foreign` members, at least one in all; `seed` decides the founder and the
/// order of the joins.
pub fn mixed(seed: u64, ours: usize, foreign: usize, conditions: Conditions) -> Result<Stats, Violation> {
    let sim = Sim::new(seed, conditions, RingSettings::default());
    let mut life = Life { seed, sim, conditions, stats: Stats::default() };
    life.grow(ours, foreign);
    life.check_repaired("all have joined")?;
    life.crash_some();
    life.check_repaired("some have crashed")?;
    life.leave_one_of_ours();
    life.check_repaired("one of ours has left")?;
    life.grow(1, 1);
    life.check_repaired("one of each kind has joined")?;
    life.restart_one();
    life.check_repaired("one has restarted")?;
    life.stats.events = life.sim.events;
    Ok(life.stats)
}

struct Life {
    seed: u64,
    sim: Sim,
    conditions: Conditions,
    stats: Stats,
}

impl Life {
    fn grow(&mut self, mut ours: usize, mut foreign: usize) {
        while ours + foreign > 0 {
            let is_foreign = self.sim.rng.below((ours + foreign) as u64) < foreign as u64;
            if is_foreign {
                foreign -= 1
            } else {
                ours -= 1
            }
            self.add_one(is_foreign);
            let pause = self.sim.rng.up_to(Duration::from_secs(1));
            self.sim.run_for(pause);
        }
    }

    fn add_one(&mut self, is_foreign: bool) {
        let members = self.sim.members();
        let node = if is_foreign { self.sim.start_foreign(None) } else { self.sim.start(None) };
        if let Some(member) = self.sim.rng.pick(&members) {
            self.sim.join(node, member);
        }
    }

    /// Crashes up to two nodes of either kind at once: a list of three survives them.
    fn crash_some(&mut self) {
        for _ in 0..self.sim.rng.below(3) {
            let up = self.sim.up();
            if let Some(node) = self.sim.rng.pick(&up).filter(|_| up.len() > 1) {
                self.sim.crash(node);
                self.stats.crashes += 1;
            }
        }
    }

    /// Restarts a node of either kind, perhaps before the others have noticed the crash.
    fn restart_one(&mut self) {
        let up = self.sim.up();
        let Some(node) = self.sim.rng.pick(&up).filter(|_| up.len() > 1) else { return };
        self.sim.crash(node);
        let pause = self.sim.rng.up_to(Duration::from_secs(4));
        self.sim.run_for(pause);
        let members: Vec<usize> = up.into_iter().filter(|&other| other != node).collect();
        self.sim.restart(node);
        if let Some(member) = self.sim.rng.pick(&members).filter(|_| self.sim.is_foreign(node)) {
            self.sim.join(node, member);
        }
    }

    fn leave_one_of_ours(&mut self) {
        let up = self.sim.up();
        let ours: Vec<usize> = up.iter().copied().filter(|&node| !self.sim.is_foreign(node)).collect();
        if let Some(node) = self.sim.rng.pick(&ours).filter(|_| up.len() > 1) {
            self.sim.leave(node);
        }
    }

    /// Checks the ring in a network without losses: a foreign node calls only once, and drops a node that does not
    /// answer. Messages in flight may still disturb the ring for a moment; after that it must stay ideal.
    fn check_repaired(&mut self, since: &str) -> Result<(), Violation> {
        let reliable = Conditions { longest_delay: self.conditions.longest_delay, ..Conditions::reliable() };
        if self.conditions.lost_per_mille + self.conditions.late_per_mille > 0 {
            self.sim.run_for(DISTURBED_FOR);
            self.sim.change_conditions(reliable);
            self.sim.run_for(SETTLED);
            self.rejoin_lost_members();
        }
        self.sim.change_conditions(reliable);
        self.is_ideal_and_right(since)?;
        self.sim.change_conditions(self.conditions);
        Ok(())
    }

    /// A foreign node that lost its only successor stays outside the ring, because it remembers no peers.
    fn rejoin_lost_members(&mut self) {
        let members = self.sim.members();
        for node in self.sim.up() {
            if let Some(member) = self.sim.rng.pick(&members).filter(|_| !self.sim.is_member(node)) {
                self.sim.join(node, member);
            }
        }
    }

    fn is_ideal_and_right(&mut self, since: &str) -> Result<(), Violation> {
        let from = self.sim.now;
        self.becomes_ideal(since)?;
        self.stats.longest_repair = self.stats.longest_repair.max(self.sim.now - from);
        if let [last] = self.sim.up()[..] {
            self.sim.mark_as_member(last);
        }
        self.sim.run_for(SETTLED);
        self.becomes_ideal(since)?;
        self.lookups_are_right(since)?;
        if self.sim.is_mixed_ideal() {
            Ok(())
        } else {
            Err(self.violation(&format!("{since}; it was ideal, but did not stay so")))
        }
    }

    fn becomes_ideal(&mut self, since: &str) -> Result<(), Violation> {
        if self.sim.is_mixed_ideal() || self.sim.run_until(CONVERGENCE_TIMEOUT, Sim::is_mixed_ideal) {
            Ok(())
        } else {
            Err(self.violation(&format!("{since}; not ideal after {CONVERGENCE_TIMEOUT:?}")))
        }
    }

    /// Checks one lookup from each member.
    fn lookups_are_right(&mut self, since: &str) -> Result<(), Violation> {
        for node in self.sim.up() {
            let key = RingId(self.sim.rng.next_u64() as u32);
            let (found, right) = (self.sim.find_successor(node, key, CONVERGENCE_TIMEOUT), self.sim.owner(key));
            self.stats.lookups += 1;
            if found != right {
                let what = format!("{since}; the successor of {key} is {right:?}, found {found:?} by node {node}");
                return Err(self.violation(&what));
            }
        }
        Ok(())
    }

    fn violation(&self, what: &str) -> Violation {
        let foreign: Vec<usize> = self.sim.up().into_iter().filter(|&node| self.sim.is_foreign(node)).collect();
        let all = self.sim.describe_all();
        format!("seed {} at {:?}: {what}\n{all}\nforeign: {foreign:?}", self.seed, self.sim.now)
    }
}

impl Sim {
    /// Like `is_ideal`, but lists end early because of foreign members: theirs hold three nodes, and ours end three
    /// nodes after the first foreign one.
    pub fn is_mixed_ideal(&self) -> bool {
        let mut order = self.up();
        order.sort_by_key(|&node| self.view(node).node.id.0);
        (0..order.len()).all(|place| self.is_right(&order, place))
    }

    fn is_right(&self, order: &[usize], place: usize) -> bool {
        let len = order.len();
        let nth = |step: usize| order[(place + step) % len];
        let me = |node: usize| self.view(node).node;
        let reach =
            (1..len).find(|&step| self.is_foreign(nth(step))).map_or(usize::MAX, |step| step + foreign::LIST_LEN);
        let own = if self.is_foreign(order[place]) { foreign::LIST_LEN } else { reach.min(self.list_len()) };
        let right: Vec<NodeRef> = (1..=own.min(len - 1)).map(|step| me(nth(step))).collect();
        let view = self.view(order[place]);
        let is_list_right = if self.is_foreign(order[place]) {
            view.successors.starts_with(&right) && view.successors.is_empty() == right.is_empty()
        } else {
            view.successors == right
        };
        is_list_right && view.predecessor == (len > 1).then(|| me(nth(len - 1)))
    }
}
