//! The writer of the log's files. All of it must reach the disk in the order in which Raft asks for it, because Raft
//! loses committed entries if a vote and an append are reordered: `writer_queue` keeps that order.
//!
//! On a full disk the writer waits for space. It acknowledges nothing meanwhile, which looks like a slow disk to the
//! other voters, and loses nothing. Any other error ends this log.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use chordfs_files::sync_folder;
use chordfs_history::{latency::LatencyMeter, recent::RecentTimes};
use chordfs_log::{info_limited, warn_limited};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    disk_space::{DiskSpace, is_full},
    log_file::{LogFile, encode_entry},
    log_store::closed,
    small_file,
};
use crate::raft_types::{LogEntry, LogId, Vote};

pub(super) const VOTE: &str = "vote";
pub(super) const PURGED: &str = "purged";
pub(super) const PROGRESS: &str = "progress";

/// The most bytes that a follower appends at once.
const SMALL_BYTES: usize = 64 << 10;
/// How often a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });

/// How far the log had come, as of some recent moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogProgress {
    /// May be behind what is synced, and ahead of it: it is cut to the log's end when it is read.
    pub committed: Option<LogId>,
    /// The last entry that was on the disk: if it can no longer be read, the disk has lost it. It is never too large.
    pub synced: Option<u64>,
}

pub(super) struct LogWriter {
    pub dir: PathBuf,
    /// Oldest first; the last one is appended to.
    pub files: Vec<LogFile>,
    pub file_bytes: u64,
    progress: LogProgress,
    progress_since: Option<Instant>,
    /// Why a write failed. Nothing may be written after it, because it is unknown whether the disk holds the bytes.
    failed: Option<String>,
    disk_space: Arc<DiskSpace>,
    append_latency: Arc<LatencyMeter>,
    append_times: RecentTimes,
    /// How far the log is committed, as Raft has told last.
    committed: Arc<Mutex<Option<LogId>>>,
}

impl LogWriter {
    pub(super) fn new(
        dir: PathBuf,
        files: Vec<LogFile>,
        file_bytes: u64,
        disk_space: Arc<DiskSpace>,
        append_latency: Arc<LatencyMeter>,
        committed: Arc<Mutex<Option<LogId>>>,
    ) -> Self {
        // The newest file is synced when it is opened, and every other one was before the next was created.
        let synced = files.last().and_then(|file| file.next().checked_sub(1));
        let progress = LogProgress { committed: *committed.lock(), synced };
        Self {
            dir,
            files,
            file_bytes,
            progress,
            progress_since: None,
            failed: None,
            disk_space,
            append_latency,
            append_times: RecentTimes::default(),
            committed,
        }
    }

    /// Appends entries durably, after those appended before.
    pub(super) fn append(&mut self, entries: &[LogEntry]) -> io::Result<()> {
        let began = Instant::now();
        let result = self.unless_failed(|writer| writer.write_entries(entries));
        if result.is_ok() {
            self.note_append(began.elapsed());
        }
        result
    }

