//! The writer of the log's files. Everything that must reach the disk is written in the order in which Raft asks for
//! it, because Raft loses committed entries if a vote and an append are reordered. A queue keeps that order, and a
//! thread executes it.
//!
//! Appends that wait in the queue are written together and share one `fdatasync`; only then are their callbacks called.
//! A follower whose queue is empty and whose disk answers at once writes an append where Raft asks for it, because the
//! hop to the thread and back would cost more than the append. A leader never does: its Raft has to send heartbeats,
//! and the entries to the others, while its own disk is slow.
//!
//! On a full disk the thread waits for space. It acknowledges nothing meanwhile, which looks like a slow disk to the
//! other voters, and loses nothing. Any other error ends this log.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use chordfs_files::sync_folder;
use chordfs_history::{latency::LatencyMeter, recent::RecentTimes};
use chordfs_log::{info_limited, warn_limited};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    disk_space::{DiskSpace, is_full},
    log_file::{LogFile, encode_entry},
    log_store::closed,
    small_file,
};
use crate::raft_types::{LogEntry, LogId, TypeConfig, Vote};

pub(super) const VOTE: &str = "vote";
pub(super) const PURGED: &str = "purged";
pub(super) const PROGRESS: &str = "progress";

/// The most bytes of appends in one write.
const BATCH_BYTES: usize = 4 << 20;
/// The most bytes that a follower appends at once.
const SMALL_BYTES: usize = 64 << 10;
/// The progress only shortens the replay after a restart and reveals damage, so it is written at intervals.
const PROGRESS_EVERY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });
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

pub(super) type DoneSender = oneshot::Sender<io::Result<()>>;

pub(super) enum WriterCommand {
    /// Appends entries, which follow those appended before.
    Append(Vec<LogEntry>, IOFlushed<TypeConfig>),
    Vote(Vote, DoneSender),
    /// Wakes the thread, so that it saves the progress in a while.
    Progress,
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
    append_times: RecentTimes,
    /// How far the log is committed, as Raft has told last.
    committed: Arc<Mutex<Option<LogId>>>,
}

/// The queue of a writer. An append may pass by it when it is empty because one task, Raft's core, sends all appends,
/// votes, truncations and purges.
#[derive(Clone)]
pub(super) struct WriterQueue {
    commands: mpsc::Sender<WriterCommand>,
    /// Commands that are not executed yet.
    waiting: Arc<AtomicUsize>,
    writer: Arc<Mutex<LogWriter>>,
}

impl WriterQueue {
    /// Starts the thread of `writer`.
    pub(super) fn start(writer: LogWriter) -> io::Result<Self> {
        let (sender, commands) = mpsc::channel();
        let (waiting, writer) = (Arc::<AtomicUsize>::default(), Arc::new(Mutex::new(writer)));
        let thread = WriterThread { commands, waiting: waiting.clone(), writer: writer.clone() };
        std::thread::Builder::new().name("namespace-log".into()).spawn(move || thread.run())?;
        Ok(Self { commands: sender, waiting, writer })
    }

    pub(super) fn send(&self, command: WriterCommand) -> io::Result<()> {
        self.waiting.fetch_add(1, SeqCst);
        self.commands.send(command).map_err(|_| closed())
    }

    /// Appends entries after those appended before. `may_wait`: the caller has nothing to do meanwhile.
    pub(super) fn append(
        &self,
        entries: Vec<LogEntry>,
        callback: IOFlushed<TypeConfig>,
        may_wait: bool,
    ) -> io::Result<()> {
        match self.append_at_once(&entries, may_wait) {
            None => self.send(WriterCommand::Append(entries, callback)),
            Some(result) => {
                callback.io_completed(result);
                Ok(())
            }
        }
    }

    /// See [`LogWriter::append_at_once`].
    fn append_at_once(&self, entries: &[LogEntry], may_wait: bool) -> Option<io::Result<()>> {
        let may_pass = may_wait && self.waiting.load(SeqCst) == 0;
        let mut writer = self.writer.try_lock().filter(|_| may_pass)?;
        let was_saved = writer.progress_since.is_none();
        let result = writer.append_at_once(entries)?;
        if was_saved && writer.progress_since.is_some() {
            // The progress is only a hint, and a thread that has ended has saved it.
            let _ = self.send(WriterCommand::Progress);
        }
        Some(result)
    }
}

/// Executes the commands of a queue until it is closed, or until all senders are dropped.
struct WriterThread {
    commands: Receiver<WriterCommand>,
    waiting: Arc<AtomicUsize>,
    writer: Arc<Mutex<LogWriter>>,
}

