//! A random history of a ring: joins, crashes and restarts at random moments, with the invariants checked after every
//! event that changed some node's neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::RingId;

use crate::network::{Conditions, Sim};

/// The counts of one history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    pub events: u64,
    pub joins: u64,
    pub crashes: u64,
    pub returns: u64,
}

/// The broken invariant, with its time and seed.
pub type Violation = String;

/// How long a ring may take to become ideal after the last join or crash.
pub const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// The length of the successor lists, so short that lists do not cover the whole ring even with few members.
pub const LIST_LEN: usize = 4;

/// Runs a random history: any joins, and any crash that leaves each member a live successor, as Zave's proof assumes.
/// Crashed nodes may restart at once, before the ring has noticed.
pub fn live(seed: u64, conditions: Conditions) -> Result<Life, Violation> {
    let mut watched = Watched::new(seed, conditions);
    let most = watched.most;
    for _ in 0..most * 3 {
        let pause = Duration::from_millis(if most > 16 { 500 } else { 1500 });
        let pause = watched.sim.rng.up_to(pause);
        watched.run_for(pause)?;
        watched.random_change()?;
    }
    watched.run_for(Duration::from_secs(3))?;
    becomes_ideal(&mut watched.sim, seed)?;
    lookups_are_right(&mut watched.sim, seed)?;
    watched.life.events = watched.sim.events;
    Ok(watched.life)
}

pub fn becomes_ideal(sim: &mut Sim, seed: u64) -> Result<(), Violation> {
    if sim.run_until(CONVERGENCE_TIMEOUT, Sim::is_ideal) {
        Ok(())
    } else {
        Err(format!("seed {seed}: not ideal after {CONVERGENCE_TIMEOUT:?}\n{}", sim.describe_all()))
    }
}

pub fn lookups_are_right(sim: &mut Sim, seed: u64) -> Result<(), Violation> {
    for _ in 0..20 {
        let key = RingId(sim.rng.next_u64() as u32);
        let up = sim.up();
        let Some(node) = sim.rng.pick(&up) else { return Err(format!("seed {seed}: no node is up")) };
        let found = sim.find_successor(node, key, CONVERGENCE_TIMEOUT);
        if found != sim.owner(key) {
            let (right, node) = (sim.owner(key), sim.describe(node));
            return Err(format!("seed {seed}: the successor of {key} is {right:?}, found {found:?} by {node}"));
        }
    }
    Ok(())
}

/// After this time every list that was in flight when a member joined has arrived, or its caller has timed out.
const SETTLED: Duration = Duration::from_secs(2);

struct Watched {
    seed: u64,
    sim: Sim,
    /// The most nodes that are up at one time.
    most: usize,
    crashed: Vec<usize>,
    /// Since when no list has skipped each member.
    established: BTreeMap<usize, Duration>,
    life: Life,
}

impl Watched {
    fn new(seed: u64, conditions: Conditions) -> Self {
        let most = match seed % 50 {
            0 => 64,
            10 | 20 | 30 | 40 => 24,
            _ => 4 + (seed % 9) as usize,
        };
        let settings = RingSettings { successor_list_len: LIST_LEN, ..RingSettings::default() };
        let mut sim = Sim::new(seed, conditions, settings);
        sim.start(None);
        Self { seed, sim, most, crashed: Vec::new(), established: BTreeMap::new(), life: Life::default() }
    }

    fn random_change(&mut self) -> Result<(), Violation> {
        let (members, up) = (self.sim.members(), self.sim.up());
        match self.sim.rng.below(4) {
            0 if members.len() > LIST_LEN + 1 => self.crash_one(&members),
            1 if !self.crashed.is_empty() && members.len() == up.len() => {
                let place = self.sim.rng.below(self.crashed.len() as u64) as usize;
                self.sim.restart(self.crashed.swap_remove(place));
                self.life.returns += 1;
                Ok(())
            }
            _ if up.len() < self.most => {
                let node = self.sim.start(None);
                let Some(member) = self.sim.rng.pick(&members) else { return Ok(()) };
                self.sim.join(node, member);
                self.life.joins += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn crash_one(&mut self, members: &[usize]) -> Result<(), Violation> {
        let Some(node) = self.sim.rng.pick(members) else { return Ok(()) };
        if self.sim.can_spare(node) && self.sim.principals().len() > LIST_LEN + 1 {
            self.sim.crash(node);
            self.crashed.push(node);
            self.life.crashes += 1;
            self.check()?;
        }
        Ok(())
    }

    fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.sim.now + time;
        while self.sim.now < end {
            if self.sim.step() {
                self.check()?;
                self.check_established()?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Violation> {
        self.sim.fault().map_or(Ok(()), |fault| Err(self.violation(&fault)))
    }

    /// Checks that no list skips an established member while it is alive.
    fn check_established(&mut self) -> Result<(), Violation> {
        let (sim, principals) = (&self.sim, self.sim.principals());
        let skipped = self
            .established
            .iter()
            .find(|(node, since)| sim.is_member(**node) && !principals.contains(node) && sim.now > **since + SETTLED);
        if let Some((&node, since)) = skipped {
            let (node, by) = (sim.describe(node), sim.skipped_by(node).join(", "));
            return Err(self.violation(&format!("{node}, established since {since:?}, is skipped by {by}")));
        }
        self.note_principals(principals);
        Ok(())
    }

    /// The proof assumes one member more than a list is long; in a smaller ring no member counts as established.
    fn note_principals(&mut self, principals: BTreeSet<usize>) {
        let now = self.sim.now;
        let count_from = if principals.len() > LIST_LEN { now } else { Duration::MAX - SETTLED };
        self.established.retain(|node, _| principals.contains(node));
        for node in principals {
            let since = self.established.entry(node).or_insert(count_from);
            *since = count_from.min(*since);
        }
    }

    fn violation(&self, what: &str) -> Violation {
        format!("seed {} at {:?}: {what}\n{}", self.seed, self.sim.now, self.sim.describe_all())
    }
}
