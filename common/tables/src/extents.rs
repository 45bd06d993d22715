//! The versions that make up a file: commits, the chunks that they replace, and the dead list.
//!
//! An extent is `count` chunks of one version. The chunks that a commit covers move from the table to the dead list,
//! run by run, and the leader deletes them from the nodes. Each stored chunk is current in at most one file, unless it
//! was cloned (`clones`), and dead at most once.

use std::sync::Arc;

use chordfs_types::{
    chunk::{ChunkRun, Version},
    fs_error::FsError,
    namespace::{Answer, Attr, ChunkWrite, Commit, Extent, FileContents, Ino, MAX_COMMIT_RUNS, PAGE_ITEMS, Reply},
};
use serde::{Deserialize, Serialize};

use super::{Tables, Transaction, entries::check_chunk_bytes, invalid, segments::FileSegment, work};

/// The first and the last chunk of a range, both included.
pub(super) type ChunkRange = (u32, u32);
pub(super) const ALL_CHUNKS: ChunkRange = (1, u32::MAX);
/// The largest [`Extent::end`], as the last chunk has the number `u32::MAX`.
const MAX_END: u64 = 1 << 32;
/// A page of contents ends early when the names in it would grow past this, or after this many inodes.
const CONTENTS_BYTES: usize = 512 * 1024;
const CONTENTS_INODES: usize = 1 << 14;

/// An extent is removed at once, rather than detached, if an operation removes no more than this many at its place,
/// even if the operation has removed very many already: a file in many segments would be slow for ever.
const FEW: usize = if cfg!(test) { 1 } else { 4 };

/// `ino` is the place of a file's extents, in general its own number; see `segments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct ExtentKey {
    ino: Ino,
    first: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ExtentValue {
    count: u32,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct VersionUse {
    pub(super) ino: Ino,
    /// How many of the inode's extents have the version.
    pub(super) extents: u32,
}

/// A run to be deleted from the nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DeadRun {
    pub(super) run: ChunkRun,
    /// Its place in the log, which ascends with the ids of the dead list.
    pub(super) since: u64,
}

