//! The token that a newcomer exchanges for a certificate, once.
//!
//! ```text
//! chordfs-invite-SECRET@IP:PORT,IP:PORT    SECRET: base64url of the secret, 16 bytes, and the fingerprint, 16 bytes
//! ```
//! The fingerprint is that of the ring's authority: the newcomer recognizes the ring by it, so nobody between them can
//! pass for the ring. The namespace keeps the hash of the secret, with the role that it gives and until when; so nobody
//! who reads the namespace can use an invitation. 128 random bits cannot be guessed, so a fast hash without salt will
//! do.

use std::{fmt, net::SocketAddr, path::Path, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{authority::Fingerprint, error::IdentityError, secret_file};

const PREFIX: &str = "chordfs-invite-";
const SECRET_BYTES: usize = 16;
/// A newcomer tries so many nodes at most.
const MAX_NODES: usize = 5;

/// What the namespace knows an invitation by. It is written in no log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InvitationSecret([u8; SECRET_BYTES]);

impl InvitationSecret {
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// The bytes, to be sent to the ring over a connection whose other end is known.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The form that others may know.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitationToken {
    pub secret: InvitationSecret,
    pub authority: Fingerprint,
    /// Ring addresses of nodes, 1 to 5.
    pub nodes: Vec<SocketAddr>,
}

impl InvitationToken {
    /// Whether a text, such as the first argument of a mount, is meant as a token.
    pub fn is_meant_by(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }

    /// Reads a token from a file. Refuses one that others may read: they may have used it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        String::from_utf8_lossy(&secret_file::read(path)?).parse()
    }

    /// The form in which a person sees it. There is no `Display`, so that no log line contains it by accident.
    pub fn reveal(&self) -> String {
        let secret = URL_SAFE_NO_PAD.encode([self.secret.0, self.authority.0].concat());
        let nodes: Vec<String> = self.nodes.iter().map(SocketAddr::to_string).collect();
        format!("{PREFIX}{secret}@{}", nodes.join(","))
    }
}

impl FromStr for InvitationToken {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let refused = |reason| IdentityError::Invitation { reason };
        let text = text.trim().strip_prefix(PREFIX).ok_or(refused("it does not begin with \"chordfs-invite-\""))?;
        let (secret, nodes) = text.split_once('@').ok_or(refused("it has no \"@\" before the addresses of nodes"))?;
        let cut = || refused("it is not whole: it has 43 letters, digits, \"-\" and \"_\" before the \"@\"");
        let bytes = URL_SAFE_NO_PAD.decode(secret).map_err(|_| cut())?;
        let (secret, authority) = bytes.split_at_checked(SECRET_BYTES).ok_or_else(cut)?;
        let secret = InvitationSecret::from_bytes(secret).ok_or_else(cut)?;
        let authority = Fingerprint(authority.try_into().map_err(|_| cut())?);
        let nodes: Result<Vec<SocketAddr>, _> = nodes.split(',').take(MAX_NODES + 1).map(str::parse).collect();
        let nodes =
            nodes.map_err(|_| refused("after the \"@\" there are addresses IP:PORT, with commas between them"))?;
        if nodes.len() > MAX_NODES {
            return Err(refused("it names more than five nodes"));
        }
        Ok(Self { secret, authority, nodes })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use proptest::prelude::*;

    use super::*;

    fn token() -> InvitationToken {
        let nodes = vec!["10.0.0.1:5057".parse().unwrap(), "[fd00::7]:6000".parse().unwrap()];
        let secret = InvitationSecret([0xa7; SECRET_BYTES]);
        InvitationToken { secret, authority: Fingerprint([0x11; 16]), nodes }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_never_printed_by_accident() {
        let text = token().reveal();
        assert_eq!(format!(" {text}\n").parse::<InvitationToken>().unwrap(), token());
        assert!(InvitationToken::is_meant_by(&text) && !InvitationToken::is_meant_by("10.0.0.1"));
        let debug = format!("{:?}", token());
        assert!(!debug.contains("a7") && !debug.contains("167"), "{debug}");
    }

    #[test]
    fn a_damaged_token_is_refused_with_the_reason() {
        let text = token().reveal();
        let damaged = [
            ("", "begin"),
            (text.split('@').next().unwrap(), "\"@\""),
            (&text.replace('@', "A@"), "whole"),
            (&text.replacen("p6en", "p6e", 1), "whole"),
            (&text.replace("10.0.0.1:5057", "node-a:5057"), "IP:PORT"),
            (&format!("{text}{}", ",10.0.0.1:1".repeat(4)), "five"),
        ];
        for (text, reason) in damaged {
            let error = text.parse::<InvitationToken>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_is_read_that_nobody_else_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, format!("{}\n", token().reveal())).unwrap();
        for (mode, is_read) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match InvitationToken::load(&path) {
                Ok(read) => assert!(is_read && read == token(), "{mode:o}"),
                Err(IdentityError::TooOpen { .. }) => assert!(!is_read, "{mode:o}"),
                Err(other) => panic!("{mode:o}: {other}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "(chordfs-invite-)?[A-Za-z0-9_@:,.\\[\\]-]{0,90}") {
            let _ = text.parse::<InvitationToken>();
        }
    }
}
