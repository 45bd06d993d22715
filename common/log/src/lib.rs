//! A limit on the log lines that a peer, a disk or a timer can cause: a few of each kind in a minute; the others are
//! counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of one kind that are written in a minute.
const LINES: u32 = 5;
const PERIOD: Duration = Duration::from_secs(60);

/// A line that may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPermit {
    /// How many lines of the kind were left out since the one before; `None` for none.
    pub suppressed: Option<u64>,
    /// Whether lines of the kind are only counted until the minute is over.
    pub is_last: bool,
}

/// Counts the lines of one kind.
#[derive(Debug)]
pub struct LogLimiter(Mutex<LineCounter>);

#[derive(Debug)]
struct LineCounter {
    period_start: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimiter {
    /// A kind that has written nothing yet.
    #[allow(clippy::new_without_default, reason = "a constant in a static; no caller wants a default")]
    pub const fn new() -> Self {
        Self(Mutex::new(LineCounter { period_start: None, lines: 0, suppressed: 0 }))
    }

    /// Returns `None` if the line is only counted.
    pub fn permit(&self) -> Option<LogPermit> {
        self.0.lock().permit(Instant::now())
    }
}

impl LineCounter {
    fn permit(&mut self, now: Instant) -> Option<LogPermit> {
        if self.period_start.is_none_or(|start| now.duration_since(start) >= PERIOD) {
            self.period_start = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        let suppressed = std::mem::take(&mut self.suppressed);
        Some(LogPermit { suppressed: (suppressed > 0).then_some(suppressed), is_last: self.lines == LINES })
    }
}

/// Like [`tracing::error!`], limited as [`warn_limited`] is.
#[macro_export]
macro_rules! error_limited {
    ($($line:tt)+) => { $crate::log_limited!(error, $($line)+) };
}

/// Like [`tracing::warn!`], at most five times a minute at each place in the source. The first line of a later minute
/// says how many were left out.
#[macro_export]
macro_rules! warn_limited {
    ($($line:tt)+) => { $crate::log_limited!(warn, $($line)+) };
}

/// Like [`tracing::info!`], limited as [`warn_limited`] is.
#[macro_export]
macro_rules! info_limited {
    ($($line:tt)+) => { $crate::log_limited!(info, $($line)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! log_limited {
    ($level:ident, $($line:tt)+) => {{
        static LIMITER: $crate::LogLimiter = $crate::LogLimiter::new();
        if let Some(permit) = LIMITER.permit() {
            ::tracing::$level!(suppressed = permit.suppressed, $($line)+);
            if permit.is_last {
                ::tracing::$level!("further lines like the one before are counted, and not logged, until a minute is over");
            }
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_writes_a_few_lines_a_minute_and_says_how_many_it_left_out() {
        let mut counter = LineCounter { period_start: None, lines: 0, suppressed: 0 };
        let epoch = Instant::now();
        let mut minute = |start: u64, lines: u64| -> Vec<(Option<u64>, bool)> {
            let at = |line| epoch + Duration::from_millis(start * 1000 + line);
            let permits = (0..lines).filter_map(|line| counter.permit(at(line)));
            permits.map(|permit| (permit.suppressed, permit.is_last)).collect()
        };
        let (line, last) = ((None, false), (None, true));
        assert_eq!(minute(100, 2), [line, line]);
        assert_eq!(minute(120, 20_000), [line, line, last]);
        assert_eq!(minute(200, 1), [(Some(19_997), false)]);
        assert_eq!(minute(300, 1), [line]);
    }
}
