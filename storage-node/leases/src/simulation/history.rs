//! What programs have seen, and whether it could have happened one after the other. That is known at the end: a change
//! that was answered before it was logged has no place in the log yet.

use std::collections::{BTreeMap, BTreeSet};

use chordfs_types::namespace::Ino;

use super::{Millis, leader::Log};

/// The place of a change in the log; 0 is before the first.
pub(super) type Place = u64;
/// What an inode is, which is the id of the operation that changed it last; 0 before the first.
pub(super) type SimValue = u64;

#[derive(Default)]
pub(super) struct History {
    steps: Vec<HistoryStep>,
    /// Changes that were answered under a lease which ran out before they were logged: others may contradict them.
    lost: BTreeSet<SimValue>,
    pub(super) operations: u64,
    pub(super) longest: Millis,
    /// Reads and changes that needed no leader.
    pub(super) reads_from_memory: u64,
    pub(super) changes_from_memory: u64,
}

enum HistoryStep {
    Begin {
        operation: u64,
        at: Millis,
    },
    /// A program has read the value.
    Read {
        operation: u64,
        at: Millis,
        mount: usize,
        ino: Ino,
        value: SimValue,
    },
    Changed {
        operation: u64,
        at: Millis,
    },
}

impl History {
    pub(super) fn begin(&mut self, operation: u64, at: Millis) {
        self.steps.push(HistoryStep::Begin { operation, at });
    }

    pub(super) fn read(&mut self, operation: u64, at: Millis, mount: usize, (ino, value): (Ino, SimValue)) {
        self.steps.push(HistoryStep::Read { operation, at, mount, ino, value });
    }

    pub(super) fn changed(&mut self, operation: u64, at: Millis) {
        self.steps.push(HistoryStep::Changed { operation, at });
    }

    pub(super) fn lose(&mut self, changes: impl IntoIterator<Item = SimValue>) {
        self.lost.extend(changes);
    }

    pub(super) fn is_lost(&self, change: SimValue) -> bool {
        self.lost.contains(&change)
    }

    /// Checks that every operation sees what any had seen or made that had ended before it began. `makers` are the
    /// mounts that made the changes.
    pub(super) fn check(&mut self, log: &Log, makers: &BTreeMap<SimValue, usize>) -> Result<(), String> {
        // The newest change of each inode that an operation which has ended saw or made.
        let (mut seen, mut begun) = (BTreeMap::<Ino, Place>::new(), BTreeMap::new());
        for step in std::mem::take(&mut self.steps) {
            match step {
                HistoryStep::Begin { operation, at } => drop(begun.insert(operation, (at, seen.clone()))),
                // What it has answered itself counts for a mount that has lost it until then.
                HistoryStep::Read { mount, value, .. } if self.is_lost(value) && makers.get(&value) == Some(&mount) => {
                }
                HistoryStep::Changed { operation, .. } if self.is_lost(operation) => {}
                HistoryStep::Read { operation, at, ino, value, .. } => {
                    let place = match (value, log.applied(value)) {
                        (0, _) => 0,
                        (_, Some((place, _))) => *place,
                        _ => return Err(format!("{ino:?} was read as {value}, which was never logged, at {at}")),
                    };
                    self.end(begun.remove(&operation), at, &mut seen, ino, place)?;
                }
                HistoryStep::Changed { operation, at } => {
                    let (place, inos) = log.applied(operation).ok_or(format!("{operation} was never logged"))?;
                    let begun = begun.remove(&operation);
                    inos.iter().try_for_each(|ino| self.end(begun.clone(), at, &mut seen, *ino, *place))?;
                }
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        begun: Option<(Millis, BTreeMap<Ino, Place>)>,
        at: Millis,
        seen: &mut BTreeMap<Ino, Place>,
        ino: Ino,
        place: Place,
    ) -> Result<(), String> {
        let (begun_at, before) = begun.ok_or("an operation has ended twice")?;
        self.operations += 1;
        self.longest = self.longest.max(at - begun_at);
        let before = before.get(&ino).copied().unwrap_or_default();
        if place < before {
            return Err(format!("{ino:?} was seen at {before} before {begun_at}, and then at {place} until {at}"));
        }
        let seen = seen.entry(ino).or_default();
        *seen = (*seen).max(place);
        Ok(())
    }
}
