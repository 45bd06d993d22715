//! Clones: chunks that a file shares with the one for which they were stored. Copying a file, or a part of one, moves
//! no byte and takes no space, because a stored chunk never changes.
//!
//! The keys of chunks are computed from the NAME of the file that stored them and from their numbers there. So the
//! extents of a clone have a version of their own, which stands for a run of stored chunks, and never for another one:
//! everybody may remember what it stands for. A clone of a clone stands for the stored chunks as well.
//!
//! Chunks that were ever cloned have a count of the extents that have them, as in other file systems with shared
//! extents; all others are in one extent at most. A chunk is dead when it is in none.

use chordfs_types::{
    chunk::{ChunkId, ChunkRun, Version},
    fs_error::FsError,
    namespace::{Answer, Attr, ClonedRun, Extent, Ino, MAX_CLONED_RUNS, PAGE_ITEMS, Reply},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    Tables, Transaction,
    extents::{ExtentMath, check_range, check_size},
    invalid, map,
    orphan_chunks::without,
    work,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Clones {
    /// The versions of clones that files have.
    #[serde(with = "map")]
    runs: OrdMap<Version, ClonedRun>,
    /// The versions of clones by the version under which their chunks are stored.
    #[serde(with = "map")]
    by_stored: OrdMap<(Version, Version), ()>,
    /// How many extents have the stored chunks that were cloned, by the version and the first number of a run.
    #[serde(with = "map")]
    shares: OrdMap<(Version, u32), SharedRun>,
}

/// A run of stored chunks that are in equally many extents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct SharedRun {
    last: u32,
    /// At least 1.
    extents: u32,
}

/// What is to be cloned: `count` chunks of a file, from `first` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CloneSource {
    pub(super) ino: Ino,
    pub(super) first: u32,
    pub(super) count: u32,
}

impl CloneSource {
    fn range(&self) -> Extent {
        Extent { first: self.first, count: self.count, version: Version(0) }
    }
}

impl Transaction<'_> {
    pub(super) fn clone_range(
        &mut self,
        source: CloneSource,
        ino: Ino,
        first: u32,
        chunk_bytes: u32,
        size_at_least: u64,
    ) -> Result<Reply, FsError> {
        let before = self.tables.file(ino)?.clone();
        let target = Extent { first, ..source.range() };
        self.tables.check_clone(&source, &before, &target, chunk_bytes)?;
        let (extents, count) = self.tables.extents_to_clone(&source);
        let (last, is_whole) = (first + (count - 1), count == source.count);
        let end = if is_whole { size_at_least } else { u64::from(last) * u64::from(chunk_bytes) };
        let size = before.size.max(end);
        check_size(size, chunk_bytes)?;
        if u64::from(last - 1) * u64::from(chunk_bytes) >= size {
            return Err(invalid(format!("chunk {last} is beyond the end of a file of {size} bytes")));
        }
        self.remove_chunks(ino, (first, last), None);
        for extent in extents {
            self.add_clone(&source, extent, ino, first);
        }
        let now = self.now;
        self.edit(ino, |inode| (inode.attr.size, inode.attr.mtime) = (size, now));
        self.settle_holes(&before);
        self.drop_set_id_if_squashed(ino);
        self.notify_inode(ino, true);
        Ok(Reply::Cloned { attr: self.tables.inodes[&ino].attr.clone(), count })
    }

    fn add_clone(&mut self, source: &CloneSource, extent: Extent, ino: Ino, first: u32) {
        let file = self.tables.inodes[&source.ino].attr.file.clone();
        let Extent { first: at, count, version } = extent;
        let stored = self.tables.clones.stored(ChunkRun { file, first: at, count, version });
        let version = Version::of_clone(self.tables.next.version);
        self.tables.next.version += 1;
        let first = first + (at - source.first);
        self.tables.clones.add(ClonedRun { version, first, stored });
        self.make_current(ino, Extent { first, count, version });
    }

    /// Puts the chunks of an extent that was taken from a file on the dead list, apart from those that others have.
    pub(super) fn release_chunks(&mut self, run: ChunkRun, chunk_bytes: u32) {
        let (version, count) = (run.version, run.count);
        let stored = self.tables.clones.stored(run);
        let dead = self.tables.clones.drop_share(&Extent::from(&stored));
        let dead_count: u32 = dead.iter().map(|part| part.count).sum();
        // The table of extents counts those that are no clones.
        let space = |count: u32| u64::from(count) * u64::from(chunk_bytes);
        let bytes = &mut self.tables.stored_bytes;
        if version.is_clone() {
            *bytes = bytes.wrapping_sub(space(dead_count));
        } else {
            *bytes = bytes.wrapping_add(space(count - dead_count));
        }
        for Extent { first, count, version } in dead {
            self.add_dead(ChunkRun { file: stored.file.clone(), first, count, version });
        }
        if version.is_clone() && !self.tables.is_referenced(version) {
            self.tables.clones.forget(version);
        }
    }
}

