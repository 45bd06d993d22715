//! Numbers with up to six decimals.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const ONE: u32 = 1_000_000;
/// No rate or ratio that makes sense is larger.
const MAX: f64 = 1000.0;

/// A rate or a ratio, in millionths: not a floating-point number, because the namespace compares it for equality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Decimal(u32);

impl Decimal {
    /// 1.
    pub const ONE: Self = Self(ONE);

    /// `millionths / 1,000,000`.
    pub const fn from_millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    /// The number, multiplied by 1,000,000.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// The nearest number with six decimals; `None` for a negative number, for one above 1000, and for NaN.
    pub fn from_f64(number: f64) -> Option<Self> {
        let millionths = || (number * f64::from(ONE)).round() as u32;
        (0.0..=MAX).contains(&number).then(millionths).map(Self)
    }

    /// The nearest floating-point number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(ONE)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:06}", self.0 / ONE, self.0 % ONE);
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Decimal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse::<f64>().ok().and_then(Self::from_f64);
        number.ok_or_else(|| format!("{text:?} is no number from 0 to {MAX}, as in 0.05 or 2"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_and_written() {
        for (text, shown) in
            [("2", "2"), ("2.0", "2"), ("0.05", "0.05"), (".5", "0.5"), ("0", "0"), ("1e-6", "0.000001")]
        {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), shown);
        }
        assert_eq!("0.3".parse::<Decimal>().unwrap().as_f64(), 0.3);
        for wrong in ["", "-1", "-0.1", "NaN", "inf", "-inf", "1001", "2,0", "1/2"] {
            wrong.parse::<Decimal>().unwrap_err();
        }
    }
}
