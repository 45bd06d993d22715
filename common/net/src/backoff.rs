//! Pauses between tries.

use std::time::Duration;

/// Pauses that double up to a bound, each shortened at random to between half and all of itself, so that many who
/// failed together do not try again together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first`, or somewhat less, and grows to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// How long to wait before the next try.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// Begins with the first pause again, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_vary() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for longest in [1, 2, 4, 5, 5] {
            let longest = Duration::from_secs(longest);
            assert!((longest / 2..longest).contains(&backoff.pause()));
        }
        backoff.reset();
        assert!(backoff.pause() < Duration::from_secs(1));
    }
}