impl Tables {
    pub(super) fn check_sizes(&self, source: (Ino, u64), target: (Ino, u64), first: u32) -> Result<(), FsError> {
        for (ino, size) in [source, target] {
            if self.file(ino)?.size != size {
                return Err(FsError::Conflict { index: first });
            }
        }
        Ok(())
    }

    fn check_clone(
        &self,
        source: &CloneSource,
        before: &Attr,
        target: &Extent,
        chunk_bytes: u32,
    ) -> Result<(), FsError> {
        let range = source.range();
        check_range(&range)?;
        check_range(target)?;
        for attr in [self.file(source.ino)?, before] {
            if attr.chunk_bytes != chunk_bytes {
                return Err(FsError::Stale { ino: attr.ino });
            }
        }
        if source.ino == before.ino && range.part(target.first, target.last()).is_some() {
            return Err(invalid("a file cannot be cloned onto itself"));
        }
        Ok(())
    }

    /// The extents in the range, as many as one operation clones, and how many chunks from the beginning of the range
    /// these are, with the holes among them.
    fn extents_to_clone(&self, source: &CloneSource) -> (Vec<Extent>, u32) {
        let range = source.range();
        let mut covered = self.extents_from(source.ino, range.first).map_while(|it| it.part(range.first, range.last()));
        let extents: Vec<Extent> = covered.by_ref().take(MAX_CLONED_RUNS).collect();
        work::count(extents.len());
        let next = covered.next().map_or(range.end(), |next| u64::from(next.first));
        (extents, (next - u64::from(range.first)) as u32)
    }

    pub(super) fn describe_clones(&self, versions: &[Version]) -> Result<Answer, FsError> {
        if versions.len() > PAGE_ITEMS as usize {
            return Err(invalid(format!("{} versions; at most {PAGE_ITEMS} are allowed", versions.len())));
        }
        let known = versions.iter().filter_map(|version| self.clones.runs.get(version));
        Ok(Answer::Clones(known.cloned().collect()))
    }

    /// The files that have a chunk by a clone.
    pub(super) fn cloned_into(&self, ChunkId { version, index }: ChunkId) -> impl Iterator<Item = Ino> {
        let clones = self.clones.by_stored.range::<_, (Version, Version)>((version, Version(0))..);
        let clones = clones.map_while(move |((stored, clone), ())| (*stored == version).then_some(*clone));
        clones.filter_map(move |clone| {
            let run = self.clones.runs.get(&clone)?;
            let after = index.checked_sub(run.stored.first).filter(|after| *after < run.stored.count)?;
            let ino = self.user_of(clone)?;
            let has_it = self.extent_at(ino, run.first + after).is_some_and(|extent| extent.version == clone);
            has_it.then_some(ino)
        })
    }

    /// Whether extents share some of the chunks.
    pub(super) fn is_shared(&self, run: &Extent) -> bool {
        self.clones.under(run).next().is_some()
    }

