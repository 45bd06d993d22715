//! Times in UTC, from seconds since 1970.

use std::time::{Duration, UNIX_EPOCH};

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

/// A day and a second of it, from seconds since 1970.
pub(crate) fn day_and_second(seconds: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").trim_end_matches('Z').to_owned()
}