    pub(super) fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.unless_failed(|writer| writer.when_space(|writer| small_file::write(&writer.dir, VOTE, vote)))
    }

    /// Drops the entries from this index on.
    pub(super) fn truncate(&mut self, index: u64) -> io::Result<()> {
        self.unless_failed(|writer| writer.cut_from(index))
    }

    /// Drops the entries up to this one.
    pub(super) fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.unless_failed(|writer| writer.drop_up_to(upto))
    }

    /// Since when there is progress that is not saved.
    pub(super) fn unsaved_since(&self) -> Option<Instant> {
        self.progress_since
    }

    /// Refuses everything from now on: another process may open the folder.
    pub(super) fn close(&mut self) {
        self.save_progress();
        self.failed.get_or_insert_with(|| closed().to_string());
    }

    fn unless_failed(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(reason) = &self.failed {
            return Err(io::Error::other(format!("an earlier write to the log failed: {reason}")));
        }
        work(self).inspect_err(|error| self.failed = Some(error.to_string()))
    }

    /// Appends entries if the last appends were short, and no file has to be created for them. `None`: nothing was
    /// written, and the thread has to do it, which may also wait for space.
    pub(super) fn append_at_once(&mut self, entries: &[LogEntry]) -> Option<io::Result<()>> {
        let bytes: usize = entries.iter().map(super::log_store::approximate_bytes).sum();
        let may_be_short = self.append_times.are_short() && bytes <= SMALL_BYTES;
        let first = entries.first()?.log_id.index;
        if !may_be_short || self.failed.is_some() || !self.disk_space.full_for().is_zero() || !self.takes(first) {
            return None;
        }
        let began = Instant::now();
        let (frames, ends) = self.encode(entries);
        if ends.len() < entries.len() {
            return None;
        }
        match self.newest().append(&frames, ends.into_iter()) {
            Err(error) if is_full(&error) => None,
            appended => {
                let result = self.unless_failed(|writer| appended.and_then(|()| writer.sync_newest()));
                result.is_ok().then(|| self.note_append(began.elapsed()));
                Some(result)
            }
        }
    }

    fn note_append(&self, taken: Duration) {
        self.append_latency.record(taken);
        self.append_times.note(taken);
    }

    fn write_entries(&mut self, entries: &[LogEntry]) -> io::Result<()> {
        let mut rest = entries;
        while let Some(first) = rest.first() {
            self.when_space(|writer| writer.roll(first.log_id.index))?;
            let (frames, ends) = self.encode(rest);
            rest = &rest[ends.len()..];
            self.when_space(|writer| writer.newest().append(&frames, ends.iter().copied()))?;
            self.sync_newest()?;
        }
        Ok(())
    }

    /// The frames of as many entries as the last file takes, and where each ends.
    fn encode(&mut self, entries: &[LogEntry]) -> (Vec<u8>, Vec<usize>) {
        let (mut frames, mut ends) = (Vec::new(), Vec::new());
        let file_bytes = self.file_bytes;
        let start = self.newest().bytes();
        let write = u32::try_from(start).expect("files are rolled long before 4 GiB");
        for entry in entries {
            if start + frames.len() as u64 >= file_bytes {
                break;
            }
            encode_entry(&mut frames, write, entry);
            ends.push(frames.len());
        }
        (frames, ends)
    }

    /// After a failed sync the bytes may have left the page cache, too, so it is not tried again.
    fn sync_newest(&mut self) -> io::Result<()> {
        self.newest().sync()?;
        self.progress.synced = Some(self.newest().next() - 1);
        self.progress_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Whether the last file takes entry `index`.
    fn takes(&self, index: u64) -> bool {
        self.files.last().is_some_and(|file| file.next() == index && file.bytes() < self.file_bytes)
    }

    /// Makes sure that the last file takes entry `index`: creates a file if there is none, or the last one is full.
    fn roll(&mut self, index: u64) -> io::Result<()> {
        if !self.takes(index) {
            if let Some(last) = self.files.last().filter(|last| last.next() != index) {
                return Err(io::Error::other(format!("entry {index} does not follow entry {}", last.next() - 1)));
            }
            self.files.push(LogFile::create(&self.dir, index)?);
        }
        Ok(())
    }

    fn newest(&mut self) -> &mut LogFile {
        self.files.last_mut().expect("a file was rolled before")
    }

    /// Repeats `work` on a full disk until there is space or the log is closed; `work` must leave nothing behind when
    /// it fails.
    fn when_space<T>(&mut self, mut work: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            match work(self) {
                Err(error) if is_full(&error) && !self.disk_space.is_closing() => {
                    if self.disk_space.record(true) {
                        warn_limited!(
                            dir = %self.dir.display(), %error,
                            "no space for the namespace's log; waiting for space"
                        );
                    }
                    sleep(FULL_PAUSE);
                }
                result => {
                    if result.is_ok() && self.disk_space.record(false) {
                        info_limited!("there is space for the namespace's log again");
                    }
                    return result;
                }
            }
        }
    }

    /// Truncates from the end backwards, so that a crash in between leaves no hole.
    fn cut_from(&mut self, index: u64) -> io::Result<()> {
        // Before the entries go: otherwise a crash in between would make them look lost.
        self.progress = LogProgress { committed: *self.committed.lock(), synced: index.checked_sub(1) };
        self.when_space(|writer| small_file::write(&writer.dir, PROGRESS, &writer.progress))?;
        while self.files.last().is_some_and(|file| file.first() >= index) {
            self.files.pop().expect("there is one").remove()?;
            sync_folder(&self.dir)?;
        }
        self.files.last_mut().map_or(Ok(()), |file| file.truncate(index))
    }

    /// Purges later if the disk is full: entries that are no longer needed do no harm, unless they end before `upto`,
    /// as the next entry does not follow them.
    fn drop_up_to(&mut self, upto: LogId) -> io::Result<()> {
        let can_wait = self.files.last().is_some_and(|file| file.next() > upto.index);
        let write = |writer: &mut Self| small_file::write(&writer.dir, PURGED, &upto);
        match if can_wait { write(self) } else { self.when_space(write) } {
            Err(error) if is_full(&error) && can_wait => return Ok(()),
            written => written?,
        }
        while self.files.first().is_some_and(|file| file.next() <= upto.index + 1) {
            self.files.remove(0).remove()?;
        }
        sync_folder(&self.dir)
    }

    pub(super) fn save_progress(&mut self) {
        let before = std::mem::replace(&mut self.progress.committed, *self.committed.lock());
        let is_new = self.progress_since.take().is_some() || self.progress.committed != before;
        if is_new && let Err(error) = small_file::write_lazily(&self.dir, PROGRESS, &self.progress) {
            warn_limited!(%error, "cannot write how far the log has come; a restart replays more of it");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use openraft::{EntryPayload, type_config::alias::LeaderIdOf, vote::RaftLeaderIdExt};

    use super::*;
    use crate::{raft_types::TypeConfig, storage::log_file::DamagePolicy};

    fn full() -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_full_disk_is_waited_for_and_other_errors_are_not() {
        let disk_space = Arc::new(DiskSpace::default());
        let mut writer =
            LogWriter::new(PathBuf::new(), Vec::new(), 1, disk_space.clone(), Arc::default(), Arc::default());
        let mut tries = 0;
        let done = writer.when_space(|writer| {
            tries += 1;
            assert_eq!(writer.disk_space.full_for() > Duration::ZERO, tries > 1, "it is recorded");
            if tries < 3 { full() } else { Ok(()) }
        });
        assert!(done.is_ok() && tries == 3 && disk_space.full_for().is_zero());
        let broken = writer.when_space(|_| Err::<(), _>(io::ErrorKind::Other.into()));
        assert!(broken.is_err() && disk_space.full_for().is_zero());
        disk_space.close();
        assert!(writer.when_space(|_| full()).is_err_and(|error| is_full(&error)), "a node that stops waits no more");
    }

    pub(in crate::storage) fn entry(index: u64) -> LogEntry {
        let leader = LeaderIdOf::<TypeConfig>::new_committed(1, 1);
        LogEntry { log_id: LogId::new(leader, index), payload: EntryPayload::Blank }
    }

    /// Makes the writer believe that its disk is fast.
    pub(in crate::storage) fn answers_at_once(writer: &LogWriter) {
        (0..50).for_each(|_| writer.append_times.note(Duration::ZERO));
    }

    #[test]
    fn an_append_is_made_at_once_only_while_the_disk_answers_at_once_and_a_file_takes_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let (disk_space, folder) = (Arc::new(DiskSpace::default()), dir.path().to_owned());
        let mut writer = LogWriter::new(folder, Vec::new(), 200, disk_space.clone(), Arc::default(), Arc::default());
        writer.write_entries(&[entry(0)]).expect("it is written");
        assert!(writer.append_at_once(&[entry(1)]).is_none(), "how long appends take is not known");
        answers_at_once(&writer);
        assert!(writer.append_at_once(&[entry(1)]).is_some_and(|result| result.is_ok()));
        disk_space.record(true);
        assert!(writer.append_at_once(&[entry(2)]).is_none(), "the thread may have to wait for space");
        disk_space.record(false);
        assert!(writer.append_at_once(&[entry(7)]).is_none(), "it does not follow");
        let mut next = 2;
        loop {
            answers_at_once(&writer);
            let Some(result) = writer.append_at_once(&[entry(next)]) else { break };
            result.expect("it is written");
            next += 1;
        }
        assert!(writer.newest().bytes() >= 200, "the file is full");
        let path = crate::storage::log_file::list(dir.path()).expect("a list").remove(0);
        let opened = LogFile::open(path, true, writer.progress.synced, DamagePolicy::Refuse).expect("it is sound");
        let entries = opened.expect("it is whole").entries;
        assert!(entries.iter().map(|entry| entry.log_id.index).eq(0..next), "{entries:?}");
    }
}
