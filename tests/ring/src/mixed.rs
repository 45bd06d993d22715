//! The life of a ring of both kinds, ours and foreign ones: all join through each other, some crash, one of ours
//! leaves, others come, one is started again. After each of these it has to become ideal, and lookups that begin at
//! either kind have to be right.

use std::time::Duration;

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::{NodeRef, RingId};

use crate::{conditions::Conditions, foreign, lives::Violation, network::Sim};

/// What one life held.
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

/// How long lost and late messages go on doing harm after each change.
const DISTURBED_FOR: Duration = Duration::from_secs(5);

/// By then whatever was on its way has arrived, or its caller has given up.
const SETTLED: Duration = Duration::from_secs(3);

/// A conversation with a foreign node takes up to six calls, one after another, and has to end within one deadline.
pub fn conditions() -> Conditions {
    Conditions { longest_way: Duration::from_millis(60), ..Conditions::reliable() }
}

/// A ring of `ours` and `foreign` members, one at least; who founds it and who comes when follows from `seed`.
pub fn mixed(seed: u64, ours: usize, foreign: usize, conditions: Conditions) -> Result<Stats, Violation> {
    let sim = Sim::new(seed, conditions, RingSettings::default());
    let mut life = Life { seed, sim, conditions, stats: Stats::default() };
    life.grow(ours, foreign);
    life.check_repaired("all have come")?;
    life.crash_some();
    life.check_repaired("some have crashed")?;
    life.leave_one_of_ours();
    life.check_repaired("one of ours has left")?;
    life.grow(1, 1);
    life.check_repaired("one of each kind has come")?;
    life.restart_one();
    life.check_repaired("one was started again")?;
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

    /// Up to two at once, of either kind: a list of three outlives them.
    fn crash_some(&mut self) {
        for _ in 0..self.sim.rng.below(3) {
            let up = self.sim.up();
            if let Some(node) = self.sim.rng.pick(&up).filter(|_| up.len() > 1) {
                self.sim.crash(node);
                self.stats.crashes += 1;
            }
        }
    }

    /// Perhaps before the others have noticed, and of either kind.
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

    /// Judged in a network that loses nothing: a foreign node asks but once, and drops who does not answer. What was on
    /// its way may still upset the ring for a moment; from then on it stays ideal.
    fn check_repaired(&mut self, since: &str) -> Result<(), Violation> {
        let calm = Conditions { longest_way: self.conditions.longest_way, ..Conditions::reliable() };
        if self.conditions.lost_per_mille + self.conditions.late_per_mille > 0 {
            self.sim.run_for(DISTURBED_FOR);
            self.sim.change_conditions(calm);
            self.sim.run_for(SETTLED);
            self.rejoin_lost_members();
        }
        self.sim.change_conditions(calm);
        self.is_ideal_and_right(since)?;
        self.sim.change_conditions(self.conditions);
        Ok(())
    }

    /// A foreign node that lost its only successor is out of the ring for good, and remembers nobody.
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
            Err(self.violation(&format!("{since}; it was ideal, and is no more")))
        }
    }

    fn becomes_ideal(&mut self, since: &str) -> Result<(), Violation> {
        if self.sim.is_mixed_ideal() || self.sim.run_until(CONVERGENCE_TIMEOUT, Sim::is_mixed_ideal) {
            Ok(())
        } else {
            Err(self.violation(&format!("{since}; not ideal after {CONVERGENCE_TIMEOUT:?}")))
        }
    }

    /// One from each member.
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
    /// As `is_ideal`, where lists end early because of foreign members: theirs hold three, and ours reach as far as
    /// three beyond the first foreign one.
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
