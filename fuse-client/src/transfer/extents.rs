//! The version of each chunk of a file, as a map of runs that do not overlap, and the part of that map which is known
//! (the extents of a large file arrive in pages).
//!
//! Pure bookkeeping: `read` queries the namespace, `state` has the layers above the committed state.

use std::{collections::BTreeMap, ops::Range};

use chordfs_types::{chunk::Version, namespace::Extent};

/// Runs of chunks with one version, in the order of their chunks. A chunk in no run is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExtentMap {
    /// Maps the first chunk of a run to the chunk after its last and the version.
    runs: BTreeMap<u32, (u64, Version)>,
}

impl ExtentMap {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn get(&self, index: u32) -> Option<Version> {
        let (_, &(end, version)) = self.runs.range(..=index).next_back()?;
        (u64::from(index) < end).then_some(version)
    }

    /// The highest chunk that has a version, or 0 if there is none (chunks count from 1).
    pub(super) fn last_index(&self) -> u32 {
        self.runs.last_key_value().map_or(0, |(_, &(end, _))| (end - 1) as u32)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.runs.iter().map(|(&first, &(end, version))| Extent {
            first,
            count: (end - u64::from(first)) as u32,
            version,
        })
    }

    /// Puts a run in place of what was there.
    pub(super) fn insert(&mut self, extent: Extent) {
        if extent.count == 0 {
            return;
        }
        let (mut first, mut end) = (extent.first, extent.end());
        self.remove(extent.range());
        if let Some((&before, &(before_end, version))) = self.runs.range(..first).next_back()
            && before_end == u64::from(first)
            && version == extent.version
        {
            first = before;
        }
        if let Ok(after) = u32::try_from(end)
            && let Some(&(after_end, version)) = self.runs.get(&after)
            && version == extent.version
        {
            self.runs.remove(&after);
            end = after_end;
        }
        self.runs.insert(first, (end, extent.version));
    }

    /// The runs that overlap `range`, whole, in descending order.
    pub(super) fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = Extent> {
        let last = u32::try_from(range.end.saturating_sub(1)).unwrap_or(u32::MAX);
        let below = (!range.is_empty()).then(|| self.runs.range(..=last).rev()).into_iter().flatten();
        let overlapping = below.take_while(move |(_, (end, _))| *end > range.start);
        overlapping.map(|(&first, &(end, version))| Extent { first, count: (end - u64::from(first)) as u32, version })
    }

    /// Whether any chunk of `range` has a version.
    pub(super) fn overlaps(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_some()
    }

    /// Turns the chunks of `range` into holes.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        let Ok(start) = u32::try_from(range.start) else { return };
        if range.is_empty() {
            return;
        }
        if let Some((&first, &(end, version))) = self.runs.range(..start).next_back()
            && end > range.start
        {
            self.runs.insert(first, (range.start, version));
            if end > range.end {
                self.runs.insert(range.end as u32, (end, version));
            }
        }
        while let Some((&first, &(end, version))) = self.runs.range(start..).next()
            && u64::from(first) < range.end
        {
            self.runs.remove(&first);
            if end > range.end {
                self.runs.insert(range.end as u32, (end, version));
            }
        }
    }

    /// Turns those chunks of `extent` that still have its version into holes.
    pub(super) fn remove_if_same(&mut self, extent: Extent) {
        let Range { start, end: stop } = extent.range();
        let before = self.runs.range(..extent.first).next_back();
        let same: Vec<Range<u64>> = before
            .into_iter()
            .chain(self.runs.range(extent.first..).take_while(|(first, _)| u64::from(**first) < stop))
            .filter(|(_, run)| run.1 == extent.version)
            .map(|(&first, run)| u64::from(first).max(start)..run.0.min(stop))
            .filter(|part| !part.is_empty())
            .collect();
        for part in same {
            self.remove(part);
        }
    }
}

/// The committed extents, as far as the namespace has reported them.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownExtents {
    pub map: ExtentMap,
    /// Chunk ranges whose extents are known: start to end, neither touching nor overlapping.
    known: BTreeMap<u64, u64>,
}

impl KnownExtents {
    /// The extents of an empty file.
    pub(super) fn all_holes() -> Self {
        let mut known = Self::default();
        known.replace(&[], false);
        known
    }

    /// Discards everything and starts with the first page.
    pub(super) fn replace(&mut self, page: &[Extent], more: bool) {
        *self = Self::default();
        self.add_page(1, page, more);
    }

