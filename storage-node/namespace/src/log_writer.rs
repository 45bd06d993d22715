//! The thread that owns the log's files. Everything that must reach the disk passes through its queue and is done in
//! that order, because Raft loses committed entries when a vote and an append change places.
//!
//! Appends that wait together are written together and share one `fdatasync`; only then are their callbacks called.
//!
//! On a full disk this thread waits for room: nothing is acknowledged meanwhile, which the other voters take for a slow
//! disk, and nothing is lost. Any other error is the end of this log.

use chordfs_files::sync_folder;
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

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::{
    log_file::{LogFile, encode_entry},
    raft_types::{Entry, LogId, TypeConfig, Vote},
    room::{Room, is_full},
    small_file,
};

pub const VOTE: &str = "vote";
pub const PURGED: &str = "purged";
pub const COMMITTED: &str = "committed";

/// Appends taken into one write at most.
const BATCH_BYTES: usize = 4 << 20;
/// The committed index is only a head start for a restart, so it is written now and then.
const COMMITTED_EVERY: Duration = Duration::from_millis(500);
/// How often a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

pub type Done = oneshot::Sender<io::Result<()>>;

pub enum Command {
    /// Entries that follow what was appended before.
    Append(Vec<Entry>, IOFlushed<TypeConfig>),
    Vote(Vote, Done),
    Committed(Option<LogId>),
    /// Drops the entries from this index on.
    Truncate(u64, Done),
    /// Drops the entries up to this one.
    Purge(LogId, Done),
    /// Finishes what is queued and ends the thread.
    Close(Done),
}

pub struct LogWriter {
    pub dir: PathBuf,
    /// Oldest first; the last one is appended to.
    pub files: Vec<LogFile>,
    pub file_bytes: u64,
    committed: Option<LogId>,
    committed_since: Option<Instant>,
    /// After a failed write nothing may be written behind it: whether the disk holds the bytes is unknown.
    failed: Option<String>,
    room: Arc<Room>,
}

impl LogWriter {
    pub fn new(dir: PathBuf, files: Vec<LogFile>, file_bytes: u64, room: Arc<Room>) -> Self {
        Self { dir, files, file_bytes, committed: None, committed_since: None, failed: None, room }
    }

