//! Times of the day in UTC, from seconds since 1970.

pub(crate) fn minute(seconds: u64) -> String {
    let minutes = seconds / 60;
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

pub(crate) fn second(seconds: u64) -> String {
    format!("{}:{:02}", minute(seconds), seconds % 60)
}

/// The beginning of a period: seconds are shown only if periods are shorter than a minute, as in tests.
pub(crate) fn period(seconds: u64, period_seconds: u64) -> String {
    if period_seconds.is_multiple_of(60) { minute(seconds) } else { second(seconds) }
}
