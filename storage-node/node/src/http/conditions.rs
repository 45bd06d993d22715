//! `Range`, `If-Range`, `If-None-Match` and `If-Match` (RFC 9110): which part of a file is requested, if any, and
//! whether it may be changed.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, header};

/// What to answer a GET with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RangeSelection {
    Whole,
    /// A range that is not empty and lies within the size.
    Part(Range<u64>),
    Unsatisfiable,
    NotModified,
}

/// Several ranges, other units and unparseable values select the whole, as the RFC allows.
pub(super) fn select_range(headers: &HeaderMap, size: u64, etag: &str, last_modified: &str) -> RangeSelection {
    if text(headers, header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, etag)) {
        return RangeSelection::NotModified;
    }
    if text(headers, header::IF_RANGE).is_some_and(|validator| validator != etag && validator != last_modified) {
        return RangeSelection::Whole;
    }
    text(headers, header::RANGE).and_then(|range| parse_range(range, size)).unwrap_or(RangeSelection::Whole)
}

/// Whether `If-Match` and `If-None-Match` allow a change of what has the tag `current`; `None` if there is nothing.
pub(super) fn check_write(headers: &HeaderMap, current: Option<&str>) -> bool {
    let matches = |tags: &str| current.is_some_and(|etag| matches_tag(tags, etag));
    let if_match = headers.get(header::IF_MATCH).map(|_| text(headers, header::IF_MATCH).is_some_and(matches));
    let if_none_match = text(headers, header::IF_NONE_MATCH).map(|tags| !matches(tags));
    if_match.unwrap_or(true) && if_none_match.unwrap_or(true)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn matches_tag(tags: &str, etag: &str) -> bool {
    tags == "*" || tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
}

fn parse_range(range: &str, size: u64) -> Option<RangeSelection> {
    let spec = range.strip_prefix("bytes=")?.trim();
    let (first, last) = spec.split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..size.min(last.saturating_add(1))
        }
    };
    Some(if range.is_empty() { RangeSelection::Unsatisfiable } else { RangeSelection::Part(range) })
}

/// Accepts digits only. A number that does not fit is beyond the end of any file.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        for (range, expected) in [
            ("bytes=0-0", Some(RangeSelection::Part(0..1))),
            ("bytes=3-", Some(RangeSelection::Part(3..10))),
            ("bytes=3-99", Some(RangeSelection::Part(3..10))),
            ("bytes=-4", Some(RangeSelection::Part(6..10))),
            ("bytes=-99", Some(RangeSelection::Part(0..10))),
            ("bytes=10-", Some(RangeSelection::Unsatisfiable)),
            ("bytes=-0", Some(RangeSelection::Unsatisfiable)),
            ("bytes=99999999999999999999-", Some(RangeSelection::Unsatisfiable)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("chunks=0-1", None),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(RangeSelection::Unsatisfiable));
    }

    #[test]
    fn a_write_depends_on_the_present_tag() {
        let check = |name: HeaderName, tags: &'static str, current: Option<&str>| {
            check_write(&HeaderMap::from_iter([(name, tags.parse().unwrap())]), current)
        };
        for (tags, current, matches) in [
            ("\"1\"", Some("\"1\""), true),
            ("\"0\", \"1\"", Some("\"1\""), true),
            ("\"2\"", Some("\"1\""), false),
            ("*", Some("\"1\""), true),
            ("*", None, false),
            ("\"1\"", None, false),
        ] {
            assert_eq!(check(header::IF_MATCH, tags, current), matches, "{tags} {current:?}");
            assert_eq!(check(header::IF_NONE_MATCH, tags, current), !matches, "{tags} {current:?}");
        }
        assert!(check_write(&HeaderMap::new(), None));
    }
}
