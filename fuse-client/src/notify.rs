//! Cache invalidations sent to the kernel. A dedicated thread sends them, because each is a system call that waits for
//! locks in the kernel (of pages being read, or of a directory in which an entry is being created), and these locks are
//! released only after this process has replied. A request handler that sent a notice itself could deadlock, waiting
//! for its own reply.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, sync::mpsc, thread};

use chordfs_types::namespace::{EntryName, Ino};
use fuser::Notifier;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::root_map::RootMap;

/// Queues notices; never waits. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    queue: mpsc::Sender<Notice>,
}

/// The receiving end, for the thread or for a test.
pub type NoticeQueue = mpsc::Receiver<Notice>;

#[derive(Debug)]
pub enum Notice {
    /// Invalidates the attributes of an inode. `done` is signalled once the kernel has processed the notice.
    Attr { ino: Ino, done: Option<oneshot::Sender<()>> },
    /// Invalidates the attributes and all pages of an inode.
    Pages { ino: Ino },
    /// Invalidates one directory entry.
    Entry { parent: Ino, name: EntryName },
}

impl Notices {
    pub fn new() -> (Self, NoticeQueue) {
        let (queue, notices) = mpsc::channel();
        (Self { queue }, notices)
    }

    pub fn attr(&self, ino: Ino) {
        self.send(Notice::Attr { ino, done: None });
    }

    /// Returns when the kernel has processed the notice, or when the mount is ending and the notice is dropped.
    pub async fn attr_and_wait(&self, ino: Ino) {
        let (done, processed) = oneshot::channel();
        self.send(Notice::Attr { ino, done: Some(done) });
        let _closed_if_the_mount_ends = processed.await;
    }

    pub fn pages(&self, ino: Ino) {
        self.send(Notice::Pages { ino });
    }

    pub fn entry(&self, parent: Ino, name: EntryName) {
        self.send(Notice::Entry { parent, name });
    }

    fn send(&self, notice: Notice) {
        if let Err(mpsc::SendError(notice)) = self.queue.send(notice) {
            debug!(?notice, "the mount is ending: the notice is dropped");
        }
    }
}

/// Starts the thread; it ends when the last [`Notices`] is dropped.
pub fn start(queue: NoticeQueue, kernel: Notifier, root: RootMap) -> io::Result<thread::JoinHandle<()>> {
    let send_all = move || {
        for notice in queue {
            send_to_kernel(&kernel, root, notice);
        }
    };
    thread::Builder::new().name("notices".into()).spawn(send_all)
}

fn send_to_kernel(kernel: &Notifier, root: RootMap, notice: Notice) {
    /// A negative offset leaves the pages alone.
    const ATTRIBUTES_ONLY: i64 = -1;
    let what = format!("{notice:?}");
    let (sent, done) = match notice {
        Notice::Attr { ino, done } => (kernel.inval_inode(root.outward(ino), ATTRIBUTES_ONLY, 0), done),
        Notice::Pages { ino } => (kernel.inval_inode(root.outward(ino), 0, 0), None),
        Notice::Entry { parent, name } => {
            (kernel.inval_entry(root.outward(parent), OsStr::from_bytes(name.as_bytes())), None)
        }
    };
    // An inode that the kernel does not know needs no invalidation; fuser reports that case as success.
    if let Err(error) = sent {
        warn!("the kernel refused the notice {what}: {error}");
    }
    if let Some(done) = done {
        let _closed_after_a_timeout = done.send(());
    }
}
