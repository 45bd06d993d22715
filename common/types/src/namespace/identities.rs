//! What the namespace knows of identities: who is invited, and whom the ring has let in.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::{EntryName, Time};
use crate::{
    chunk::NameError,
    identity::{Identity, IdentityId},
};

/// Invitations that are open at a time.
pub const MAX_INVITATIONS: usize = 1024;
/// Identities that the ring remembers: those whose certificates are valid or may be renewed.
pub const MAX_IDENTITIES: usize = 16384;

/// The SHA-256 of an invitation's secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InvitationHash(pub [u8; 32]);

impl fmt::Debug for InvitationHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("...")
    }
}

/// The SHA-256 of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 32]);

/// A newcomer who may come in once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The newcomer's identity.
    pub identity: Identity,
    /// By which it is recognized.
    pub hash: InvitationHash,
    /// Useless from then on.
    pub expires: Time,
}

/// An identity that the ring has let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownIdentity {
    /// As its certificates say.
    pub identity: Identity,
    /// The key of its newest certificate.
    pub key: KeyHash,
    /// When it was let in.
    pub since: Time,
    /// When its newest certificate expires.
    pub expires: Time,
    /// The invitation that it has used.
    pub invitation: Option<InvitationHash>,
    /// No node lets it in any longer.
    pub revoked: bool,
}

/// Why somebody gets a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmissionReason {
    /// Is invited, and uses the invitation up. The same key may use it again, if the first answer was lost.
    Invited(InvitationHash),
    /// An operator answers for a new identity, or for one that renews its certificate.
    Vouched(Identity),
    /// Has a certificate and gets the next one.
    Renewed(IdentityId),
}

/// The names on the way from the root to the folder to which an identity is bound, if it is.
pub fn folder_of(identity: &Identity) -> Result<Option<Vec<EntryName>>, NameError> {
    identity.path.as_deref().map(path_names).transpose()
}

/// The names on the way from the root along a path.
pub fn path_names(path: &str) -> Result<Vec<EntryName>, NameError> {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.map(|name| EntryName::new(name.to_owned())).collect()
}
