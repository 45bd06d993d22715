//! The queue of the log's writer. It keeps the order in which Raft asks for appends, votes, truncations and purges, and
//! a thread executes it.
//!
//! Appends that wait in the queue are written together and share one `fdatasync`; only then are their callbacks called.
//! A follower whose queue is empty and whose disk answers at once writes an append where Raft asks for it, because the
//! hop to the thread and back would cost more than the append. A leader never does: its Raft has to send heartbeats,
//! and the entries to the others, while its own disk is slow.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    log_store::{approximate_bytes, closed},
    log_writer::LogWriter,
};
use crate::raft_types::{LogEntry, LogId, TypeConfig, Vote};

/// The most bytes of appends in one write.
const BATCH_BYTES: usize = 4 << 20;
/// The progress only shortens the replay after a restart and reveals damage, so it is written at intervals.
const PROGRESS_EVERY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

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
        let was_saved = writer.unsaved_since().is_none();
        let result = writer.append_at_once(entries)?;
        if was_saved && writer.unsaved_since().is_some() {
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
                let mut batch = AppendBatch::new(entries, callback);
                let after = batch.fill(&self.commands);
                executed = batch.callbacks.len() + usize::from(after.is_some());
                batch.write(&mut writer);
                closing = after.and_then(|command| execute(command, &mut writer));
            } else {
                closing = execute(command, &mut writer);
            }
            self.waiting.fetch_sub(executed, SeqCst);
        }
        self.writer.lock().close();
        if let Some(done) = closing {
            let _ = done.send(Ok(()));
        }
    }

    /// Waits for the next command, and saves the progress when that is due.
    fn next(&self) -> Option<WriterCommand> {
        loop {
            let since = self.writer.lock().unsaved_since();
            let Some(since) = since else { return self.commands.recv().ok() };
            match self.commands.recv_timeout(PROGRESS_EVERY.saturating_sub(since.elapsed())) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.writer.lock().save_progress(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Returns whom to tell that the writer is closed, if that is the command.
fn execute(command: WriterCommand, writer: &mut LogWriter) -> Option<DoneSender> {
    let (done, result) = match command {
        WriterCommand::Append(entries, callback) => {
            AppendBatch::new(entries, callback).write(writer);
            return None;
        }
        WriterCommand::Vote(vote, done) => (done, writer.save_vote(&vote)),
        WriterCommand::Truncate(index, done) => (done, writer.truncate(index)),
        WriterCommand::Purge(upto, done) => (done, writer.purge(upto)),
        WriterCommand::Progress => return None,
        WriterCommand::Close(done) => return Some(done),
    };
    let _ = done.send(result);
    None
}

/// Appends that are made durable together.
struct AppendBatch {
    entries: Vec<LogEntry>,
    callbacks: Vec<IOFlushed<TypeConfig>>,
    bytes: usize,
}

impl AppendBatch {
    fn new(entries: Vec<LogEntry>, callback: IOFlushed<TypeConfig>) -> Self {
        let mut batch = Self { entries: Vec::new(), callbacks: Vec::new(), bytes: 0 };
        batch.add(entries, callback);
        batch
    }

    fn add(&mut self, entries: Vec<LogEntry>, callback: IOFlushed<TypeConfig>) {
        self.bytes += entries.iter().map(approximate_bytes).sum::<usize>();
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

    /// Writes all of it, and calls the callbacks.
    fn write(self, writer: &mut LogWriter) {
        let result = writer.append(&self.entries);
        for callback in self.callbacks {
            callback.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::storage::{
        disk_space::DiskSpace,
        log_writer::{
            LogProgress, PROGRESS,
            tests::{answers_at_once, entry},
        },
        small_file,
    };

    #[test]
    fn an_append_passes_by_an_empty_queue_unless_the_caller_has_to_go_on_and_its_progress_is_saved() {
        let dir = tempfile::tempdir().expect("a folder");
        let space = Arc::new(DiskSpace::default());
        let mut writer = LogWriter::new(dir.path().to_owned(), Vec::new(), 4096, space, Arc::default(), Arc::default());
        writer.append(&[entry(0)]).expect("it is written");
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
