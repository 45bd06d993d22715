//! What programs have seen, and whether it could have happened one after the other.

use std::collections::BTreeMap;

use chordfs_types::namespace::Ino;

use super::Millis;

/// The last change of an inode, by its place in the log; 0 before the first.
pub(super) type Place = u64;

#[derive(Default)]
pub(super) struct History {
    /// The newest change of each inode that an operation which has ended saw or made.
    seen: BTreeMap<Ino, Place>,
    pub(super) operations: u64,
    pub(super) longest: Millis,
    pub(super) from_memory: u64,
}

/// What had been seen of some inodes when an operation began.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    at: Millis,
    seen: Vec<(Ino, Place)>,
}

impl History {
    pub(super) fn begin(&self, at: Millis, inos: &[Ino]) -> Beginning {
        Beginning { at, seen: inos.iter().map(|ino| (*ino, self.place(*ino))).collect() }
    }

    /// Notes that an operation has ended, which saw or made the change at `place`.
    pub(super) fn end(&mut self, begun: &Beginning, now: Millis, place: Place) -> Result<(), String> {
        self.operations += 1;
        self.longest = self.longest.max(now - begun.at);
        for (ino, before) in &begun.seen {
            if place < *before {
                return Err(format!(
                    "{ino:?} was seen at {before} before {}, and then at {place} until {now}",
                    begun.at
                ));
            }
            let seen = self.seen.entry(*ino).or_default();
            *seen = (*seen).max(place);
        }
        Ok(())
    }

    fn place(&self, ino: Ino) -> Place {
        self.seen.get(&ino).copied().unwrap_or_default()
    }
}