impl WriterThread {
    fn run(self) {
        let mut closing = None;
        while closing.is_none() {
            let Some(command) = self.next() else { break };
            let mut writer = self.writer.lock();
            let mut executed = 1;
            if let WriterCommand::Append(entries, callback) = command {
                let mut batch = AppendBatch::default();
                batch.add(entries, callback);
                let after = batch.fill(&self.commands);
                executed = batch.callbacks.len() + usize::from(after.is_some());
                writer.append(batch);
                closing = after.and_then(|command| writer.execute(command));
            } else {
                closing = writer.execute(command);
            }
            self.waiting.fetch_sub(executed, SeqCst);
        }
        let mut writer = self.writer.lock();
        writer.save_progress();
        // Another process may open the folder from now on.
        writer.failed.get_or_insert_with(|| closed().to_string());
        drop(writer);
        if let Some(done) = closing {
            let _ = done.send(Ok(()));
        }
    }

    /// Waits for the next command, and saves the progress when that is due.
    fn next(&self) -> Option<WriterCommand> {
        loop {
            let since = self.writer.lock().progress_since;
            let Some(since) = since else { return self.commands.recv().ok() };
            match self.commands.recv_timeout(PROGRESS_EVERY.saturating_sub(since.elapsed())) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.writer.lock().save_progress(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
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
            WriterCommand::Progress => {}
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
            self.note_append(began.elapsed());
        }
        for callback in batch.callbacks {
            callback.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    /// Appends entries if the last appends were short, and no file has to be created for them. `None`: nothing was
    /// written, and the thread has to do it, which may also wait for space.
    fn append_at_once(&mut self, entries: &[LogEntry]) -> Option<io::Result<()>> {
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
    fn truncate(&mut self, index: u64) -> io::Result<()> {
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
        let before = std::mem::replace(&mut self.progress.committed, *self.committed.lock());
        let is_new = self.progress_since.take().is_some() || self.progress.committed != before;
        if is_new && let Err(error) = small_file::write_lazily(&self.dir, PROGRESS, &self.progress) {
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
    use openraft::{EntryPayload, type_config::alias::LeaderIdOf, vote::RaftLeaderIdExt};

    use super::*;
    use crate::storage::log_file::DamagePolicy;

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

    fn entry(index: u64) -> LogEntry {
        let leader = LeaderIdOf::<TypeConfig>::new_committed(1, 1);
        LogEntry { log_id: LogId::new(leader, index), payload: EntryPayload::Blank }
    }

    /// Makes the writer believe that its disk is fast.
    fn answers_at_once(writer: &LogWriter) {
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

    #[test]
    fn an_append_passes_by_an_empty_queue_unless_the_caller_has_to_go_on_and_its_progress_is_saved() {
        let dir = tempfile::tempdir().expect("a folder");
        let space = Arc::new(DiskSpace::default());
        let mut writer = LogWriter::new(dir.path().to_owned(), Vec::new(), 4096, space, Arc::default(), Arc::default());
        writer.write_entries(&[entry(0)]).expect("it is written");
        answers_at_once(&writer);
        let queue = WriterQueue::start(writer).expect("a thread");
        assert!(queue.append_at_once(&[entry(1)], false).is_none(), "a leader goes on");
        queue.waiting.fetch_add(1, SeqCst);
        assert!(queue.append_at_once(&[entry(1)], true).is_none(), "something waits before it");
        queue.waiting.fetch_sub(1, SeqCst);
        let end = Instant::now() + Duration::from_secs(10);
        // The thread may have the writer just now.
        let appended = std::iter::repeat_with(|| queue.append_at_once(&[entry(1)], true));
        let appended = appended.take_while(|_| Instant::now() < end).flatten().next();
        assert!(appended.is_some_and(|result| result.is_ok()));
        let synced = || {
            let saved: io::Result<Option<LogProgress>> = small_file::read(dir.path(), PROGRESS);
            saved.ok().flatten().and_then(|progress| progress.synced)
        };
        while synced() != Some(1) {
            assert!(Instant::now() < end, "the progress is not saved: {:?}", synced());
            std::thread::yield_now();
        }
        let (done, closed) = oneshot::channel();
        queue.send(WriterCommand::Close(done)).expect("the thread runs");
        closed.blocking_recv().expect("it answers").expect("closed");
        assert!(queue.append_at_once(&[entry(2)], true).is_none(), "the folder may belong to another process");
    }
}
