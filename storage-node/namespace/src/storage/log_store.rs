//! The Raft log: in memory for reading, in append-only files for keeping.
//!
//! Entries since the last purge stay in memory; the snapshot policy bounds them. A writer owns the files
//! ([`super::log_writer`]); this is the interface for Raft, and opens the files that an earlier process left.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::Arc,
};

use chordfs_history::latency::LatencyMeter;
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader, entry::RaftEntry, storage::IOFlushed, storage::RaftLogStorage,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::{
    damage_cut,
    disk_space::DiskSpace,
    log_file::{self, DamagePolicy, LogFile, OpenedLogFile, damaged},
    log_writer::{LogProgress, LogWriter, PROGRESS, PURGED, VOTE},
    small_file,
    writer_queue::{DoneSender, WriterCommand, WriterQueue},
};
use crate::raft_types::{LogEntry, LogId, TypeConfig, Vote};

pub(super) const IDENTITY: &str = "identity";
/// The approximate size of a message to a follower; a single operation may be larger.
const READ_BYTES: usize = 1 << 20;

/// Cheap to clone; the clones share one log.
#[derive(Clone)]
pub(crate) struct LogStore {
    uid: u64,
    memory: Arc<RwLock<Memory>>,
    writer: WriterQueue,
    /// Shared with the writer, which saves it now and then.
    committed: Arc<Mutex<Option<LogId>>>,
    disk_space: Arc<DiskSpace>,
}

#[derive(Default)]
struct Memory {
    /// Consecutive entries; the first one has index `purged + 1`, or 0.
    entries: VecDeque<LogEntry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    /// Bytes of the entries appended since [`LogStore::take_appended_bytes`] last returned true.
    appended_bytes: u64,
}

impl LogStore {
    #[cfg(test)]
    pub(crate) fn open(dir: &Path, uid: u64, file_bytes: u64) -> io::Result<Self> {
        Self::open_with(dir, uid, file_bytes, DamagePolicy::Refuse)
    }

    pub(crate) fn open_with(dir: &Path, uid: u64, file_bytes: u64, policy: DamagePolicy) -> io::Result<Self> {
        Self::open_measured(dir, uid, file_bytes, policy, Arc::default())
    }

    /// Opens or creates the log in `dir`, which belongs to the node `uid` for ever: the log of another id is refused,
    /// and so is a damaged one unless `policy` allows a cut. `append_latency` measures how long appends take until they
    /// are on the disk.
    pub(crate) fn open_measured(
        dir: &Path,
        uid: u64,
        file_bytes: u64,
        policy: DamagePolicy,
        append_latency: Arc<LatencyMeter>,
    ) -> io::Result<Self> {
        chordfs_files::create_folder_durably(dir, 0o700)?;
        // A killed process leaves names that it did not sync, and what is done below relies on what is read here.
        chordfs_files::sync_folder(dir)?;
        check_identity(dir, uid)?;
        if policy == DamagePolicy::Refuse {
            damage_cut::refuse_if_under_way(dir)?;
        }
        let purged: Option<LogId> = small_file::read(dir, PURGED)?;
        // It is written lazily, and a crash of the machine may damage it.
        let progress: LogProgress = small_file::read(dir, PROGRESS).unwrap_or_default().unwrap_or_default();
        let (files, entries) = open_files(dir, purged, progress.synced, policy)?;
        let memory = Memory {
            purged,
            vote: small_file::read(dir, VOTE)?,
            appended_bytes: entries.iter().map(|entry| approximate_bytes(entry) as u64).sum(),
            entries,
        };
        if policy == DamagePolicy::Refuse {
            memory.check_complete(dir, progress.synced)?;
        }
        // A snapshot that was being installed may be committed further than this log reaches.
        let committed = Arc::new(Mutex::new(progress.committed.min(memory.last())));
        let disk_space = Arc::new(DiskSpace::default());
        let space = disk_space.clone();
        let writer = LogWriter::new(dir.to_path_buf(), files, file_bytes, space, append_latency, committed.clone());
        let writer = WriterQueue::start(writer)?;
        Ok(Self { uid, memory: Arc::new(RwLock::new(memory)), writer, committed, disk_space })
    }

