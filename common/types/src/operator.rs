//! The operator's token, a secret: its owner may change the ring, through the port 5059 of any node.
//!
//! Every node makes a token of its own at its first start and keeps it in its data folder. The namespace lists the
//! SHA-256 of each, so every node accepts the token of any node, and none can be read from the namespace. 160 random
//! bits cannot be guessed, so the hash needs no salt and no slow function.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The random bytes of a token.
pub const TOKEN_BYTES: usize = 20;
/// The most tokens that a ring accepts: one for each node.
pub const MAX_ACCEPTED_TOKENS: usize = 1024;

const PREFIX: &str = "chordfs-operator-";

/// A secret. It is written as `chordfs-operator-` and 40 hexadecimal digits, so that scanners for secrets find it.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorToken([u8; TOKEN_BYTES]);

impl OperatorToken {
    /// Makes a token of random bytes.
    pub fn from_random(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// The form in which a person sees it. There is no `Display`, so that no log line contains it by accident.
    pub fn reveal(&self) -> String {
        self.0.iter().fold(PREFIX.to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// The form that others may know.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}...")
    }
}

impl FromStr for OperatorToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "an operator's token is \"chordfs-operator-\" and 40 hexadecimal digits";
        let digits = text.trim().strip_prefix(PREFIX).ok_or(EXPECTED)?;
        let well_formed = digits.len() == 2 * TOKEN_BYTES && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !well_formed {
            return Err(EXPECTED);
        }
        let mut bytes = [0; TOKEN_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| EXPECTED)?;
        }
        Ok(Self(bytes))
    }
}

/// The SHA-256 of a token's random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_never_printed_by_accident() {
        let token = OperatorToken::from_random([0xa7; TOKEN_BYTES]);
        let text = token.reveal();
        assert_eq!(text.len(), PREFIX.len() + 40);
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("a7"));
        assert_ne!(token.hash(), OperatorToken::from_random([0xa8; TOKEN_BYTES]).hash());
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let good = OperatorToken::from_random([1; TOKEN_BYTES]).reveal();
        let (short, long, other) = (&good[..good.len() - 1], format!("{good}0"), good.replace("01", "0g"));
        for text in ["", "chordfs-operator-", short, &long, &other, "+".repeat(57).as_str(), &good.replace("op", "Op")]
        {
            assert!(text.parse::<OperatorToken>().is_err(), "{text}");
        }
        assert!(format!("{PREFIX}{}", "+1".repeat(20)).parse::<OperatorToken>().is_err());
        assert!(format!("{PREFIX}{}", "ä".repeat(20)).parse::<OperatorToken>().is_err());
    }
}
