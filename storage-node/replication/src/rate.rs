//! How fast chunks may be copied, so that programs do not wait for repair: a token bucket of bytes that fills at a
//! steady rate.
#![deny(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use chordfs_types::rate_limit::RateLimit;

/// The bucket holds the bytes of this time: the most that is sent at once after a pause.
const BURST: Duration = Duration::from_millis(250);

/// More bytes may be taken out than are in the bucket; the next caller then waits until the debt is paid.
#[derive(Debug)]
pub struct Bucket {
    limit: RateLimit,
    /// Negative while the bucket is in debt.
    bytes: f64,
    at: Instant,
}

impl Bucket {
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        let mut this = Self { limit, bytes: 0.0, at: now };
        this.bytes = this.burst();
        this
    }

    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes `bytes` out and returns how long to wait before they may be sent.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.limit.0 else { return Duration::ZERO };
        self.fill(now);
        let wait = (-self.bytes).max(0.0) / rate as f64;
        self.bytes -= bytes as f64;
        Duration::from_secs_f64(wait.min(86_400.0))
    }

    /// Returns bytes that were taken out but not needed.
    pub fn put_back(&mut self, bytes: u64) {
        self.bytes = (self.bytes + bytes as f64).min(self.burst());
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now.max(self.at);
        self.bytes = (self.bytes + passed * self.rate()).min(self.burst());
    }

    fn burst(&self) -> f64 {
        self.rate() * BURST.as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.limit.0.unwrap_or(0) as f64
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_is_sent_than_the_rate_allows() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit(Some(1000)), start);
        let (mut now, mut sent) = (start, 0);
        for bytes in [100, 1, 3000, 400, 50, 2000].into_iter().cycle().take(600) {
            now += bucket.take(bytes, now);
            sent += bytes;
        }
        // The last piece was sent and is not yet paid for.
        let seconds = (now - start).as_secs_f64();
        let (least, most) = ((sent - 3000) as f64 / 1000.0 - 0.26, sent as f64 / 1000.0);
        assert!((least..most).contains(&seconds), "{sent} bytes in {seconds} s");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit(Some(1000)), start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(1250, later), Duration::ZERO);
        assert_eq!(bucket.take(1, later), Duration::from_secs(1));
        bucket.put_back(501);
        assert_eq!(bucket.take(1, later), Duration::from_millis(500));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut bucket = Bucket::new(RateLimit(None), Instant::now());
        assert!((0..10).all(|_| bucket.take(u64::MAX, Instant::now()) == Duration::ZERO));
    }
}