    /// The chunks that a file has, as they are stored: those under its own NAME, and those that it shares.
    pub(super) fn stored_runs(&self, ino: Ino, extents: &[Extent]) -> Vec<ChunkRun> {
        let file = &self.inodes[&ino].attr.file;
        let run = |&Extent { first, count, version }: &Extent| ChunkRun { file: file.clone(), first, count, version };
        extents.iter().map(|extent| self.clones.stored(run(extent))).collect()
    }
}

impl Clones {
    /// The chunks of an extent as they are stored.
    fn stored(&self, run: ChunkRun) -> ChunkRun {
        let Some(clone) = self.runs.get(&run.version) else { return run };
        let first = clone.stored.first + (run.first - clone.first);
        ChunkRun { first, count: run.count, ..clone.stored.clone() }
    }

    fn add(&mut self, clone: ClonedRun) {
        work::count(1);
        self.change_shares(&Extent::from(&clone.stored), |extents| extents.map_or(2, |extents| extents + 1));
        self.by_stored.insert((clone.stored.version, clone.version), ());
        self.runs.insert(clone.version, clone);
    }

    fn forget(&mut self, version: Version) {
        work::count(1);
        if let Some(clone) = self.runs.remove(&version) {
            self.by_stored.remove(&(clone.stored.version, version));
        }
    }

    /// Notes that one extent less has these stored chunks. Returns those that are in none any more.
    fn drop_share(&mut self, run: &Extent) -> Vec<Extent> {
        if self.under(run).next().is_none() {
            return vec![*run];
        }
        let kept: Vec<Extent> = self.under(run).filter(|(_, extents)| *extents > 1).map(|(part, _)| part).collect();
        self.change_shares(run, |extents| extents.map_or(0, |extents| extents - 1));
        without(run, &kept)
    }

    /// The parts of a run of stored chunks that were cloned, ascending, and in how many extents they are.
    fn under(&self, run: &Extent) -> impl Iterator<Item = (Extent, u32)> {
        let (version, first, last) = (run.version, run.first, run.last());
        let before = self.shares.get_prev(&(version, first)).filter(|((of, _), _)| *of == version);
        let start = before.map_or(first, |((_, at), _)| *at);
        let shares = self.shares.range::<_, (Version, u32)>((version, start)..=(version, last));
        shares.filter_map(move |((_, at), share)| {
            let whole = Extent { first: *at, count: share.last - at + 1, version };
            Some((whole.part(first, last)?, share.extents))
        })
    }

    /// Changes how many extents have the chunks of a run; 0 for those that are in none, and `None` for those that were
    /// never cloned.
    fn change_shares(&mut self, run: &Extent, change: impl Fn(Option<u32>) -> u32) {
        self.split_share(run.version, run.first);
        if let Some(next) = run.last().checked_add(1) {
            self.split_share(run.version, next);
        }
        let known: Vec<(Extent, u32)> = self.under(run).collect();
        let parts: Vec<Extent> = known.iter().map(|(part, _)| *part).collect();
        let shared = known.iter().map(|(part, extents)| (*part, change(Some(*extents))));
        let others = without(run, &parts).into_iter().map(|part| (part, change(None)));
        for (part, extents) in shared.chain(others).collect::<Vec<_>>() {
            work::count(1);
            let at = (part.version, part.first);
            if extents == 0 {
                self.shares.remove(&at);
            } else {
                self.shares.insert(at, SharedRun { last: part.last(), extents });
            }
        }
    }

    /// Splits the run that crosses from the chunk before `chunk` to it, if there is one.
    fn split_share(&mut self, version: Version, chunk: u32) {
        let Some(((of, first), share)) = self.shares.get_prev(&(version, chunk)).map(|(at, share)| (*at, *share))
        else {
            return;
        };
        if of == version && first < chunk && share.last >= chunk {
            self.shares.insert((version, first), SharedRun { last: chunk - 1, ..share });
            self.shares.insert((version, chunk), share);
        }
    }
}
