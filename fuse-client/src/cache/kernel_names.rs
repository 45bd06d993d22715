//! The names that the kernel may still answer for on its own. When another mount changes one, the kernel is told. When
//! another mount begins to use a directory, its names have to expire first.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chordfs_types::namespace::{EntryName, Ino};
use parking_lot::Mutex;

/// Names of one directory that have expired are dropped this often.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct KernelNames(Mutex<HashMap<Ino, DirectoryNames>>);

struct DirectoryNames {
    until: HashMap<EntryName, Instant>,
    /// The latest of them.
    latest: Instant,
    pruned: Instant,
}

impl KernelNames {
    /// Notes that the kernel may answer for the name until then. To be called before the kernel is told.
    pub fn note(&self, parent: Ino, name: &EntryName, until: Instant) {
        let (now, mut directories) = (Instant::now(), self.0.lock());
        if !directories.contains_key(&parent) {
            // A directory is noted for the first time in a while, which is rare enough to look at all of them.
            directories.retain(|_, names| names.latest > now);
        }
        let names = directories.entry(parent);
        let names = names.or_insert_with(|| DirectoryNames { until: HashMap::new(), latest: until, pruned: now });
        if now.saturating_duration_since(names.pruned) > PRUNE_EVERY {
            names.until.retain(|_, until| *until > now);
            names.pruned = now;
        }
        names.latest = names.latest.max(until);
        names.until.insert(name.clone(), until);
    }

    /// Whether the kernel may answer for the name.
    pub fn contains(&self, parent: Ino, name: &EntryName) -> bool {
        let directories = self.0.lock();
        let until = directories.get(&parent).and_then(|names| names.until.get(name));
        until.is_some_and(|until| *until > Instant::now())
    }

    /// When the kernel has forgotten all names of a directory; `None` if it knows none.
    pub fn known_until(&self, parent: Ino) -> Option<Instant> {
        let directories = self.0.lock();
        directories.get(&parent).map(|names| names.latest).filter(|latest| *latest > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::name;

    #[test]
    fn names_are_known_until_they_expire() {
        let (names, now) = (KernelNames::default(), Instant::now());
        names.note(Ino(5), &name("a"), now + Duration::from_secs(60));
        names.note(Ino(5), &name("old"), now);
        names.note(Ino(6), &name("b"), now + Duration::from_secs(60));
        assert!(names.contains(Ino(5), &name("a")) && !names.contains(Ino(5), &name("old")));
        assert_eq!(names.known_until(Ino(5)), Some(now + Duration::from_secs(60)));
        assert_eq!(names.known_until(Ino(7)), None);
    }

    #[test]
    fn directories_whose_names_have_expired_are_forgotten() {
        let names = KernelNames::default();
        for ino in 0..1000 {
            names.note(Ino(ino), &name("a"), Instant::now());
        }
        assert!(names.0.lock().len() <= 2, "all but the last ones had expired");
    }
}
