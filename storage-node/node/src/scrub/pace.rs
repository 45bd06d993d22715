//! How fast a pass reads: evenly over its period, and never faster than the limit.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// The longest pause at a time: the store may have grown meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// If this is zero, a pass reads as fast as the limit allows.
    pub period: Duration,
    pub bytes_per_second: u64,
}

/// The progress of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassProgress {
    /// The time since the pass began.
    pub elapsed: Duration,
    pub done_bytes: u64,
    /// The present amount of data; it changes as chunks are stored and deleted.
    pub total_bytes: u64,
}

impl Pace {
    /// How long to wait after a step that read `bytes` in `took`. A pass that is late, because the node was off,
    /// catches up within the limit.
    pub(super) fn pause(&self, bytes: u64, took: Duration, progress: PassProgress) -> Duration {
        let within_limit = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64);
        let even = self.due(progress).saturating_sub(progress.elapsed).min(LONGEST_PAUSE);
        even.max(within_limit.saturating_sub(took))
    }

    /// How long to wait after the end of a pass: the next one begins when the period is over.
    pub(super) fn rest(&self, elapsed: Duration) -> Duration {
        self.period.saturating_sub(elapsed)
    }

    /// The time by which this much should have been read.
    fn due(&self, progress: PassProgress) -> Duration {
        let total = progress.total_bytes.max(progress.done_bytes).max(1);
        self.period.mul_f64(progress.done_bytes as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Reads `total` in steps that each take `took`. Returns when each step began and when the last one ended.
    fn simulate(pace: Pace, total: u64, step: u64, took: Duration, began_late: Duration) -> (Vec<Duration>, Duration) {
        let (mut elapsed, mut done, mut begins) = (began_late, 0, Vec::new());
        while done < total {
            begins.push(elapsed);
            let bytes = step.min(total - done);
            done += bytes;
            elapsed += took;
            let before = elapsed;
            // The reader asks again after each part of a long pause.
            let mut first = true;
            loop {
                let progress = PassProgress { elapsed, done_bytes: done, total_bytes: total };
                let (bytes, took) = if first { (bytes, took) } else { (0, Duration::ZERO) };
                let pause = pace.pause(bytes, took, progress);
                first = false;
                if pause < secs(0.000_001) {
                    break;
                }
                elapsed += pause;
            }
            assert!(elapsed >= before);
        }
        (begins, elapsed)
    }

    #[test]
    fn a_pass_is_spread_evenly_over_its_period() {
        let pace = Pace { period: secs(1000.0), bytes_per_second: 64 * MIB };
        let (begins, end) = simulate(pace, 100 * MIB, MIB, secs(0.01), Duration::ZERO);
        assert!((secs(999.0)..secs(1001.0)).contains(&end), "{end:?}");
        for (step, began) in begins.iter().enumerate() {
            let even = secs(step as f64 * 10.0);
            assert!(began.abs_diff(even) < secs(0.1), "step {step} began at {began:?}, not {even:?}");
        }
    }

    #[test]
    fn the_limit_holds_for_requested_late_and_oversized_passes() {
        let limit = 10 * MIB;
        for (period, late) in [(0.0, 0.0), (1000.0, 5000.0), (1.0, 0.0)] {
            let pace = Pace { period: secs(period), bytes_per_second: limit };
            let (_, end) = simulate(pace, 100 * MIB, 4 * MIB, secs(0.05), secs(late));
            let took = end - secs(late);
            assert!((secs(9.9)..secs(10.1)).contains(&took), "period {period}, {late} late: {took:?}");
        }
    }

    #[test]
    fn a_disk_slower_than_the_limit_is_not_waited_for() {
        let pace = Pace { period: Duration::ZERO, bytes_per_second: 64 * MIB };
        let (_, end) = simulate(pace, 10 * MIB, MIB, secs(2.0), Duration::ZERO);
        assert_eq!(end, secs(20.0));
    }

    #[test]
    fn an_empty_or_shrinking_store_is_handled() {
        let pace = Pace { period: secs(100.0), bytes_per_second: MIB };
        let empty = PassProgress { elapsed: Duration::ZERO, done_bytes: 0, total_bytes: 0 };
        assert_eq!(pace.pause(0, Duration::ZERO, empty), Duration::ZERO);
        assert_eq!((pace.rest(secs(30.0)), pace.rest(secs(300.0))), (secs(70.0), Duration::ZERO));
        let shrunk = PassProgress { elapsed: secs(90.0), done_bytes: 50, total_bytes: 5 };
        assert_eq!(pace.pause(0, Duration::ZERO, shrunk), secs(10.0));
    }
}
