//! How long a drain on which nothing gets on is tried again. Pure.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use chordfs_replication::drain::DrainError;
use tokio::time::Instant;

/// Failures are forgiven as long as something gets on between them.
pub struct Patience {
    within: Duration,
    since: Option<Instant>,
    sent: u64,
}

impl Patience {
    pub fn new(within: Duration) -> Self {
        Self { within, since: None, sent: 0 }
    }

    pub fn begin_anew(&mut self) {
        self.since = None;
    }

    /// `sent`: chunks so far.
    pub fn failed(&mut self, sent: u64, reason: &str, now: Instant) -> Result<(), DrainError> {
        if sent > self.sent {
            (self.sent, self.since) = (sent, None);
        }
        let since = *self.since.get_or_insert(now);
        match now - since >= self.within {
            true => Err(DrainError::Stalled { within: self.within, reason: reason.into() }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgiven_while_something_gets_on() {
        let (mut patience, start) = (Patience::new(Duration::from_secs(60)), Instant::now());
        let mut failed = |sent, secs| patience.failed(sent, "slow", start + Duration::from_secs(secs));
        for step in 0..5 {
            assert_eq!(failed(step, step * 59), Ok(()));
        }
        assert_eq!(failed(4, 4 * 59 + 59), Ok(()));
        assert!(matches!(failed(4, 4 * 59 + 60), Err(DrainError::Stalled { .. })));
    }
}