impl Transaction<'_> {
    pub(super) fn commit(&mut self, ino: Ino, commit: &Commit) -> Result<Reply, FsError> {
        let before = self.tables.file(ino)?.clone();
        self.tables.check_commit(&before, commit)?;
        if let Some(chunk_bytes) = commit.restart {
            self.remove_chunks(ino, ALL_CHUNKS, None);
            self.edit(ino, |inode| (inode.attr.size, inode.attr.chunk_bytes) = (0, chunk_bytes));
        }
        for extent in &commit.extents {
            self.make_current(ino, *extent);
        }
        for write in &commit.partial {
            self.make_current(ino, write.extent());
        }
        let mtime = commit.mtime.unwrap_or(self.now);
        self.edit(ino, |inode| {
            inode.attr.size = inode.attr.size.max(commit.size_at_least);
            inode.attr.mtime = mtime;
        });
        self.settle_holes(&before);
        self.apply_set(ino, &commit.set);
        self.drop_set_id_if_squashed(ino);
        self.notify_inode(ino, true);
        Ok(Reply::Attr(self.tables.inodes[&ino].attr.clone()))
    }

    pub(super) fn punch_hole(
        &mut self,
        ino: Ino,
        (first, count): (u32, u32),
        chunk_bytes: u32,
    ) -> Result<Reply, FsError> {
        let before = self.tables.file(ino)?.clone();
        let hole = Extent { first, count, version: Version(0) };
        check_range(&hole)?;
        if before.chunk_bytes != chunk_bytes {
            return Err(FsError::Stale { ino });
        }
        self.remove_chunks(ino, (first, hole.last()), None);
        let now = self.now;
        self.edit(ino, |inode| inode.attr.mtime = now);
        self.settle_holes(&before);
        self.drop_set_id_if_squashed(ino);
        self.notify_inode(ino, true);
        Ok(Reply::Attr(self.tables.inodes[&ino].attr.clone()))
    }

    pub(super) fn forget_dead(&mut self, ids: &[u64]) -> Result<Reply, FsError> {
        for id in ids {
            if let Some(dead) = self.tables.dead.remove(id) {
                self.tables.dead_versions.remove(&(dead.run.version, dead.run.first));
                work::count(1);
                self.tables.logged_chunks.forget_run(&dead.run);
                // Otherwise a commit that is sent again could bring back a chunk that the nodes have deleted.
                self.tables.retire(dead.run.version);
            }
        }
        Ok(Reply::Done)
    }

    /// Makes a run current in place of everything that it covers.
    pub(super) fn make_current(&mut self, ino: Ino, extent: Extent) {
        self.remove_chunks(ino, (extent.first, extent.last()), Some(extent.version));
        self.gained += i64::from(extent.count);
        let extent = self.tables.joined(ino, extent);
        self.tables.insert_extent(ino, extent);
    }

    /// Removes chunks from a file and puts them on the dead list, except those of version `keep`. Very many are
    /// detached instead, and reach the dead list later.
    pub(super) fn remove_chunks(&mut self, ino: Ino, (first, last): ChunkRange, keep: Option<Version>) {
        // A run that is committed again may be among what it covers. It is no longer than one upload.
        let may_keep = keep.is_some_and(|version| self.tables.is_referenced(version));
        if !may_keep && self.detach(ino, (first, last), self.removals_left.max(FEW)) {
            return;
        }
        let covered: Vec<Extent> =
            self.tables.extents_from(ino, first).take_while(|extent| extent.first <= last).collect();
        self.removals_left = self.removals_left.saturating_sub(covered.len());
        for extent in covered {
            self.tables.remove_extent(ino, extent);
            if let Some(left) = extent.part(1, first - 1) {
                self.tables.insert_extent(ino, left);
            }
            if let Some(right) = last.checked_add(1).and_then(|after| extent.part(after, u32::MAX)) {
                self.tables.insert_extent(ino, right);
            }
            let Some(piece) = extent.part(first, last) else { continue };
            self.gained -= i64::from(piece.count);
            if keep != Some(extent.version) {
                let Attr { file, chunk_bytes, .. } = self.tables.inodes[&ino].attr.clone();
                let Extent { first, count, version } = piece;
                self.release_chunks(ChunkRun { file, first, count, version }, chunk_bytes);
            }
        }
    }

    /// Notes how many chunks of a file are holes after its contents have changed.
    pub(super) fn settle_holes(&mut self, before: &Attr) {
        let gained = std::mem::take(&mut self.gained);
        let inode = self.tables.inodes.get_mut(&before.ino).expect("the caller has changed it");
        let attr = &mut Arc::make_mut(inode).attr;
        let stored = chunks_of(before).saturating_sub(before.holes.into()).saturating_add_signed(gained);
        attr.holes = chunks_of(attr).saturating_sub(stored) as u32;
    }

    pub(super) fn add_dead(&mut self, run: ChunkRun) {
        self.tables.logged_chunks.note_replaced(&run, self.index);
        let id = self.tables.next.dead;
        self.tables.next.dead += 1;
        self.tables.dead_versions.insert((run.version, run.first), id);
        self.tables.dead.insert(id, DeadRun { run, since: self.index });
        work::count(1);
    }
}

impl Tables {
    /// Counts the holes of all files, for tables that were stored without.
    pub fn count_holes(&mut self) {
        let files: Vec<Ino> =
            self.inodes.iter().filter(|(_, inode)| inode.attr.size > 0).map(|(ino, _)| *ino).collect();
        for ino in files {
            let stored: u64 = self.extents_from(ino, 1).map(|extent| u64::from(extent.count)).sum();
            let chunks = chunks_of(&self.inodes[&ino].attr);
            if chunks > stored
                && let Some(inode) = self.inodes.get_mut(&ino)
            {
                Arc::make_mut(inode).attr.holes = (chunks - stored) as u32;
            }
        }
    }

    /// Extents that end at or after chunk `from`, ascending.
    pub(super) fn extents_from(&self, ino: Ino, from: u32) -> impl Iterator<Item = Extent> {
        let segments = self.segments(ino, (from, u32::MAX));
        segments.flat_map(move |it| self.extents_at(it.place, (from.max(it.first), it.last)))
    }