    /// Works until closed, or until nobody can send any more.
    pub fn run(mut self, commands: Receiver<Command>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(command) = self.next(&commands) else { break };
            let Command::Append(entries, callback) = command else {
                closing = self.carry_out(command);
                continue;
            };
            let mut batch = Batch::default();
            batch.add(entries, callback);
            let after = batch.fill(&commands);
            self.append(batch);
            closing = after.and_then(|command| self.carry_out(command));
        }
        self.save_committed();
        if let Some(done) = closing {
            let _ = done.send(Ok(()));
        }
    }

    /// The next command; meanwhile writes the committed index when that is due.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        loop {
            let Some(since) = self.committed_since else { return commands.recv().ok() };
            match commands.recv_timeout(COMMITTED_EVERY.saturating_sub(since.elapsed())) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.save_committed(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Option<Done> {
        match command {
            Command::Append(entries, callback) => {
                let mut batch = Batch::default();
                batch.add(entries, callback);
                self.append(batch);
            }
            Command::Vote(vote, done) => {
                self.answer(done, |writer| writer.when_room(|writer| small_file::write(&writer.dir, VOTE, &vote)));
            }
            Command::Truncate(index, done) => self.answer(done, |writer| writer.truncate(index)),
            Command::Purge(upto, done) => self.answer(done, |writer| writer.purge(upto)),
            Command::Committed(committed) => {
                self.committed = committed;
                self.committed_since.get_or_insert_with(Instant::now);
            }
            Command::Close(done) => return Some(done),
        }
        None
    }

    fn answer(&mut self, done: Done, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        let result = self.unless_failed(work);
        let _ = done.send(result);
    }

    fn unless_failed(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(reason) = &self.failed {
            return Err(io::Error::other(format!("an earlier write to the log failed: {reason}")));
        }
        work(self).inspect_err(|error| self.failed = Some(error.to_string()))
    }

    fn append(&mut self, batch: Batch) {
        let result = self.unless_failed(|writer| writer.write_entries(&batch.entries));
        for callback in batch.callbacks {
            callback.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    fn write_entries(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut rest = entries;
        while let Some(first) = rest.first() {
            self.when_room(|writer| writer.roll(first.log_id.index))?;
            let (mut frames, mut ends) = (Vec::new(), Vec::new());
            for entry in rest {
                if self.newest().bytes() + frames.len() as u64 >= self.file_bytes {
                    break;
                }
                encode_entry(&mut frames, entry);
                ends.push(frames.len());
            }
            rest = &rest[ends.len()..];
            self.when_room(|writer| writer.newest().append(&frames, ends.iter().copied()))?;
            // What a sync fails to write may be gone from memory, too: that is not tried again.
            self.newest().sync()?;
        }
        Ok(())
    }

    /// Makes sure that the last file takes entry `index`: a new one where the last is full or ends elsewhere.
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

    /// Does what leaves nothing behind where it meets a full disk, again until there is room or the log is closed.
    fn when_room<T>(&mut self, mut work: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            match work(self) {
                Err(error) if is_full(&error) && !self.room.is_closing() => {
                    if self.room.note(true) {
                        tracing::warn!(dir = %self.dir.display(), %error, "no room for the namespace's log; waiting for it");
                    }
                    sleep(FULL_PAUSE);
                }
                result => {
                    if result.is_ok() && self.room.note(false) {
                        tracing::info!("there is room for the namespace's log again");
                    }
                    return result;
                }
            }
        }
    }

    /// From the end backwards, so that a crash in between leaves no hole.
    fn truncate(&mut self, index: u64) -> io::Result<()> {
        while self.files.last().is_some_and(|file| file.first() >= index) {
            self.files.pop().expect("there is one").remove()?;
            sync_folder(&self.dir)?;
        }
        self.files.last_mut().map_or(Ok(()), |file| file.truncate(index))
    }

    /// On a full disk later: more entries than needed do no harm.
    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        match small_file::write(&self.dir, PURGED, &upto) {
            Err(error) if is_full(&error) => return Ok(()),
            written => written?,
        }
        while self.files.first().is_some_and(|file| file.next() <= upto.index + 1) {
            self.files.remove(0).remove()?;
        }
        sync_folder(&self.dir)
    }

    fn save_committed(&mut self) {
        if self.committed_since.take().is_some()
            && let Err(error) = small_file::write_lazily(&self.dir, COMMITTED, &self.committed)
        {
            tracing::warn!(%error, "cannot write the committed index; a restart replays a little later");
        }
    }
}

/// Appends that are made durable together.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    callbacks: Vec<IOFlushed<TypeConfig>>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, entries: Vec<Entry>, callback: IOFlushed<TypeConfig>) {
        self.bytes += entries.iter().map(super::log_store::approximate_bytes).sum::<usize>();
        self.entries.extend(entries);
        self.callbacks.push(callback);
    }

    /// Takes what else is waiting, up to the first command that is no append, which it returns.
    fn fill(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        while self.bytes < BATCH_BYTES {
            match commands.try_recv() {
                Ok(Command::Append(entries, callback)) => self.add(entries, callback),
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
        let room = Arc::new(Room::default());
        let mut writer = LogWriter::new(PathBuf::new(), Vec::new(), 1, room.clone());
        let mut tries = 0;
        let done = writer.when_room(|writer| {
            tries += 1;
            assert_eq!(writer.room.full_for() > Duration::ZERO, tries > 1, "the node is told");
            if tries < 3 { full() } else { Ok(()) }
        });
        assert!(done.is_ok() && tries == 3 && room.full_for().is_zero());
        let broken = writer.when_room(|_| Err::<(), _>(io::ErrorKind::Other.into()));
        assert!(broken.is_err() && room.full_for().is_zero());
        room.close();
        assert!(writer.when_room(|_| full()).is_err_and(|error| is_full(&error)), "a node that stops waits no more");
    }
}
