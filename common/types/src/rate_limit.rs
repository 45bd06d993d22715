//! Rates as people type and read them: `64M`, `1G`, `none`.

use std::{fmt, str::FromStr};

use crate::byte_size;

/// Bytes a second for copies that a node fetches or sends; `None` is no limit. Written `64M`, `1G`, `0` or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit(pub Option<u64>);

impl Default for RateLimit {
    /// Half the capacity of a network of 1 Gbit/s.
    fn default() -> Self {
        Self(Some(64 << 20))
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.0 else { return f.write_str("none") };
        match rate {
            rate if rate % (1 << 30) == 0 => write!(f, "{}G", rate >> 30),
            rate if rate % (1 << 20) == 0 => write!(f, "{}M", rate >> 20),
            rate if rate % (1 << 10) == 0 => write!(f, "{}K", rate >> 10),
            rate => write!(f, "{rate}"),
        }
    }
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let wrong = |_| format!("{text:?} is no rate: bytes a second, as in 64M, 512K or 1G, or `none`");
        let rate = byte_size::parse(text).map_err(wrong)?;
        Ok(Self((rate > 0).then_some(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, rate) in
            [("64M", Some(64 << 20)), ("512k", Some(512 << 10)), ("2G", Some(2 << 30)), ("77", Some(77))]
        {
            assert_eq!(text.parse(), Ok(RateLimit(rate)), "{text}");
            assert_eq!(RateLimit(rate).to_string().parse(), Ok(RateLimit(rate)));
        }
        assert_eq!(("0".parse(), "none".parse()), (Ok(RateLimit(None)), Ok(RateLimit(None))));
        for wrong in ["", "M", "-1", "99999999999G", "fast", "6\u{e9}"] {
            wrong.parse::<RateLimit>().unwrap_err();
        }
    }
}
