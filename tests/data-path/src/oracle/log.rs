//! What the log may do: the checks on every operation as it is applied.

use chordfs_tables::{AppliedOp, Tables};
use chordfs_types::{
    chunk::{ChunkId, ChunkRun, Version},
    fs_error::FsError,
    namespace::{Answer, Change, Ino, NamespaceOp, Query, Reply},
};

use super::{
    CELL_BYTES, CHUNK_CELLS, FILE_CHUNKS, Oracle, OracleState,
    file::{FileModel, FsyncPromise, OwnValue},
};
use crate::{
    plane::{Plane, QUORUM},
    world::World,
};

/// A commit that meets this many conflicts in a row will never succeed.
const MANY_CONFLICTS: u32 = 150;

impl Oracle {
    /// The leader has applied an operation of `mount`.
    pub(crate) fn applied(
        &self,
        index: u64,
        mount: Option<usize>,
        op: &NamespaceOp,
        applied: &AppliedOp,
        tables: &Tables,
        plane: &Plane,
    ) {
        let mut state = self.state.lock();
        state.index = index;
        if !matches!(op.change, Change::AllocateVersions { .. }) {
            self.world.note(format!(
                "log {index}: mount {mount:?} {} -> {}",
                brief(&op.change),
                outcome(&applied.reply)
            ));
        }
        if let (Change::Make { .. }, Ok(Reply::Entry { attr, created: true })) = (&op.change, &applied.reply) {
            state.files.entry(attr.ino).or_insert_with(|| FileModel::new(attr.ino, attr.file.clone(), index));
        }
        // A doubled operation has changed nothing, and one of the namespace's own never touches contents.
        let (Some(mount), Some(ino)) = (mount, subject(&op.change)) else {
            return self.check_purge(&state, op, tables);
        };
        self.count_conflicts(&mut state, mount, ino, &applied.reply);
        if applied.reply.is_ok() && !applied.feed.is_empty() {
            let truncation = truncation(&op.change);
            let heard = state.mounts.get(&mount).and_then(|view| view.heard_at_commit.get(&ino)).copied().unwrap_or(0);
            Contents { world: &self.world, plane, index, mount, heard, truncation }.take(&mut state, ino, tables);
        }
    }

    fn check_purge(&self, state: &OracleState, op: &NamespaceOp, tables: &Tables) {
        if !matches!(op.change, Change::PurgeOrphans { .. }) {
            return;
        }
        for (mount, view) in &state.mounts {
            for (ino, (_, session)) in &view.opens {
                let is_open = tables.sessions().any(|(id, _)| id == *session);
                let is_gone = tables.query(&Query::GetAttr { ino: *ino }).is_err();
                if is_open && is_gone {
                    self.world.fail(format!(
                        "inode {} was purged while mount {mount} has it open, and its session {} lives",
                        ino.0, session.0
                    ));
                }
            }
        }
    }

    fn count_conflicts(&self, state: &mut OracleState, mount: usize, ino: Ino, reply: &Result<Reply, FsError>) {
        let count = state.conflicts.entry((mount, ino)).or_default();
        *count = if matches!(reply, Err(FsError::Conflict { .. })) { *count + 1 } else { 0 };
        if *count == MANY_CONFLICTS {
            self.world.fail(format!("{count} commits of mount {mount} to inode {} in a row met a conflict", ino.0));
        }
    }

    /// The namespace has these deleted.
    pub(crate) fn deleting(&self, runs: &[ChunkRun], tables: &Tables) {
        let state = self.state.lock();
        for file in state.files.values() {
            let Some(chunks) = chunks_of(file.ino, tables) else { continue };
            for (version, index) in chunks.1 {
                let is_current =
                    |run: &&ChunkRun| run.version == version && (run.first..run.first + run.count).contains(&index);
                if let Some(run) = runs.iter().find(is_current) {
                    self.world.fail(format!("inode {} still has the chunk {run:?}, which is deleted", file.ino.0));
                }
            }
        }
    }
}

/// One operation that may change contents.
struct Contents<'a> {
    world: &'a World,
    plane: &'a Plane,
    index: u64,
    mount: usize,
    /// What the mount had heard of the log when it sent the commit.
    heard: u64,
    /// When the truncation began that this is, as the model counts; `None` for a commit.
    truncation: Option<u64>,
}