    /// Ends the cut of damage that an open with [`DamagePolicy::Cut`] has begun in `dir`: the log is what it is now.
    pub(crate) fn end_cut(dir: &Path) -> io::Result<()> {
        damage_cut::end(dir)
    }

    /// Returns whether nothing was ever logged or voted here.
    pub(crate) fn is_pristine(&self) -> bool {
        let memory = self.memory.read();
        memory.entries.is_empty() && memory.purged.is_none() && memory.vote.is_none()
    }

    /// Returns whether more than `limit` bytes were appended since this last returned true.
    pub(crate) fn take_appended_bytes(&self, limit: u64) -> bool {
        let mut memory = self.memory.write();
        let many = memory.appended_bytes > limit;
        if many {
            memory.appended_bytes = 0;
        }
        many
    }

    /// The last entry that is not among the newest ones of at most `limit` bytes together; `None` if all are.
    pub(crate) fn last_beyond(&self, limit: u64) -> Option<u64> {
        let memory = self.memory.read();
        let mut bytes = 0;
        let too_old = memory.entries.iter().rev().find(|entry| {
            bytes += approximate_bytes(entry) as u64;
            bytes > limit
        });
        too_old.map(|entry| entry.log_id.index)
    }

    /// Whether the disk has space for the log.
    pub(crate) fn disk_space(&self) -> &Arc<DiskSpace> {
        &self.disk_space
    }

    /// Writes that find the disk full fail from now on, instead of waiting for space: Raft waits for its writes when it
    /// stops, and a node with a full disk must stop all the same.
    pub(crate) fn end_waits_for_space(&self) {
        self.disk_space.close();
    }

    /// Finishes the queued writes, as far as there is space; afterwards another process may open the folder.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.end_waits_for_space();
        self.wait(WriterCommand::Close).await
    }

    async fn wait(&self, command: impl FnOnce(DoneSender) -> WriterCommand) -> io::Result<()> {
        let (done, finished) = oneshot::channel();
        self.send(command(done))?;
        finished.await.map_err(|_| closed())?
    }

    fn send(&self, command: WriterCommand) -> io::Result<()> {
        self.writer.send(command)
    }
}

impl Memory {
    /// Refuses a log that ends before an entry that was on the disk.
    fn check_complete(&self, dir: &Path, synced: Option<u64>) -> io::Result<()> {
        let Some(synced) = synced.filter(|synced| *synced >= self.next()) else { return Ok(()) };
        let newest = log_file::list(dir)?.pop().unwrap_or_else(|| dir.to_owned());
        Err(damaged(&newest, &format!("entries {} to {synced}, which were on the disk, are gone", self.next())))
    }

    fn first(&self) -> u64 {
        let after_purged = || self.purged.map_or(0, |purged| purged.index + 1);
        self.entries.front().map_or_else(after_purged, |entry| entry.index())
    }

    fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    fn range(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = &LogEntry> {
        let start = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&index) => index + 1,
            Bound::Excluded(&index) => index,
            Bound::Unbounded => u64::MAX,
        };
        let (start, end) = (start.max(self.first()), end.min(self.next()));
        let at = |index: u64| (index - self.first()) as usize;
        if start < end { self.entries.range(at(start)..at(end)) } else { self.entries.range(0..0) }
    }

    fn truncate(&mut self, index: u64) {
        let keep = index.saturating_sub(self.first());
        self.entries.truncate(keep as usize);
    }

    fn purge(&mut self, upto: LogId) {
        let gone = (upto.index + 1).saturating_sub(self.first()).min(self.entries.len() as u64);
        self.entries.drain(..gone as usize);
        self.purged = Some(upto);
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.memory.read().range(range).cloned().collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory.read().vote)
    }

    /// Returns at least one entry, and no more than fit into one message.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let memory = self.memory.read();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in memory.range(start..end) {
            bytes += approximate_bytes(entry);
            if bytes > READ_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.memory.read();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.wait(|done| WriterCommand::Vote(*vote, done)).await?;
        self.memory.write().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        *self.committed.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(*self.committed.lock())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let mut memory = self.memory.write();
        memory.appended_bytes += entries.iter().map(|entry| approximate_bytes(entry) as u64).sum::<u64>();
        memory.entries.extend(entries.iter().cloned());
        let leads = memory.vote.is_some_and(|vote| vote.leader_id.node_id == self.uid);
        drop(memory);
        self.writer.append(entries, callback, !leads)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let index = last.map_or(0, |last| last.index + 1);
        self.memory.write().truncate(index);
        self.wait(|done| WriterCommand::Truncate(index, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.memory.write().purge(upto);
        self.wait(|done| WriterCommand::Purge(upto, done)).await
    }
}

/// The approximate size of an entry in a message or a write.
pub(crate) fn approximate_bytes(entry: &LogEntry) -> usize {
    const FRAME: usize = 48;
    match &entry.payload {
        EntryPayload::Normal(op) => FRAME + op.bytes(),
        EntryPayload::Membership(_) => FRAME + 512,
        EntryPayload::Blank => FRAME,
    }
}

fn check_identity(dir: &Path, uid: u64) -> io::Result<()> {
    match small_file::read::<u64>(dir, IDENTITY)? {
        None => small_file::write(dir, IDENTITY, &uid),
        Some(found) if found == uid => Ok(()),
        Some(found) => {
            let text = format!(
                "{} belongs to node {found:016x}, this is node {uid:016x}: a log must not change hands; \
                 put the folder's own identity back, or let the node join anew with `storage-node rejoin`",
                dir.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

/// Opens the log files, removes those that were purged completely, and reads the entries after `purged`.
fn open_files(
    dir: &Path,
    purged: Option<LogId>,
    synced: Option<u64>,
    policy: DamagePolicy,
) -> io::Result<(Vec<LogFile>, VecDeque<LogEntry>)> {
    let paths = log_file::list(dir)?;
    let first = purged.map_or(0, |purged| purged.index + 1);
    let (mut files, mut entries) = (Vec::new(), VecDeque::new());
    let mut paths = paths.iter().peekable();
    while let Some(path) = paths.next() {
        let opened = match LogFile::open(path.clone(), paths.peek().is_none(), synced, policy) {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                std::fs::remove_file(path)?;
                continue;
            }
            Err(error) if policy == DamagePolicy::Cut && error.kind() == io::ErrorKind::InvalidData => {
                put_aside_from(path, &mut paths)?;
                break;
            }
            Err(error) => return Err(error),
        };
        let OpenedLogFile { file, entries: mut read, was_damaged } = opened;
        if file.next() <= first && !was_damaged {
            file.remove()?;
            continue;
        }
        read.retain(|entry| entry.index() >= first);
        let expected = first + entries.len() as u64;
        if read.first().is_some_and(|entry| entry.index() != expected) || file.first() > expected {
            // Also what an interrupted cut has left.
            if policy == DamagePolicy::Cut {
                put_aside_from(path, &mut paths)?;
                break;
            }
            return Err(damaged(path, &format!("entry {expected} is missing before it")));
        }
        entries.extend(read);
        files.push(file);
        if was_damaged {
            // What follows the damage does not follow the entries before it.
            paths.by_ref().try_for_each(|later| log_file::put_aside(later))?;
        }
    }
    chordfs_files::sync_folder(dir)?;
    Ok((files, entries))
}

/// Puts a file without a sound beginning, or without the entries before it, aside, and all later ones.
fn put_aside_from<'a>(path: &Path, later: &mut impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
    log_file::put_aside(path)?;
    later.try_for_each(|later| log_file::put_aside(later))
}

pub(super) fn closed() -> io::Error {
    io::Error::other("the namespace's log is closed")
}
