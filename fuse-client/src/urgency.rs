//! Whether a program waits for what this mount sends. What nobody waits for is collected for some milliseconds, so that
//! many small files travel in one request and are logged in one entry. As soon as anybody waits, nothing is collected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

/// How long something that nobody waits for is collected.
const LINGER: Duration = Duration::from_millis(10);

#[derive(Default)]
pub struct Urgency {
    waiting: AtomicUsize,
    changed: Notify,
}

/// A program waits, until this is dropped.
pub struct ProgramWaits(Arc<Urgency>);

impl Urgency {
    /// Notes that a program waits from now on.
    pub fn wait(self: &Arc<Self>) -> ProgramWaits {
        self.waiting.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
        ProgramWaits(self.clone())
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Notes that enough is collected.
    pub fn note_enough(&self) {
        self.changed.notify_waiters();
    }

    /// Returns after a while, or as soon as a program waits or `has_enough` is true after a note.
    pub async fn linger(&self, has_enough: impl Fn() -> bool) {
        let collecting = async {
            loop {
                let changed = self.changed.notified();
                if self.is_waiting() || has_enough() {
                    return;
                }
                changed.await;
            }
        };
        let _ended_early = timeout(LINGER, collecting).await;
    }
}

impl Drop for ProgramWaits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_collected_for_a_while() {
        let urgency = Arc::new(Urgency::default());
        let begun = Instant::now();
        urgency.linger(|| false).await;
        assert_eq!(begun.elapsed(), LINGER);
        let waits = urgency.wait();
        urgency.linger(|| false).await;
        assert_eq!(begun.elapsed(), LINGER, "a program waits");
        drop(waits);
        urgency.linger(|| false).await;
        assert_eq!(begun.elapsed(), 2 * LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_a_program_begins_to_wait_and_when_enough_is_collected() {
        let urgency = Arc::new(Urgency::default());
        let begun = Instant::now();
        let half = LINGER / 2;
        let waits = async {
            sleep(half).await;
            urgency.wait()
        };
        let (_waits, ()) = tokio::join!(waits, urgency.linger(|| false));
        assert_eq!(begun.elapsed(), half);
        drop(_waits);
        let enough = AtomicBool::new(false);
        let collects = async {
            sleep(half).await;
            enough.store(true, SeqCst);
            urgency.note_enough();
        };
        tokio::join!(collects, urgency.linger(|| enough.load(SeqCst)));
        assert_eq!(begun.elapsed(), 2 * half);
    }
}
