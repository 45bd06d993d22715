//! How long calls of a kind have taken lately, as one number that costs nothing to keep.
//!
//! It decides where a call runs. The hop to a thread that may wait, and back, costs two wake-ups: more than a small
//! call costs while the disk, or the page cache before it, answers at once.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A call that takes less does not delay the other tasks of an asynchronous thread noticeably.
const SHORT: Duration = Duration::from_micros(100);
/// A longer call counts as one of this time: a single one must not outweigh hundreds.
const LONGEST: Duration = Duration::from_millis(1);
/// The average is over about as many calls.
const REMEMBERED: u64 = 8;

pub struct RecentTimes {
    average_nanos: AtomicU64,
}

impl Default for RecentTimes {
    /// Nothing is known at first, so the first calls count as long.
    fn default() -> Self {
        Self { average_nanos: AtomicU64::new(nanos(LONGEST)) }
    }
}

impl RecentTimes {
    /// Whether the next call will probably be short enough for an asynchronous thread.
    pub fn are_short(&self) -> bool {
        self.average_nanos.load(Relaxed) < nanos(SHORT)
    }

    pub fn note(&self, taken: Duration) {
        // An update that is lost among several threads does no harm.
        let average = self.average_nanos.load(Relaxed);
        let taken = nanos(taken.min(LONGEST));
        self.average_nanos.store(average - average / REMEMBERED + taken / REMEMBERED, Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_short_after_some_short_ones_and_no_longer_after_two_long_ones() {
        let times = RecentTimes::default();
        assert!(!times.are_short(), "nothing is known yet");
        let micros = |micros| times.note(Duration::from_micros(micros));
        let needed = (1..100).find(|_| {
            micros(20);
            times.are_short()
        });
        assert!(needed.is_some_and(|count| count < 30), "{needed:?}");
        (0..100).for_each(|_| micros(20));
        micros(300);
        assert!(times.are_short(), "one that was interrupted");
        micros(10_000_000);
        micros(10_000_000);
        assert!(!times.are_short(), "the disk has begun to make calls wait");
    }
}
