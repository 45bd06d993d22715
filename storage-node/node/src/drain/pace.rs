//! How fast a drain hands chunks over: within the limit of all background copying, or at a rate of its own.
//!
//! Without a rate of its own, a drain shares the token bucket of repair, so that all copying together stays below the
//! one limit that the operator set. The rate may change at any moment, also for batches that already wait: a machine
//! that had hours left may be given notice of two minutes.

use std::{sync::Arc, time::Instant};

use chordfs_replication::rate::Bucket;
use chordfs_types::rate_limit::RateLimit;
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use crate::replica::copy_traffic::CopyTraffic;

/// The most bytes that one request carries. At a low rate it carries fewer, so that about one is sent every second.
pub(super) const MOVE_BYTES: u64 = 4 << 20;
const LEAST_MOVE_BYTES: u64 = 64 << 10;

pub(super) struct DrainPace {
    shared: Arc<CopyTraffic>,
    own: Mutex<Option<Bucket>>,
    changes: watch::Sender<()>,
}

impl DrainPace {
    pub(super) fn new(shared: Arc<CopyTraffic>) -> Self {
        Self { shared, own: Mutex::new(None), changes: watch::Sender::new(()) }
    }

    /// `None`: shares the limit of repair. Returns the limit that holds from now on.
    pub(super) fn set(&self, rate: Option<RateLimit>) -> RateLimit {
        *self.own.lock() = rate.map(|rate| Bucket::new(rate, Instant::now()));
        self.changes.send_replace(());
        rate.unwrap_or_else(|| self.shared.limit())
    }

    pub(super) fn batch_bytes(&self) -> u64 {
        let own = self.own.lock().as_ref().map(Bucket::limit);
        own.unwrap_or_else(|| self.shared.limit()).0.map_or(MOVE_BYTES, |rate| rate.clamp(LEAST_MOVE_BYTES, MOVE_BYTES))
    }

    /// Waits until `bytes` may be sent.
    pub(super) async fn spend(&self, bytes: u64) {
        let mut changes = self.changes.subscribe();
        loop {
            let own = self.own.lock().as_mut().map(|own| own.take(bytes, Instant::now()));
            let (wait, shared) = match own {
                Some(wait) => (wait, None),
                None => (self.shared.take(bytes), Some(Reservation { from: &self.shared, bytes })),
            };
            tokio::select! {
                () = sleep(wait) => {
                    // The batch is sent now, so the reservation is used up.
                    shared.into_iter().for_each(std::mem::forget);
                    return;
                }
                _ = changes.changed() => {}
            }
        }
    }
}

/// Bytes taken out of the shared bucket for a batch that has not been sent. Dropping it puts them back.
struct Reservation<'a> {
    from: &'a CopyTraffic,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.from.refund(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn shared(rate: u64) -> Arc<CopyTraffic> {
        Arc::new(CopyTraffic::new(RateLimit(Some(rate))))
    }

    /// Whether the bucket is in debt for about a day.
    fn pays_off_for_a_day(traffic: &CopyTraffic) -> bool {
        let wait = traffic.take(0);
        wait > Duration::from_secs(80_000)
    }

    #[tokio::test]
    async fn a_drain_without_its_own_rate_shares_the_rate_of_repair() {
        let traffic = shared(1);
        let pace = DrainPace::new(traffic.clone());
        assert_eq!(pace.set(None), RateLimit(Some(1)));
        pace.spend(90_000).await;
        assert!(pays_off_for_a_day(&traffic), "repair waits for it");
        assert!(pace.spend(1).now_or_never().is_none(), "and it for repair");
    }

    #[tokio::test]
    async fn a_new_rate_holds_for_batches_that_wait_already() {
        let traffic = shared(1);
        let pace = DrainPace::new(traffic.clone());
        pace.spend(90_000).await;
        let mut waiting = Box::pin(pace.spend(1 << 40));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(pace.set(Some(RateLimit(None))), RateLimit(None));
        waiting.await;
        traffic.refund(90_000);
        assert!(!pays_off_for_a_day(&traffic), "a batch that was not sent at the shared rate is not counted there");
    }

    #[test]
    fn a_slow_drain_goes_in_small_steps() {
        let pace = DrainPace::new(shared(1 << 20));
        assert_eq!(pace.batch_bytes(), 1 << 20);
        for (rate, wanted) in [(Some(1), LEAST_MOVE_BYTES), (Some(1 << 30), MOVE_BYTES), (None, MOVE_BYTES)] {
            pace.set(Some(RateLimit(rate)));
            assert_eq!(pace.batch_bytes(), wanted, "{rate:?}");
        }
    }

    #[tokio::test]
    async fn a_cancelled_wait_has_spent_nothing() {
        let traffic = shared(1);
        let pace = DrainPace::new(traffic.clone());
        pace.spend(1).await;
        assert!(pace.spend(90_000).now_or_never().is_none());
        assert!(!pays_off_for_a_day(&traffic));
    }
}
