//! Noticing that this process did not run for a while: its machine slept, or it was stopped. What mounts sent meanwhile
//! was not read, so their silence means nothing.

use std::time::Duration;

/// A task may be this late before that counts as a pause.
const TOLERATED: Duration = Duration::from_secs(3);

/// Watches a task that runs at a fixed interval.
pub(crate) struct PauseDetector {
    every: Duration,
    /// Time since boot, sleep included.
    last: Option<Duration>,
}

impl PauseDetector {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, last: None }
    }

    /// Called at each turn of the task; returns true if this one is so late that the process cannot have run.
    pub(crate) fn was_paused(&mut self, now: Duration) -> bool {
        let last = self.last.replace(now);
        last.is_some_and(|last| now.saturating_sub(last) > self.every + TOLERATED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_very_late_turn_is_a_pause() {
        let mut detector = PauseDetector::new(Duration::from_secs(1));
        let turns = [100, 101, 105, 110, 111];
        assert_eq!(turns.map(|at| detector.was_paused(Duration::from_secs(at))), [false, false, false, true, false]);
    }
}
