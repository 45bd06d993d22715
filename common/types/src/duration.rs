//! Durations as people type and read them: `7d`, `90s`, `500ms`. One number and one unit, so there is one way to read it.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write a number and a unit (ms, s, m, h, d), like 7d or 90s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)).ok_or_else(wrong)?;
    Ok(Duration::from_millis(millis))
}

/// More than none at all.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err(format!("{text:?}: it has to be longer than that")),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_and_one_unit() {
        let secs = |text| parse(text).unwrap().as_secs();
        assert_eq!(["7d", "12h", "30m", "90s", "2500ms", "0s"].map(secs), [604_800, 43_200, 1800, 90, 2, 0]);
        for wrong in
            ["", "7", "d", "1.5h", "-1s", "1 d", "1d2h", "7D", "99999999999999999999d", "18446744073709551615d"]
        {
            assert!(parse(wrong).unwrap_err().contains("like 7d"), "{wrong}");
        }
        assert!(parse_positive("0ms").is_err() && parse_positive("1ms").is_ok());
    }
}