    /// Extents at a place that overlap the range.
    pub(super) fn extents_at(&self, place: Ino, (first, last): ChunkRange) -> impl Iterator<Item = Extent> {
        let start = self.covering(place, first).map_or(first, |extent| extent.first);
        let range = ExtentKey { ino: place, first: start }..=ExtentKey { ino: place, first: last };
        self.extents.range::<_, ExtentKey>(range).map(|(at, run)| extent(at, run))
    }

    fn covering(&self, place: Ino, index: u32) -> Option<Extent> {
        let (at, run) = self.extents.get_prev(&ExtentKey { ino: place, first: index })?;
        Some(extent(at, run)).filter(|extent| at.ino == place && extent.contains(index))
    }

    /// Returns as many names and extents as fit into one answer, across all files. An extent that covers `first` is
    /// listed whole, even if it starts earlier: it may have been rewritten since the previous page. What a file shares
    /// is listed with it as it is stored.
    pub(super) fn contents_page(&self, ino: Ino, first: u32) -> Answer {
        let (mut files, mut left, mut bytes): (Vec<FileContents>, _, _) = (Vec::new(), PAGE_ITEMS as usize, 0);
        for (number, &at) in self.inodes.range::<_, Ino>(ino..).map(|(at, _)| at).enumerate() {
            if left == 0 || bytes > CONTENTS_BYTES || number == CONTENTS_INODES {
                return Answer::Contents { files, next: Some((at, 1)) };
            }
            let mut rest = self.extents_from(at, if at == ino { first } else { 1 });
            let extents: Vec<Extent> = rest.by_ref().take(left).collect();
            if extents.is_empty() {
                continue;
            }
            left -= extents.len();
            for (listed, ChunkRun { file, first, count, version }) in extents.iter().zip(self.stored_runs(at, &extents))
            {
                if bytes > CONTENTS_BYTES {
                    return Answer::Contents { files, next: Some((at, listed.first)) };
                }
                let extent = Extent { first, count, version };
                match files.last_mut().filter(|last| (last.ino, &last.file) == (at, &file)) {
                    Some(last) => last.extents.push(extent),
                    None => {
                        bytes += file.as_bytes().len();
                        files.push(FileContents { ino: at, file, extents: vec![extent] });
                    }
                }
            }
            if let Some(next) = rest.next() {
                return Answer::Contents { files, next: Some((at, next.first)) };
            }
        }
        Answer::Contents { files, next: None }
    }

    /// Returns the extent that covers a chunk; `None` is a hole.
    pub(super) fn extent_at(&self, ino: Ino, index: u32) -> Option<Extent> {
        self.covering(self.segment(ino, index).place, index)
    }

    pub(super) fn is_referenced(&self, version: Version) -> bool {
        self.versions.contains_key(&version)
    }

    /// Returns `Conflict` unless the write's base is the current version of that chunk.
    pub(super) fn check_base(&self, ino: Ino, write: &ChunkWrite) -> Result<(), FsError> {
        let current = self.extent_at(ino, write.index).map(|extent| extent.version);
        if current == write.base { Ok(()) } else { Err(FsError::Conflict { index: write.index }) }
    }

    /// Refuses a version that was never allocated, because it would be allocated later, to another file.
    pub(super) fn check_version(&self, version: Version) -> Result<(), FsError> {
        if (1..self.next.version).contains(&version.0) {
            return Ok(());
        }
        Err(invalid(format!("version {} was never allocated", version.0)))
    }

    /// Returns `Conflict`, which means "store the chunks again", unless the run can become current in this file: a
    /// version is current in one file only, and neither a dead chunk nor any chunk of a retired version becomes current
    /// again, nor one that was cloned: its extents are counted.
    pub(super) fn check_alive(&self, ino: Ino, run: &Extent) -> Result<(), FsError> {
        let elsewhere = self.versions.get(&run.version).is_some_and(|used| used.ino != ino);
        if elsewhere || self.is_retired(run.version) || self.is_shared(run) {
            return Err(FsError::Conflict { index: run.first });
        }
        let detached = self.detached_under(ino, run).filter(|extent| extent.version == run.version);
        let dead = self.dead_under(run).chain(detached);
        match dead.filter_map(|dead| dead.part(run.first, run.last())).map(|part| part.first).min() {
            Some(index) => Err(FsError::Conflict { index }),
            None => Ok(()),
        }
    }

