//! When which part of the log had been applied on this node, by this node's own monotonic clock. Grace periods are
//! measured with it: neither the leaders' wall clocks nor a change of leaders shortens them, and a node that has just
//! started begins anew.

use std::{collections::VecDeque, time::Duration};

/// Records older than this are dropped, except the newest of them.
const KEEP_FOR: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(crate) struct AppliedHistory {
    /// Times since boot, and the last applied index then; ascending.
    records: VecDeque<(Duration, u64)>,
}

impl AppliedHistory {
    pub(crate) fn record(&mut self, now: Duration, applied: u64) {
        while self.records.get(1).is_some_and(|(at, _)| *at + KEEP_FOR <= now) {
            self.records.pop_front();
        }
        self.records.push_back((now, applied));
    }

    /// The last index that had been applied at least `age` ago; 0 if that is not known.
    pub(crate) fn applied_before(&self, now: Duration, age: Duration) -> u64 {
        let old = self.records.iter().rev().find(|(at, _)| *at + age <= now);
        old.map_or(0, |(_, applied)| *applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_age_counts_from_the_time_at_which_an_entry_was_seen_applied() {
        let mut history = AppliedHistory::default();
        assert_eq!(history.applied_before(SECOND, Duration::ZERO), 0, "nothing is known");
        history.record(10 * SECOND, 5);
        history.record(12 * SECOND, 9);
        let before = |age: u32| history.applied_before(20 * SECOND, age * SECOND);
        assert_eq!([0, 8, 9, 10, 11].map(before), [9, 9, 5, 5, 0]);
    }

    #[test]
    fn old_records_are_dropped_and_the_newest_of_them_stays() {
        let mut history = AppliedHistory::default();
        (0..2000).for_each(|second| history.record(second * SECOND, u64::from(second)));
        assert!(history.records.len() < 400);
        assert_eq!(history.applied_before(1999 * SECOND, KEEP_FOR), 1999 - 300);
    }
}
