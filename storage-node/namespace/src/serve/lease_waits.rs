//! How long requests have waited for other mounts to let go, and for other changes of the same names, for operators. A
//! request may wait several times.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub(crate) struct LeaseWaits {
    count: AtomicU64,
    micros: AtomicU64,
}

impl LeaseWaits {
    /// Counts `wait`. One whose request is given up is not counted.
    pub(crate) async fn measure<T>(&self, wait: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let outcome = wait.await;
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(began.elapsed().as_micros() as u64, Relaxed);
        outcome
    }

    /// How many there were, and their time together.
    pub(crate) fn total(&self) -> (u64, Duration) {
        (self.count.load(Relaxed), Duration::from_micros(self.micros.load(Relaxed)))
    }
}