impl Contents<'_> {
    fn is_commit(&self) -> bool {
        self.truncation.is_none()
    }

    fn take(&self, state: &mut OracleState, ino: Ino, tables: &Tables) {
        let Some((size, chunks)) = chunks_of(ino, tables) else { return };
        let OracleState { files, replaced, .. } = state;
        let Some(file) = files.get_mut(&ino) else { return };
        for at in 0..FILE_CHUNKS {
            let index = at as u32 + 1;
            let version = chunks.iter().find(|(_, chunk)| *chunk == index).map(|(version, _)| *version);
            let before = file.chunks.get(&index).copied();
            if version != before {
                if let Some(version) = before {
                    replaced.insert((ino, ChunkId { version, index }));
                    file.was_cut |= !self.is_commit();
                    file.chunks.remove(&index);
                }
                if let Some(version) = version {
                    self.check_chunk(file, replaced.contains(&(ino, ChunkId { version, index })), version, index);
                    file.chunks.insert(index, version);
                }
            }
            self.take_cells(file, at, size, version);
        }
    }

    fn check_chunk(&self, file: &mut FileModel, was_replaced: bool, version: Version, index: u32) {
        let id = ChunkId { version, index };
        let what = format!("mount {} commits chunk {index}@{} of inode {}", self.mount, version.0, file.ino.0);
        if was_replaced && file.was_cut && !self.world.faults.lost_answers_and_truncation {
            file.has_replaced_chunk = true;
            return;
        }
        if was_replaced {
            self.world.fail(format!("{what}, which was replaced before"));
        }
        if self.plane.is_lost(id) {
            file.had_losses = true;
        } else if !self.plane.has_copy(id) {
            self.world.fail(format!("{what}, which no node has"));
        }
        let first = (index as usize - 1) * CHUNK_CELLS;
        let cells = &mut file.cells[first..first + CHUNK_CELLS];
        let knows = |promise: &FsyncPromise| promise.mount == self.mount || promise.index <= self.heard;
        let is_known = cells.iter().flat_map(|cell| &cell.promises).any(knows);
        let disks = self.plane.on_disks(id);
        if disks >= QUORUM || !self.world.faults.power_cuts {
            return;
        }
        if is_known || (self.world.faults.unheard_fsync && cells.iter().any(|cell| !cell.promises.is_empty())) {
            self.world.fail(format!("{what}: it replaces what was fsynced and is on {disks} disks"));
        } else {
            // A known defect: from now on nothing is promised.
            cells.iter_mut().for_each(|cell| cell.promises.clear());
        }
    }

    fn take_cells(&self, file: &mut FileModel, at: usize, size: u64, version: Option<Version>) {
        let index = at as u32 + 1;
        let data = version.and_then(|version| self.plane.data(ChunkId { version, index })).unwrap_or_default();
        for step in 0..CHUNK_CELLS {
            let cell = at * CHUNK_CELLS + step;
            let is_within = (cell as u64 + 1) * CELL_BYTES <= size;
            let bytes = data.chunks(CELL_BYTES as usize).nth(step).unwrap_or_default();
            let Some(value) = cell_value(bytes) else {
                return self.world.fail(format!("cell {cell} of inode {} is torn: {bytes:?}", file.ino.0));
            };
            self.take_cell(file, cell, if is_within { value } else { 0 }, is_within);
        }
    }

    fn take_cell(&self, file: &mut FileModel, cell: usize, value: u64, is_within: bool) {
        let before = file.cells[cell].current();
        let (ino, index) = (file.ino, self.index);
        let own = &mut file.own(self.mount).cells[cell];
        let is_source = |own: &OwnValue| match self.truncation {
            Some(begun) => own.begun == begun,
            None => own.value == value,
        };
        let written = own.iter().rposition(is_source);
        if value != before
            && is_within
            && let Some(problem) = objection(own, written, self.is_commit())
        {
            let what =
                format!("the {} of mount {}", if self.is_commit() { "commit" } else { "truncation" }, self.mount);
            self.world.fail(format!("{what} makes cell {cell} of inode {} {value}, was {before}: {problem}", ino.0));
        }
        // Zeros come from truncations to before this cell alone; a cell may be a hole without one.
        let is_from_it = if self.is_commit() { value != 0 } else { !is_within };
        if let Some(written) = written
            && is_from_it
            && (value != before || own[written].committed.is_none())
        {
            own[written].committed = Some(index);
        }
        if value != before {
            file.cells[cell].set(index, value);
        }
        if !is_within {
            file.cells[cell].promises.clear();
        }
    }
}

