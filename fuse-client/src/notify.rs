//! Cache invalidations sent to the kernel. Dedicated threads send them, because each is a system call that waits for
//! locks in the kernel (of pages being read, or of a directory in which an entry is being created), and these locks are
//! released only after this process has replied. A request handler that sent a notice itself could deadlock, waiting
//! for its own reply.
//!
//! A notice may wait for as long as a read from a ring that does not answer. So there are several threads, started when
//! they are needed, and `lanes` gives no inode more than one of them.

mod lanes;

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, sync::Arc, thread};

use chordfs_log::warn_limited;
use chordfs_net::session::EventAcknowledgement;
use chordfs_types::namespace::{EntryName, Ino};
use fuser::Notifier;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tracing::debug;

use self::lanes::{Lanes, Pending};
use crate::root_map::RootMap;

/// The most threads. Each may wait for the reader of another file.
const MAX_WORKERS: usize = 8;

/// Queues notices; never waits. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    shared: Arc<SharedLanes>,
}

/// The receiving end. Notices are dropped once it is dropped.
pub struct NoticeQueue {
    shared: Arc<SharedLanes>,
}

struct SharedLanes {
    state: Mutex<LanesState>,
    arrived: Condvar,
}

#[derive(Default)]
struct LanesState {
    lanes: Lanes,
    workers: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
pub enum Notice {
    /// Invalidates the attributes of an inode.
    Attr { ino: Ino, done: NoticeEnd },
    /// Invalidates the attributes and all pages of an inode.
    Pages { ino: Ino, done: NoticeEnd },
    /// Invalidates one directory entry.
    Entry { parent: Ino, name: EntryName, done: NoticeEnd },
}

/// Dropped once the kernel has processed a notice.
#[derive(Debug)]
pub struct NoticeEnd {
    /// The leader waits for it.
    _leader: EventAcknowledgement,
    /// A request of this mount waits for it.
    _caller: Option<oneshot::Sender<()>>,
}

impl From<EventAcknowledgement> for NoticeEnd {
    fn from(leader: EventAcknowledgement) -> Self {
        Self { _leader: leader, _caller: None }
    }
}

impl Notices {
    pub fn new() -> (Self, NoticeQueue) {
        let shared = Arc::new(SharedLanes { state: Mutex::default(), arrived: Condvar::new() });
        (Self { shared: shared.clone() }, NoticeQueue { shared })
    }

    pub fn attr(&self, ino: Ino, done: EventAcknowledgement) {
        self.send(Notice::Attr { ino, done: done.into() });
    }

    /// Returns when the kernel has processed the notice, or when the mount is ending and the notice is dropped.
    pub async fn attr_and_wait(&self, ino: Ino) {
        let (done, processed) = oneshot::channel();
        self.send(Notice::Attr { ino, done: NoticeEnd { _leader: EventAcknowledgement::none(), _caller: Some(done) } });
        // The sender is dropped then.
        let _closed = processed.await;
    }

    pub fn pages(&self, ino: Ino, done: EventAcknowledgement) {
        self.send(Notice::Pages { ino, done: done.into() });
    }

    pub fn entry(&self, parent: Ino, name: EntryName, done: EventAcknowledgement) {
        self.send(Notice::Entry { parent, name, done: done.into() });
    }

    fn send(&self, notice: Notice) {
        let mut state = self.shared.state.lock();
        if state.closed {
            debug!(?notice, "the mount is ending: the notice is dropped");
            return;
        }
        state.lanes.push(notice);
        self.shared.arrived.notify_one();
    }
}

impl Drop for NoticeQueue {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.arrived.notify_all();
    }
}

/// Starts sending; the threads end with the process.
pub fn start(queue: NoticeQueue, kernel: Notifier, root: RootMap) -> io::Result<()> {
    queue.shared.state.lock().workers = 1;
    start_worker(Worker { queue: Arc::new(queue), kernel, root })
}

fn start_worker(worker: Worker) -> io::Result<()> {
    thread::Builder::new().name("notices".into()).spawn(move || worker.run()).map(drop)
}

#[derive(Clone)]
struct Worker {
    queue: Arc<NoticeQueue>,
    kernel: Notifier,
    root: RootMap,
}

impl Worker {
    fn run(self) {
        loop {
            let (ino, pending, is_last) = self.next();
            if is_last && let Err(error) = start_worker(self.clone()) {
                self.queue.shared.state.lock().workers -= 1;
                warn_limited!("cannot start another thread that notifies the kernel: {error}");
            }
            self.send(ino, pending);
            self.queue.shared.state.lock().lanes.done(ino);
        }
    }

    /// Waits for notices. Also returns whether no thread is left to take the next ones and one more may be started;
    /// that thread is counted already.
    fn next(&self) -> (Ino, Pending, bool) {
        let mut state = self.queue.shared.state.lock();
        loop {
            if let Some((ino, pending)) = state.lanes.next() {
                let is_last = state.idle == 0 && state.workers < MAX_WORKERS;
                state.workers += usize::from(is_last);
                return (ino, pending, is_last);
            }
            state.idle += 1;
            self.queue.shared.arrived.wait(&mut state);
            state.idle -= 1;
        }
    }

    fn send(&self, ino: Ino, pending: Pending) {
        /// A negative offset leaves the pages alone.
        const ATTRIBUTES_ONLY: i64 = -1;
        let inode = self.root.outward(ino);
        // An inode that the kernel does not know needs no invalidation; fuser reports that case as success.
        let refused =
            |what: &str, error: io::Error| warn_limited!(ino = ino.0, "the kernel refused a notice of {what}: {error}");
        if pending.pages || pending.attr {
            let offset = if pending.pages { 0 } else { ATTRIBUTES_ONLY };
            let sent = self.kernel.inval_inode(inode, offset, 0);
            sent.unwrap_or_else(|error| refused("an inode", error));
        }
        drop(pending.inode_done);
        for name in pending.entries {
            let sent = self.kernel.inval_entry(inode, OsStr::from_bytes(name.as_bytes()));
            sent.unwrap_or_else(|error| refused("an entry", error));
        }
        drop(pending.entries_done);
    }
}
