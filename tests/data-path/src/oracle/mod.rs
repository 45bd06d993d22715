//! The reference model: what each answered operation promised, and whether the runs keep it.
//!
//! Files are small and written in cells of [`CELL_BYTES`], each filled with one number that no other write has; 0 is a
//! hole. So a cell that is read says which write it is from. The model follows two things:
//!
//! - The log of the namespace, as it is applied: `log` knows the contents of every file at every index, and objects to
//!   a commit that brings in what its mount did not write, what was replaced before, or what is on no disk.
//! - The operations of every mount, as programs see them: `reads` knows what a read may return, `promises` what a
//!   close, an fsync, or an open promised.

mod file;
mod log;
mod promises;
mod reads;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use chordfs_net::session::SessionEvent;
use chordfs_types::{
    chunk::{ChunkId, FileName},
    namespace::{FeedEvent, Ino, SessionId},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::file::FileModel;
use crate::world::World;

pub(crate) const CELL_BYTES: u64 = 512;
pub(crate) const CHUNK_CELLS: usize = 8;
pub(crate) const FILE_CHUNKS: usize = 6;
pub(crate) const FILE_CELLS: usize = CHUNK_CELLS * FILE_CHUNKS;

pub(crate) struct Oracle {
    world: Arc<World>,
    state: Mutex<OracleState>,
}

#[derive(Default)]
struct OracleState {
    /// Counts everything that programs begin and end, so that one can be said to be before another.
    moment: u64,
    last_value: u64,
    /// The place in the log of what was applied last.
    index: u64,
    files: BTreeMap<Ino, FileModel>,
    mounts: BTreeMap<usize, MountView>,
    /// Chunks that were current once and are no more.
    replaced: BTreeSet<(Ino, ChunkId)>,
    /// Commits in a row that were refused with a conflict.
    conflicts: BTreeMap<(usize, Ino), u32>,
}

/// What a mount must know of the log.
#[derive(Default)]
struct MountView {
    /// The state of a file that an open of it has brought.
    opened: BTreeMap<Ino, u64>,
    /// The state of a file that the feed has reported.
    heard: BTreeMap<Ino, u64>,
    /// As `heard`, of all files.
    all_heard: u64,
    /// What it had heard of a file when it sent the commit that is under way.
    heard_at_commit: BTreeMap<Ino, u64>,
    /// News that has just been delivered: it counts from the next moment on.
    news: Vec<(Instant, Option<Ino>, u64)>,
    connection: u64,
    pushed: VecDeque<(u64, Vec<FeedEvent>)>,
    /// How often each inode is open, and in which session that began.
    opens: BTreeMap<Ino, (u32, SessionId)>,
}

impl Oracle {
    pub(crate) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, state: Mutex::default() })
    }

    /// A number that no cell has been filled with.
    pub(crate) fn fresh_value(&self) -> u64 {
        let mut state = self.state.lock();
        state.last_value += 1;
        state.last_value
    }

    /// The leader has attached a connection of the mount: what it pushes from now on arrives, or the connection ends.
    pub(crate) fn attached(&self, mount: usize, connection: u64) {
        let mut state = self.state.lock();
        let view = state.mounts.entry(mount).or_default();
        view.connection = connection;
        view.pushed.clear();
    }

    pub(crate) fn pushed(&self, mount: usize, connection: u64, index: u64, events: &[FeedEvent]) {
        let mut state = self.state.lock();
        let view = state.mounts.entry(mount).or_default();
        if view.connection == connection {
            view.pushed.push_back((index, events.to_vec()));
        }
    }

    /// The mount's session has delivered an event.
    pub(crate) fn delivered(&self, mount: usize, event: &SessionEvent) {
        let mut state = self.state.lock();
        let index = state.index;
        let view = state.mounts.entry(mount).or_default();
        let now = Instant::now();
        match event {
            SessionEvent::Reset => view.news.push((now, None, index)),
            SessionEvent::Feed(events, _) => {
                let Some((index, _)) = view.pushed.pop_front().filter(|(_, pushed)| pushed == events) else { return };
                for event in events {
                    if let FeedEvent::Inode { ino, contents: true } = event {
                        view.news.push((now, Some(*ino), index));
                    }
                }
            }
        }
    }

    /// A mount opens a file; what the namespace had applied before must be seen from then on.
    pub(crate) fn begin_open(&self) -> u64 {
        self.state.lock().index
    }

    pub(crate) fn opened(&self, mount: usize, ino: Ino, index: u64, session: SessionId) {
        let mut state = self.state.lock();
        let view = state.mounts.entry(mount).or_default();
        let seen = view.opened.entry(ino).or_default();
        *seen = index.max(*seen);
        let open = view.opens.entry(ino).or_insert((0, session));
        open.0 += 1;
    }

    pub(crate) fn closed(&self, mount: usize, ino: Ino) {
        let mut state = self.state.lock();
        let view = state.mounts.entry(mount).or_default();
        if let Some(open) = view.opens.get_mut(&ino) {
            open.0 -= 1;
            if open.0 == 0 {
                view.opens.remove(&ino);
            }
        }
    }

    /// The mount sends a commit: what it has heard of by now it must have considered.
    pub(crate) fn begin_commit(&self, mount: usize, ino: Ino) {
        let mut state = self.state.lock();
        let view = state.mounts.entry(mount).or_default();
        let heard = view.must_show(ino, true);
        view.heard_at_commit.insert(ino, heard);
    }

    /// A request of the mount has failed below the data path: for a file, or for any.
    pub(crate) fn trouble(&self, mount: usize, name: Option<&FileName>) {
        let mut state = self.state.lock();
        for file in state.files.values_mut().filter(|file| name.is_none_or(|name| file.name == *name)) {
            file.own(mount).note_trouble();
        }
    }

    /// A commit of the mount was refused with a conflict. If its time was up, it counts as failed.
    pub(crate) fn conflict(&self, mount: usize, ino: Ino) {
        let mut state = self.state.lock();
        state.files.get_mut(&ino).into_iter().for_each(|file| file.own(mount).note_conflict());
    }

    /// A sync of the file has reported lost chunks to the mount, which gives up what it has not committed.
    pub(crate) fn loss(&self, mount: usize, name: &FileName) {
        let mut state = self.state.lock();
        state.files.values_mut().filter(|file| file.name == *name).for_each(|file| file.own(mount).doubt());
    }

    pub(crate) fn trouble_with(&self, mount: usize, ino: Ino, is_final: bool) {
        let mut state = self.state.lock();
        let Some(file) = state.files.get_mut(&ino) else { return };
        file.own(mount).note_trouble();
        if is_final {
            file.own(mount).doubt();
        }
    }
}

impl OracleState {
    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

impl MountView {
    /// What a read that begins now must show at least.
    fn must_show(&mut self, ino: Ino, feed_is_binding: bool) -> u64 {
        let opened = self.opened.get(&ino).copied().unwrap_or(0);
        if feed_is_binding { opened.max(self.heard(ino)) } else { opened }
    }

    /// What the feed has reported of a file before this moment.
    fn heard(&mut self, ino: Ino) -> u64 {
        let now = Instant::now();
        let (old, new): (Vec<_>, Vec<_>) = self.news.drain(..).partition(|(at, _, _)| *at < now);
        self.news = new;
        for (_, about, index) in old {
            match about {
                Some(ino) => {
                    let heard = self.heard.entry(ino).or_default();
                    *heard = index.max(*heard);
                }
                None => self.all_heard = self.all_heard.max(index),
            }
        }
        self.heard.get(&ino).copied().unwrap_or(0).max(self.all_heard)
    }
}
