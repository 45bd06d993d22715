//! Telling the kernel to forget. One thread does nothing else, for each notice is a system call that waits for locks in
//! the kernel: of pages that are being read or of a directory in which something is being made, and those are let go
//! only when we have answered. A handler that sent one itself could wait for its own answer.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, sync::mpsc, thread};

use chordfs_types::namespace::{EntryName, Ino};
use fuser::Notifier;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::root_map::RootMap;

/// Sends notices on their way; never waits. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    queue: mpsc::Sender<Notice>,
}

/// The other end, for the thread or for a test.
pub type NoticeQueue = mpsc::Receiver<Notice>;

#[derive(Debug)]
pub enum Notice {
    /// Attributes of an inode. `done` is answered once the kernel has taken it.
    Attr { ino: Ino, done: Option<oneshot::Sender<()>> },
    /// Attributes and all pages.
    Pages { ino: Ino },
    /// What a name leads to.
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

    /// Returns when the kernel has taken it, or when there is no kernel to take it.
    pub async fn attr_and_wait(&self, ino: Ino) {
        let (done, taken) = oneshot::channel();
        self.send(Notice::Attr { ino, done: Some(done) });
        let _closed_without_answer = taken.await;
    }

    pub fn pages(&self, ino: Ino) {
        self.send(Notice::Pages { ino });
    }

    pub fn entry(&self, parent: Ino, name: EntryName) {
        self.send(Notice::Entry { parent, name });
    }

    fn send(&self, notice: Notice) {
        if let Err(mpsc::SendError(notice)) = self.queue.send(notice) {
            debug!(?notice, "the mount is ending: nobody to notify");
        }
    }
}

/// Starts the thread; it ends when the last [`Notices`] is gone.
pub fn start(queue: NoticeQueue, kernel: Notifier, root: RootMap) -> io::Result<thread::JoinHandle<()>> {
    let pass_on_all = move || {
        for notice in queue {
            pass_on(&kernel, root, notice);
        }
    };
    thread::Builder::new().name("notices".into()).spawn(pass_on_all)
}

fn pass_on(kernel: &Notifier, root: RootMap, notice: Notice) {
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
    // Not to know the inode is as good as having forgotten it; fuser reports that as success.
    if let Err(error) = sent {
        warn!("the kernel refused the notice {what}: {error}");
    }
    if let Some(done) = done {
        let _nobody_waits_any_more = done.send(());
    }
}
