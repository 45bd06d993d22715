//! How long a drain that makes no progress is retried. Pure.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use chordfs_replication::drain::DrainError;
use tokio::time::Instant;

/// Forgives failures as long as chunks are sent between them.
pub(super) struct StallTimeout {
    within: Duration,
    since: Option<Instant>,
    sent: u64,
}

impl StallTimeout {
    pub(super) fn new(within: Duration) -> Self {
        Self { within, since: None, sent: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// Records a failure after `sent` chunks in total. Errors: `Stalled` if none was sent since the first failure that
    /// is `within` old.
    pub(super) fn record_failure(&mut self, sent: u64, reason: &str, now: Instant) -> Result<(), DrainError> {
        if sent > self.sent {
            (self.sent, self.since) = (sent, None);
        }
        let since = *self.since.get_or_insert(now);
        if now - since >= self.within {
            return Err(DrainError::Stalled { within: self.within, reason: reason.into() });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgiven_while_there_is_progress() {
        let (mut stall, start) = (StallTimeout::new(Duration::from_secs(60)), Instant::now());
        let mut failed = |sent, secs| stall.record_failure(sent, "slow", start + Duration::from_secs(secs));
        for step in 0..5 {
            assert_eq!(failed(step, step * 59), Ok(()));
        }
        assert_eq!(failed(4, 4 * 59 + 59), Ok(()));
        assert!(matches!(failed(4, 4 * 59 + 60), Err(DrainError::Stalled { .. })));
    }
}