    /// Adds a page, the answer to `Query::Extents { from }`. False if it adds nothing: it announces more extents and
    /// has none itself.
    pub(super) fn add_page(&mut self, from: u32, page: &[Extent], more: bool) -> bool {
        let start = u64::from(from);
        let end = match page.last() {
            Some(last) if more => last.end(),
            None if more => return false,
            _ => u64::from(u32::MAX) + 1,
        };
        if end <= start {
            return false;
        }
        self.map.remove(start..end);
        for extent in page {
            self.map.insert(*extent);
        }
        self.mark(start..end);
        true
    }

    /// Sets a run that a commit of this mount has just made current.
    pub(super) fn set(&mut self, extent: Extent) {
        self.map.insert(extent);
        self.mark(extent.range());
    }

    /// What is known of the chunks in `ranges`; the cost does not depend on the rest.
    pub(super) fn part(&self, ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let mut part = Self::default();
        for range in ranges {
            self.map.overlapping(range.clone()).for_each(|extent| part.map.insert(extent));
            let known = self.known.range(..range.end).rev().take_while(|(_, end)| **end > range.start);
            known.for_each(|(&start, &end)| part.mark(start.max(range.start)..end.min(range.end)));
        }
        part
    }

    /// The first chunk of `range` whose version is not known.
    pub(super) fn first_unknown(&self, range: Range<u64>) -> Option<u32> {
        let known_to = match self.known.range(..=range.start).next_back() {
            Some((_, &end)) if end > range.start => end,
            _ => range.start,
        };
        (known_to < range.end).then_some(known_to as u32)
    }

    fn mark(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&at, &to)) = self.known.range(..=end).next_back()
            && to >= start
        {
            self.known.remove(&at);
            (start, end) = (start.min(at), end.max(to));
        }
        self.known.insert(start, end);
    }
}

/// Joins chunks with their versions (ascending) to runs.
pub(super) fn to_extents(chunks: impl IntoIterator<Item = (u32, Version)>) -> ExtentMap {
    let mut map = ExtentMap::default();
    for (first, version) in chunks {
        map.insert(Extent { first, count: 1, version });
    }
    map
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(first: u32, count: u32, version: u64) -> Extent {
        Extent { first, count, version: Version(version) }
    }

    proptest! {
        #[test]
        fn runs_agree_with_a_map_of_single_chunks(ops in prop::collection::vec((0..3u8, 1..40u32, 1..12u32, 1..4u64), 1..60)) {
            let mut map = ExtentMap::default();
            let mut plain: BTreeMap<u32, u64> = BTreeMap::new();
            for (kind, first, count, version) in ops {
                let chunks = first..first + count;
                match kind {
                    0 => {
                        map.insert(extent(first, count, version));
                        plain.extend(chunks.map(|index| (index, version)));
                    }
                    1 => {
                        map.remove(u64::from(first)..u64::from(first + count));
                        plain.retain(|index, _| !chunks.contains(index));
                    }
                    _ => {
                        map.remove_if_same(extent(first, count, version));
                        plain.retain(|index, has| !(chunks.contains(index) && *has == version));
                    }
                }
                for index in 1..60 {
                    prop_assert_eq!(map.get(index).map(|v| v.0), plain.get(&index).copied());
                }
                prop_assert_eq!(map.last_index(), plain.keys().last().copied().unwrap_or(0));
                let all: Vec<Extent> = map.iter().collect();
                for pair in all.windows(2) {
                    let (end, next) = (pair[0].end(), u64::from(pair[1].first));
                    prop_assert!(end < next || end == next && pair[0].version != pair[1].version);
                }
            }
        }
    }

    #[test]
    fn each_page_extends_the_known_chunks() {
        let (more, last) = (true, false);
        let mut known = KnownExtents::default();
        known.replace(&[extent(1, 4, 1), extent(7, 3, 2)], more);
        assert_eq!(known.first_unknown(1..10), None);
        assert_eq!(known.first_unknown(1..11), Some(10));
        assert!(known.add_page(20, &[extent(18, 10, 3)], more));
        assert_eq!((known.first_unknown(12..20), known.first_unknown(20..28)), (Some(12), None));
        assert!(!known.add_page(12, &[], more));
        assert!(known.add_page(10, &[extent(12, 1, 4), extent(18, 10, 3)], last));
        assert_eq!(known.first_unknown(1..u64::from(u32::MAX) + 1), None);
        assert_eq!(known.map.get(18), Some(Version(3)));
        let part = known.part([5..8, 17..19].into_iter());
        assert_eq!(
            [4, 5, 7, 8, 17, 19].map(|at| part.first_unknown(at..at + 1).is_none()),
            [false, true, true, false, true, false]
        );
        assert_eq!([6, 7, 17, 18].map(|at| part.map.get(at)), [None, Some(Version(2)), None, Some(Version(3))]);
    }
}
