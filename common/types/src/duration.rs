//! Durations as people type them: `7d`, `90s`, `500ms`, `1h 30m`.

use std::time::Duration;

/// Refuses a number without a unit; zero is allowed.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no duration; write a number and a unit (ms, s, m, h, d), like 7d or 90s"))
}

/// Refuses a duration of zero.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err(format!("{text:?}: the duration has to be longer than zero")),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_needs_a_unit() {
        let millis = |text| parse(text).unwrap().as_millis();
        assert_eq!(["7d", "12h", "30m", "90s"].map(millis), [604_800_000, 43_200_000, 1_800_000, 90_000]);
        assert_eq!(["2500ms", "0s", "1d2h", "1h 30m"].map(millis), [2500, 0, 93_600_000, 5_400_000]);
        for wrong in ["", "7", "d", "-1s", "7D", "soon", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse(wrong).unwrap_err().contains("like 7d"), "{wrong}");
        }
        assert!(parse_positive("0ms").is_err() && parse_positive("1ms").is_ok());
    }
}
