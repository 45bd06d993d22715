//! Telling the leader that nobody here remembers any longer what a message of the change feed contradicts. The answer
//! to the change waits for it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::mpsc;

/// To be dropped, with all its clones, when neither the receiver of an event nor its kernel remembers what the event
/// contradicts. The leader is told then.
#[derive(Clone, Debug, Default)]
pub struct EventAcknowledgement(Option<Arc<PendingAcknowledgement>>);

#[derive(Debug)]
struct PendingAcknowledgement {
    notice: u64,
    /// False if the session gives its leases on the inodes back.
    keeps: AtomicBool,
    to: mpsc::UnboundedSender<NoticeDone>,
}

/// What the leader has to be told, over the connection on which the notice came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoticeDone {
    pub notice: u64,
    pub keeps: bool,
}

impl EventAcknowledgement {
    pub(super) fn of(notice: Option<u64>, to: &mpsc::UnboundedSender<NoticeDone>) -> Self {
        let pending =
            |notice| Arc::new(PendingAcknowledgement { notice, keeps: AtomicBool::new(true), to: to.clone() });
        Self(notice.map(pending))
    }

    /// For an event that nothing waits for.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether the leader waits for it.
    pub fn is_awaited(&self) -> bool {
        self.0.is_some()
    }

    /// Gives the leases on the inodes of the event back, beside acknowledging it.
    pub fn give_back(&self) {
        if let Some(pending) = &self.0 {
            pending.keeps.store(false, Relaxed);
        }
    }
}

/// Those of one message are equal.
impl PartialEq for EventAcknowledgement {
    fn eq(&self, other: &Self) -> bool {
        let notice = |it: &Self| it.0.as_ref().map(|pending| pending.notice);
        notice(self) == notice(other)
    }
}

impl Eq for EventAcknowledgement {}

impl Drop for PendingAcknowledgement {
    fn drop(&mut self) {
        let done = NoticeDone { notice: self.notice, keeps: self.keeps.load(Relaxed) };
        // Without a receiver the connection is gone: attaching again ends what the session held.
        let _ = self.to.send(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_told_when_the_last_clone_is_dropped() {
        let (to, mut told) = mpsc::unbounded_channel();
        let first = EventAcknowledgement::of(Some(7), &to);
        let second = first.clone();
        drop(first);
        assert!(told.try_recv().is_err());
        second.give_back();
        drop(second);
        assert_eq!(told.try_recv(), Ok(NoticeDone { notice: 7, keeps: false }));
        drop(EventAcknowledgement::of(None, &to));
        assert!(told.try_recv().is_err());
    }
}