    /// Iterates over the dead chunks of a run's version that overlap it. Dead runs of one version have no chunk in
    /// common.
    pub(super) fn dead_under(&self, run: &Extent) -> impl Iterator<Item = Extent> {
        let (version, first, last) = (run.version, run.first, run.last());
        let before = self.dead_versions.get_prev(&(version, first)).filter(|((of, _), _)| *of == version);
        let start = before.map_or(first, |((_, at), _)| *at);
        let ids = self.dead_versions.range::<_, (Version, u32)>((version, start)..=(version, last));
        let dead = ids.filter_map(|(_, id)| self.dead.get(id)).map(|dead| Extent::from(&dead.run));
        dead.filter(move |dead| dead.last() >= first)
    }

    /// Returns the existing file that may have chunks of the version. The contents of one that was removed may still be
    /// waiting to be taken apart.
    pub(super) fn user_of(&self, version: Version) -> Option<Ino> {
        let user = self.versions.get(&version)?.ino;
        self.inodes.contains_key(&user).then_some(user)
    }

    /// Returns whether any chunk of this run is current. A dead run never is, because of [`Tables::check_alive`].
    pub(super) fn is_current(&self, run: &ChunkRun) -> bool {
        if self.is_shared(&run.into()) {
            return true;
        }
        let Some(user) = self.user_of(run.version) else { return false };
        let last = Extent::from(run).last();
        let mut covered = self.extents_from(user, run.first).take_while(|extent| extent.first <= last);
        covered.any(|extent| extent.version == run.version)
    }

    fn check_commit(&self, before: &Attr, commit: &Commit) -> Result<(), FsError> {
        let runs = sorted_runs(commit)?;
        runs.iter().try_for_each(|run| self.check_version(run.version))?;
        if commit.set.truncate.is_some() {
            return Err(invalid("a commit cannot truncate; use SetAttr"));
        }
        let (chunk_bytes, size) = match commit.restart {
            Some(chunk_bytes) => {
                check_chunk_bytes(chunk_bytes)?;
                self.check_fresh(&runs)?;
                (chunk_bytes, 0)
            }
            None if commit.chunk_bytes.is_some_and(|made_for| made_for != before.chunk_bytes) => {
                return Err(FsError::Stale { ino: before.ino });
            }
            None => (before.chunk_bytes, before.size),
        };
        let size = size.max(commit.size_at_least);
        check_size(size, chunk_bytes)?;
        if let Some(run) = runs.last()
            && u64::from(run.last() - 1) * u64::from(chunk_bytes) >= size
        {
            return Err(invalid(format!("chunk {} is beyond the end of the file, {size} bytes", run.last())));
        }
        commit.partial.iter().try_for_each(|write| match commit.restart {
            Some(_) if write.base.is_some() => Err(FsError::Conflict { index: write.index }),
            Some(_) => Ok(()),
            None => self.check_base(before.ino, write),
        })?;
        runs.iter().try_for_each(|run| self.check_alive(before.ino, run))
    }

    /// Refuses versions that are in use: a restart puts all old versions of the file on the dead list.
    fn check_fresh(&self, runs: &[Extent]) -> Result<(), FsError> {
        match runs.iter().find(|run| self.is_referenced(run.version)) {
            Some(run) => Err(invalid(format!("version {} is in use already", run.version.0))),
            None => Ok(()),
        }
    }

    /// Joins the extent with the neighbours that it continues, and removes those from the table.
    fn joined(&mut self, ino: Ino, mut extent: Extent) -> Extent {
        if let Some(left) = self.extent_at(ino, extent.first - 1).filter(|left| left.version == extent.version) {
            self.remove_extent(ino, left);
            extent = Extent { first: left.first, count: left.count + extent.count, ..extent };
        }
        let next = extent.last().checked_add(1).and_then(|next| self.extent_at(ino, next));
        if let Some(right) = next.filter(|right| right.version == extent.version) {
            self.remove_extent(ino, right);
            extent.count += right.count;
        }
        extent
    }

