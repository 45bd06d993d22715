//! Identities in a ring, and what their owners may do.
//!
//! A certificate names its owner by one URI among its subject alternative names, as SPIFFE does:
//!
//! ```text
//! chordfs:/ROLE/ID?name=NAME&path=PATH     ID: 16 hexadecimal digits; NAME and PATH percent-encoded; path only if bound
//! ```

use std::{fmt, str::FromStr, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// The longest name of an identity, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
const MAX_PATH_BYTES: usize = 1024;

/// For how long after its end a certificate can still be renewed by its owner, who may do nothing else with it.
pub const RENEWABLE_FOR: Duration = Duration::from_secs(180 * 24 * 3600);

/// The role of an identity. Which role may make which call is said by the servers' table of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A storage node: keeps chunks, votes, and carries out what others ask for.
    Node,
    /// A person who may change the ring: drain, configure, invite, revoke.
    Operator,
    /// A mount or a program that reads and writes files.
    Client,
    /// A mount or a program that only reads files.
    ReadOnlyClient,
    /// A program that only reads metrics and health.
    Metrics,
    /// A client on whose machine root has no power over root's files.
    SquashedClient,
    /// A client that only reads, and on whose machine root has no power over root's files.
    SquashedReadOnlyClient,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::Operator,
        Self::Client,
        Self::ReadOnlyClient,
        Self::Metrics,
        Self::SquashedClient,
        Self::SquashedReadOnlyClient,
    ];

    /// The name in certificates, commands and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Client => "client",
            Self::ReadOnlyClient => "read-only-client",
            Self::Metrics => "metrics",
            Self::SquashedClient => "squashed-client",
            Self::SquashedReadOnlyClient => "squashed-read-only-client",
        }
    }

    /// Whether it uses files and nothing else.
    pub const fn is_client(self) -> bool {
        match self {
            Self::Client | Self::ReadOnlyClient | Self::SquashedClient | Self::SquashedReadOnlyClient => true,
            Self::Node | Self::Operator | Self::Metrics => false,
        }
    }

    /// Whether it is a client that may change nothing.
    pub const fn is_read_only_client(self) -> bool {
        matches!(self, Self::ReadOnlyClient | Self::SquashedReadOnlyClient)
    }

    /// Whether root on the client's machine has no power over root's files.
    pub const fn squashes_root(self) -> bool {
        matches!(self, Self::SquashedClient | Self::SquashedReadOnlyClient)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|role| role.name()).collect();
            format!("{text:?} is no role; the roles are {}", names.join(", "))
        })
    }
}

/// The number of an identity, chosen at random. Certificates that renew one another have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentityId(pub u64);

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for IdentityId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = Some(text).filter(|text| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or("an identity's number has 16 hexadecimal digits")
    }
}

/// The identity of one owner of certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Its certificates come and go, and all have this number.
    pub id: IdentityId,
    /// What the owner may do.
    pub role: Role,
    /// For people: the host, the person, the purpose.
    pub name: String,
    /// The folder above which the owner sees nothing, as `/projects`; `None`: the owner sees everything.
    pub path: Option<String>,
}

impl Identity {
    /// Checks what is said of the owner. The error is a sentence for people.
    pub fn check(&self) -> Result<(), &'static str> {
        let refused = Err;
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || self.name.chars().any(char::is_control) {
            return refused("a name has 1 to 128 bytes and no control characters");
        }
        match &self.path {
            Some(path) if !is_absolute_and_plain(path) => refused(
                "a path is absolute, has at most 1024 bytes, and components of at most 255 that are neither empty nor \".\" or \"..\"",
            ),
            Some(_) if !self.role.is_client() => refused("only clients are bound to a path"),
            _ => Ok(()),
        }
    }

    /// The URI in the owner's certificate.
    pub fn to_uri(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut uri = format!("chordfs:/{}/{}?name={}", self.role, self.id, encode(&self.name));
        if let Some(path) = &self.path {
            uri += &format!("&path={}", encode(path));
        }
        uri
    }

    /// Reads the URI of a certificate.
    pub fn from_uri(uri: &str) -> Result<Self, &'static str> {
        let broken = || "its URI does not name an identity";
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| broken());
        let (place, query) = uri.strip_prefix("chordfs:/").and_then(|rest| rest.split_once('?')).ok_or_else(broken)?;
        let (role, id) = place.split_once('/').ok_or_else(broken)?;
        let (name, path) = query.split_once('&').map_or((query, None), |(name, path)| (name, Some(path)));
        let name = decode(name.strip_prefix("name=").ok_or_else(broken)?)?;
        let path = match path {
            Some(path) => Some(decode(path.strip_prefix("path=").ok_or_else(broken)?)?),
            None => None,
        };
        let (id, role) = (id.parse().map_err(|_| broken())?, role.parse().map_err(|_| broken())?);
        let identity = Self { id, role, name, path };
        identity.check()?;
        Ok(identity)
    }
}

fn is_absolute_and_plain(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.contains('\0');
    path.len() <= MAX_PATH_BYTES && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_uri_is_read_as_it_was_written(name in "\\PC{1,30}", path in proptest::option::of("(/[^/\\x00]{1,9}){1,4}"), id: u64) {
            let identity = Identity { id: IdentityId(id), role: Role::ReadOnlyClient, name, path };
            prop_assume!(identity.check().is_ok());
            prop_assert_eq!(Identity::from_uri(&identity.to_uri()).unwrap(), identity);
        }

        #[test]
        fn no_uri_is_a_panic(uri in "(chordfs:)?[/a-z0-9?=&%.-]{0,60}") {
            if let Ok(identity) = Identity::from_uri(&uri) {
                prop_assert!(identity.check().is_ok());
            }
        }
    }

    #[test]
    fn odd_uris_are_refused() {
        let good = "chordfs:/client/00000000000000a7?name=a&path=%2Fp%2Fq";
        assert!(Identity::from_uri(good).is_ok());
        let odd = [
            "",
            "chordfs:/client",
            "https:/client/00000000000000a7?name=a",
            &good.replace("client", "root"),
            &good.replace("00a7", "a7"),
            &good.replace("00a7", "+0a7"),
            &good.replace("name=a", "name="),
            &good.replace("name=a", "name=%0A"),
            &good.replace("%2Fp", "p"),
            &good.replace("%2Fq", "%2F..%2Fq"),
            &good.replace("%2Fq", "%2F"),
            &good.replace("path=", "way="),
            &good.replace("client", "operator"),
        ];
        for uri in odd {
            assert!(Identity::from_uri(uri).is_err(), "{uri}");
        }
    }
}
