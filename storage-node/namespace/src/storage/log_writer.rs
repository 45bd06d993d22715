//! The thread that owns the log's files. Everything that must reach the disk passes through its queue and is written in
//! that order, because Raft loses committed entries if a vote and an append are reordered.
//!
//! Appends that wait in the queue are written together and share one `fdatasync`; only then are their callbacks called.
//!
//! On a full disk this thread waits for space. It acknowledges nothing meanwhile, which looks like a slow disk to the
//! other voters, and loses nothing. Any other error ends this log.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use chordfs_files::sync_folder;
use chordfs_history::latency::LatencyMeter;
use chordfs_log::{info_limited, warn_limited};
use openraft::storage::IOFlushed;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    disk_space::{DiskSpace, is_full},
    log_file::{LogFile, encode_entry},
    small_file,
};
use crate::raft_types::{LogEntry, LogId, TypeConfig, Vote};

pub(super) const VOTE: &str = "vote";
pub(super) const PURGED: &str = "purged";
pub(super) const PROGRESS: &str = "progress";

/// The most bytes of appends in one write.
const BATCH_BYTES: usize = 4 << 20;
/// The progress only shortens the replay after a restart and reveals damage, so it is written at intervals.
const PROGRESS_EVERY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });
/// How often a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });

/// How far the log had come, as of some recent moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogProgress {
    pub committed: Option<LogId>,
    /// The last entry that was on the disk: if it can no longer be read, the disk has lost it. It is never too large.
    pub synced: Option<u64>,
}

pub(super) type DoneSender = oneshot::Sender<io::Result<()>>;

pub(super) enum WriterCommand {
    /// Appends entries, which follow those appended before.
    Append(Vec<LogEntry>, IOFlushed<TypeConfig>),
    Vote(Vote, DoneSender),
    Committed(Option<LogId>),
    /// Drops the entries from this index on.
    Truncate(u64, DoneSender),
    /// Drops the entries up to this one.
    Purge(LogId, DoneSender),
    /// Finishes the queued writes and ends the thread.
    Close(DoneSender),
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
}

impl LogWriter {
    pub(super) fn new(
        dir: PathBuf,
        files: Vec<LogFile>,
        file_bytes: u64,
        disk_space: Arc<DiskSpace>,
        append_latency: Arc<LatencyMeter>,
    ) -> Self {
        Self {
            dir,
            files,
            file_bytes,
            progress: LogProgress::default(),
            progress_since: None,
            failed: None,
            disk_space,
            append_latency,
        }
    }