    /// Inserts an extent, cut where the file's segments meet.
    pub(super) fn insert_extent(&mut self, ino: Ino, extent: Extent) {
        let mut rest = Some(extent);
        while let Some(extent) = rest {
            let FileSegment { place, last, .. } = self.segment(ino, extent.first);
            rest = last.checked_add(1).and_then(|next| extent.part(next, u32::MAX));
            let Extent { first, count, version } = extent.part(1, last).expect("it begins in this segment");
            self.extents.insert(ExtentKey { ino: place, first }, ExtentValue { count, version });
            self.versions.entry(version).or_insert(VersionUse { ino, extents: 0 }).extents += 1;
            // What clones share was counted with the extents for which it was stored.
            if !version.is_clone() {
                self.stored_bytes = self.stored_bytes.wrapping_add(self.space(ino, count));
            }
            work::count(1);
        }
    }

    pub(super) fn remove_extent(&mut self, ino: Ino, extent: Extent) {
        let chunk_bytes = self.inodes[&ino].attr.chunk_bytes;
        self.remove_at(self.segment(ino, extent.first).place, chunk_bytes, extent);
    }

    pub(super) fn remove_at(&mut self, place: Ino, chunk_bytes: u32, Extent { first, count, version }: Extent) {
        work::count(1);
        self.extents.remove(&ExtentKey { ino: place, first });
        if !version.is_clone() {
            self.stored_bytes = self.stored_bytes.wrapping_sub(u64::from(count) * u64::from(chunk_bytes));
        }
        match self.versions.get_mut(&version) {
            Some(used) if used.extents > 1 => used.extents -= 1,
            _ => drop(self.versions.remove(&version)),
        }
    }

    fn space(&self, ino: Ino, count: u32) -> u64 {
        u64::from(count) * u64::from(self.inodes[&ino].attr.chunk_bytes)
    }
}

/// How many chunks the file has, holes included; 0 for other kinds.
fn chunks_of(attr: &Attr) -> u64 {
    if attr.chunk_bytes == 0 { 0 } else { attr.size.div_ceil(attr.chunk_bytes.into()) }
}

/// Refuses a size that a file of this chunk size cannot have.
pub(super) fn check_size(size: u64, chunk_bytes: u32) -> Result<(), FsError> {
    let most = u64::from(u32::MAX) * u64::from(chunk_bytes);
    if size > most { Err(FsError::FileTooLarge) } else { Ok(()) }
}

/// Arithmetic on extents that [`check_range`] accepts: those cannot overflow.
pub(super) trait ExtentMath: Sized {
    fn last(&self) -> u32;
    fn part(&self, first: u32, last: u32) -> Option<Self>;
}

impl ExtentMath for Extent {
    fn last(&self) -> u32 {
        self.first + (self.count - 1)
    }

    /// Returns the part of the extent in `first..=last`.
    fn part(&self, first: u32, last: u32) -> Option<Self> {
        let (first, last) = (first.max(self.first), last.min(self.last()));
        (first <= last).then(|| Self { first, count: last - first + 1, version: self.version })
    }
}

fn extent(at: &ExtentKey, run: &ExtentValue) -> Extent {
    Extent { first: at.first, count: run.count, version: run.version }
}

/// Returns all runs that a commit writes, ascending. Refuses runs that are empty, out of range, out of order or written
/// twice.
fn sorted_runs(commit: &Commit) -> Result<Vec<Extent>, FsError> {
    let count = commit.extents.len() + commit.partial.len();
    if count > MAX_COMMIT_RUNS {
        return Err(invalid(format!("a commit of {count} runs; at most {MAX_COMMIT_RUNS} are allowed")));
    }
    if !commit.extents.is_sorted_by_key(|extent| extent.first) {
        return Err(invalid("the extents of a commit must ascend"));
    }
    let mut runs: Vec<Extent> = commit.runs().collect();
    runs.iter().try_for_each(check_range)?;
    runs.sort_by_key(|run| run.first);
    match runs.windows(2).find(|pair| pair[0].end() > u64::from(pair[1].first)) {
        Some(pair) => Err(invalid(format!("chunk {} is written twice in one commit", pair[1].first))),
        None => Ok(runs),
    }
}

pub(super) fn check_range(run: &Extent) -> Result<(), FsError> {
    if run.first == 0 || run.count == 0 {
        return Err(invalid("a run has at least one chunk, and chunks count from 1"));
    }
    if run.end() > MAX_END { Err(FsError::FileTooLarge) } else { Ok(()) }
}
