//! Whether this machine has slept since a moment. The monotonic clock stands still meanwhile, so a leader that wakes
//! would take its lease for fresh, although another may lead by then.

use std::time::{Duration, Instant};

use chordfs_net::boot_clock::since_boot;
use parking_lot::Mutex;

/// The two clocks are read one after the other, and tick alike otherwise.
const TOLERATED: Duration = Duration::from_millis(20);

pub(crate) struct SleepGuard {
    start: Instant,
    boot: Duration,
    sleep: Mutex<NoticedSleep>,
}

/// Times since the guard was made, on the monotonic clock.
#[derive(Default)]
struct NoticedSleep {
    total: Duration,
    noticed: Option<Duration>,
}

impl SleepGuard {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), boot: since_boot(), sleep: Mutex::default() }
    }

    /// Returns whether the machine has been awake for the last `age` of the monotonic clock.
    pub(crate) fn awake_for(&self, age: Duration) -> bool {
        let (monotonic, boot) = (self.start.elapsed(), since_boot().saturating_sub(self.boot));
        self.sleep.lock().awake_since(monotonic.saturating_sub(age), monotonic, boot)
    }
}

impl NoticedSleep {
    /// `monotonic` and `boot` are the times on both clocks now.
    fn awake_since(&mut self, at: Duration, monotonic: Duration, boot: Duration) -> bool {
        let slept = boot.saturating_sub(monotonic);
        if slept > self.total + TOLERATED {
            self.total = slept;
            self.noticed = Some(monotonic);
        }
        self.noticed.is_none_or(|noticed| at > noticed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader answered reads for up to 650 ms after it woke, with what had been true when it fell asleep.
    #[test]
    fn what_was_confirmed_before_a_sleep_is_not_valid_after_it() {
        let ms = Duration::from_millis;
        let mut sleep = NoticedSleep::default();
        assert!(sleep.awake_since(ms(900), ms(1000), ms(1003)), "the clocks differ by a little");
        assert!(!sleep.awake_since(ms(990), ms(1100), ms(61_100)), "it slept for a minute");
        assert!(!sleep.awake_since(ms(1100), ms(1101), ms(61_101)), "confirmed before the sleep was noticed");
        assert!(sleep.awake_since(ms(1200), ms(1250), ms(61_250)), "confirmed after it");
        assert!(!sleep.awake_since(ms(1250), ms(1300), ms(62_300)), "another second");
    }
}