    /// Executes commands until it is closed, or until all senders are dropped.
    pub(super) fn run(mut self, commands: Receiver<WriterCommand>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(command) = self.next(&commands) else { break };
            let WriterCommand::Append(entries, callback) = command else {
                closing = self.execute(command);
                continue;
            };
            let mut batch = AppendBatch::default();
            batch.add(entries, callback);
            let after = batch.fill(&commands);
            self.append(batch);
            closing = after.and_then(|command| self.execute(command));
        }
        self.save_progress();
        if let Some(done) = closing {
            let _ = done.send(Ok(()));
        }
    }

    /// Waits for the next command, and writes the committed index when that is due.
    fn next(&mut self, commands: &Receiver<WriterCommand>) -> Option<WriterCommand> {
        loop {
            let Some(since) = self.progress_since else { return commands.recv().ok() };
            match commands.recv_timeout(PROGRESS_EVERY.saturating_sub(since.elapsed())) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.save_progress(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn execute(&mut self, command: WriterCommand) -> Option<DoneSender> {
        match command {
            WriterCommand::Append(entries, callback) => {
                let mut batch = AppendBatch::default();
                batch.add(entries, callback);
                self.append(batch);
            }
            WriterCommand::Vote(vote, done) => {
                self.answer(done, |writer| writer.when_space(|writer| small_file::write(&writer.dir, VOTE, &vote)));
            }
            WriterCommand::Truncate(index, done) => self.answer(done, |writer| writer.truncate(index)),
            WriterCommand::Purge(upto, done) => self.answer(done, |writer| writer.purge(upto)),
            WriterCommand::Committed(committed) => {
                self.progress.committed = committed;
                self.progress_since.get_or_insert_with(Instant::now);
            }
            WriterCommand::Close(done) => return Some(done),
        }
        None
    }

    fn answer(&mut self, done: DoneSender, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        let result = self.unless_failed(work);
        let _ = done.send(result);
    }

    fn unless_failed(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(reason) = &self.failed {
            return Err(io::Error::other(format!("an earlier write to the log failed: {reason}")));
        }
        work(self).inspect_err(|error| self.failed = Some(error.to_string()))
    }

    fn append(&mut self, batch: AppendBatch) {
        let began = Instant::now();
        let result = self.unless_failed(|writer| writer.write_entries(&batch.entries));
        if result.is_ok() {
            self.append_latency.record(began.elapsed());
        }
        for callback in batch.callbacks {
            callback.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    fn write_entries(&mut self, entries: &[LogEntry]) -> io::Result<()> {
        let mut rest = entries;
        while let Some(first) = rest.first() {
            self.when_space(|writer| writer.roll(first.log_id.index))?;
            let (mut frames, mut ends) = (Vec::new(), Vec::new());
            let start = u32::try_from(self.newest().bytes()).expect("files are rolled long before 4 GiB");
            for entry in rest {
                if self.newest().bytes() + frames.len() as u64 >= self.file_bytes {
                    break;
                }
                encode_entry(&mut frames, start, entry);
                ends.push(frames.len());
            }
            rest = &rest[ends.len()..];
            self.when_space(|writer| writer.newest().append(&frames, ends.iter().copied()))?;
            // After a failed sync the bytes may have left the page cache, too, so it is not tried again.
            self.newest().sync()?;
            self.progress.synced = Some(self.newest().next() - 1);
            self.progress_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Makes sure that the last file takes entry `index`: creates a file if there is none, or the last one is full.
    fn roll(&mut self, index: u64) -> io::Result<()> {
        let fits = |file: &LogFile| file.next() == index && file.bytes() < self.file_bytes;
        if !self.files.last().is_some_and(fits) {
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
    fn truncate(&mut self, index: u64) -> io::Result<()> {
        // Before the entries go: otherwise a crash in between would make them look lost.
        self.progress.synced = index.checked_sub(1);
        self.when_space(|writer| small_file::write(&writer.dir, PROGRESS, &writer.progress))?;
        while self.files.last().is_some_and(|file| file.first() >= index) {
            self.files.pop().expect("there is one").remove()?;
            sync_folder(&self.dir)?;
        }
        self.files.last_mut().map_or(Ok(()), |file| file.truncate(index))
    }

    /// Purges later if the disk is full: entries that are no longer needed do no harm, unless they end before `upto`,
    /// as the next entry does not follow them.
    fn purge(&mut self, upto: LogId) -> io::Result<()> {
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

    fn save_progress(&mut self) {
        if self.progress_since.take().is_some()
            && let Err(error) = small_file::write_lazily(&self.dir, PROGRESS, &self.progress)
        {
            warn_limited!(%error, "cannot write how far the log has come; a restart replays more of it");
        }
    }
}

/// Appends that are made durable together.
#[derive(Default)]
struct AppendBatch {
    entries: Vec<LogEntry>,
    callbacks: Vec<IOFlushed<TypeConfig>>,
    bytes: usize,
}

impl AppendBatch {
    fn add(&mut self, entries: Vec<LogEntry>, callback: IOFlushed<TypeConfig>) {
        self.bytes += entries.iter().map(super::log_store::approximate_bytes).sum::<usize>();
        self.entries.extend(entries);
        self.callbacks.push(callback);
    }

    /// Adds the waiting appends, up to the first other command, which it returns.
    fn fill(&mut self, commands: &Receiver<WriterCommand>) -> Option<WriterCommand> {
        while self.bytes < BATCH_BYTES {
            match commands.try_recv() {
                Ok(WriterCommand::Append(entries, callback)) => self.add(entries, callback),
                Ok(other) => return Some(other),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_full_disk_is_waited_for_and_other_errors_are_not() {
        let disk_space = Arc::new(DiskSpace::default());
        let mut writer = LogWriter::new(PathBuf::new(), Vec::new(), 1, disk_space.clone(), Arc::default());
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
}
