//! A place in the order of changes that is kept for the contents of a file, until its commit has ended.

use std::sync::Arc;

use chordfs_net::clients::ChangeSlot;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, Ino, Reply, Time},
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    WriteBack,
    queue::{ChangePlace, QueuedChange},
};

pub(super) struct CommitPlace {
    owner: Arc<WriteBack>,
    file: Ino,
    /// `None` when nothing more is expected in it.
    place: Mutex<Option<ChangePlace>>,
}

impl CommitPlace {
    pub(super) fn new(owner: Arc<WriteBack>, file: Ino, place: ChangePlace) -> Self {
        Self { owner, file, place: Mutex::new(Some(place)) }
    }

    /// Queues a change in the place that is kept. If a commit goes on after its last change, because that was refused,
    /// it does so behind everything that has been answered since.
    fn queue(&self, change: QueuedChange, is_last: bool) {
        let mut kept = self.place.lock();
        let mut state = self.owner.state.lock();
        let contents = state.mirror.begin_contents(self.file, &change.change);
        let change = QueuedChange { contents, ..change };
        let place = kept.take().unwrap_or_else(|| state.queue.open_slot(self.file));
        state.queue.push_in(place, change);
        if is_last {
            state.queue.close_slot(place);
        } else {
            *kept = Some(place);
        }
    }
}

impl ChangeSlot for CommitPlace {
    fn apply(&self, change: Change, is_last: bool) -> BoxFuture<'_, Result<Reply, FsError>> {
        let (waiting, logged) = oneshot::channel();
        let (inos, waiting) = (vec![self.file], Some(waiting));
        self.queue(QueuedChange { now: Time::now(), change, inos, waiting, contents: None }, is_last);
        self.owner.wake.notify_one();
        Box::pin(async move {
            logged.await.unwrap_or_else(|_| Err(FsError::NoQuorum { detail: "the mount is ending".to_owned() }))
        })
    }
}

impl Drop for CommitPlace {
    fn drop(&mut self) {
        if let Some(place) = self.place.get_mut().take() {
            self.owner.state.lock().queue.close_slot(place);
            self.owner.note_progress();
            self.owner.wake.notify_one();
        }
    }
}
