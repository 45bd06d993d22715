//! Retired versions: a chunk of theirs was deleted, or is about to be, so none of their chunks becomes current again.
//!
//! A commit may arrive after its chunks are gone: its mount slept, or got no answer and sends it again although it was
//! applied, and another mount has replaced its chunks since. It gets a `Conflict`, and its mount stores the chunks
//! again under a fresh version. The whole version is retired, because one chunk of it proves that the writer is late.
//!
//! Versions are allocated in ascending order and most die in that order, so they are kept as ranges: their number is
//! bounded by that of the versions that are current, and they need not expire.

use chordfs_types::chunk::Version;

use super::Tables;

impl Tables {
    pub(super) fn is_retired(&self, version: Version) -> bool {
        self.retired_versions.get_prev(&version).is_some_and(|(_, last)| version <= *last)
    }

    pub(super) fn retire(&mut self, version: Version) {
        if self.is_retired(version) {
            return;
        }
        let (mut first, mut last) = (version, version);
        if let Some((&before, &end)) = self.retired_versions.get_prev(&version)
            && end.0 + 1 == version.0
        {
            first = before;
        }
        if let Some(next) = version.0.checked_add(1).map(Version)
            && let Some(end) = self.retired_versions.remove(&next)
        {
            last = end;
        }
        self.retired_versions.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_versions_join_to_ranges() {
        let mut tables = Tables::new();
        for version in [5, 3, 9, 4, 8, 3, u64::MAX] {
            tables.retire(Version(version));
        }
        let ranges: Vec<(u64, u64)> = tables.retired_versions.iter().map(|(first, last)| (first.0, last.0)).collect();
        assert_eq!(ranges, [(3, 5), (8, 9), (u64::MAX, u64::MAX)]);
        let retired = (1..12).filter(|version| tables.is_retired(Version(*version)));
        assert_eq!(retired.collect::<Vec<_>>(), [3, 4, 5, 8, 9]);
    }
}
