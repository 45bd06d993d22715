//! Pauses between attempts.

use std::time::Duration;

/// Pauses that double up to a bound. Each is shortened at random to between half and all of its length, so that clients
/// that failed at the same time do not retry at the same time.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// The first pause is at most `first`; later ones grow to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Returns how long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// Starts over with the first pause, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for longest in [1, 2, 4, 5, 5] {
            let longest = Duration::from_secs(longest);
            assert!((longest / 2..longest).contains(&backoff.pause()));
        }
        backoff.reset();
        assert!(backoff.pause() < Duration::from_secs(1));
    }
}
