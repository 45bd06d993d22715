//! The name of a ring, by which people tell it from others. It is typed to confirm what cannot be undone.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_RING_NAME_BYTES: usize = 32;

/// 1 to [`MAX_RING_NAME_BYTES`] letters, digits, hyphens, dots and underscores of ASCII. The bytes behind the name are
/// zero.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RingName([u8; MAX_RING_NAME_BYTES]);

impl RingName {
    /// The name without padding.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(MAX_RING_NAME_BYTES);
        std::str::from_utf8(&self.0[..end]).expect("a name is ASCII")
    }
}

impl Default for RingName {
    /// The name of a new ring.
    fn default() -> Self {
        "chordfs".parse().expect("it is a valid name")
    }
}

impl FromStr for RingName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.is_empty() || text.len() > MAX_RING_NAME_BYTES || !text.bytes().all(allowed) {
            return Err(format!(
                "{text:?} is no name of a ring: 1 to {MAX_RING_NAME_BYTES} letters, digits, hyphens, dots, underscores"
            ));
        }
        let mut name = [0; MAX_RING_NAME_BYTES];
        name[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(name))
    }
}

impl TryFrom<String> for RingName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RingName> for String {
    fn from(name: RingName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}