/// Why the mount whose own values of a cell these are may not bring in the one at `written`.
fn objection(own: &[OwnValue], written: Option<usize>, is_commit: bool) -> Option<&'static str> {
    if !is_commit {
        return Some("a truncation changes no bytes before the new end");
    }
    let Some(written) = written else { return Some("this mount never wrote it: another's write is undone") };
    let is_later = |later: &OwnValue| later.committed.is_some() && !later.is_doubtful && own[written].is_before(later);
    own.iter().any(is_later).then_some("this mount has committed a later write there before")
}

/// The one number that all bytes are filled with; a short cell is filled up with zeros. `None` if they differ.
pub(super) fn cell_value(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    let mut words = words.collect::<Vec<u64>>();
    words.dedup();
    (words.len() == 1 && bytes.len() == CELL_BYTES as usize).then(|| words[0])
}

/// The size of a file and its chunks.
fn chunks_of(ino: Ino, tables: &Tables) -> Option<(u64, Vec<(Version, u32)>)> {
    let Ok(Answer::Open { attr, extents, .. }) = tables.query(&Query::Open { ino }) else { return None };
    let chunks = extents.iter().flat_map(|extent| (0..extent.count).map(|step| (extent.version, extent.first + step)));
    Some((attr.size, chunks.collect()))
}

/// When the truncation began, as the model counts; `None` for another change.
fn truncation(change: &Change) -> Option<u64> {
    match change {
        Change::SetAttr { set, .. } => Some(u64::from(set.atime?.nanos)),
        _ => None,
    }
}

/// The file whose contents the change may change.
fn subject(change: &Change) -> Option<Ino> {
    match change {
        Change::SetAttr { ino, set } => set.truncate.is_some().then_some(*ino),
        other => other.as_commit().map(|(ino, _)| ino),
    }
}

fn brief(change: &Change) -> String {
    match change {
        Change::Commit { ino, commit } | Change::CommitWithData { ino, commit, .. } => {
            let whole = commit.extents.iter().map(|it| format!("{}+{}@{}", it.first, it.count, it.version.0));
            let partial = commit
                .partial
                .iter()
                .map(|it| format!("{}@{} over {:?}", it.index, it.version.0, it.base.map(|base| base.0)));
            let pieces: Vec<String> = whole.chain(partial).collect();
            let with_data = if matches!(change, Change::CommitWithData { .. }) { " with data" } else { "" };
            format!("Commit{with_data} of {} [{}] size {}", ino.0, pieces.join(", "), commit.size_at_least)
        }
        Change::SetAttr { ino, set } => match &set.truncate {
            Some(cut) => {
                let tail =
                    cut.tail.map(|it| format!("{}@{} over {:?}", it.index, it.version.0, it.base.map(|it| it.0)));
                format!("truncation of {} to {}, tail {tail:?}", ino.0, cut.size)
            }
            None => format!("SetAttr of {}", ino.0),
        },
        Change::Make { name, .. } => format!("Make {name}"),
        Change::CollectOrphans { runs } => {
            let runs: Vec<String> =
                runs.iter().map(|it| format!("{}+{}@{}", it.first, it.count, it.version.0)).collect();
            format!("CollectOrphans {}", runs.join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn outcome(reply: &Result<Reply, FsError>) -> String {
    match reply {
        Ok(Reply::Attr(attr)) => format!("size {} change {}", attr.size, attr.change),
        Ok(Reply::Entry { attr, created }) => format!("inode {} created {created}", attr.ino.0),
        Ok(Reply::Removed { attr }) => format!("removed {:?}", attr.as_ref().map(|attr| (attr.ino.0, attr.nlink))),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("refused: {error}"),
    }
}
