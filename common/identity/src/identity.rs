//! What a certificate says of its owner.
//!
//! Certificates of nodes also have the DNS name [`NODE_NAME`], which every client asks for: so no other role can pass
//! for a node, whatever its address is.

use std::time::{Duration, SystemTime};

use chordfs_types::identity::{Identity, IdentityId, Role};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Error},
};

use crate::error::IdentityError;

/// The DNS name of every node.
pub(crate) const NODE_NAME: &str = "node.chordfs";

/// Makes an identity with a new number.
pub fn new_identity(role: Role, name: &str, path: Option<&str>) -> Result<Identity, IdentityError> {
    let id = IdentityId(rand::random());
    let identity = Identity { id, role, name: name.into(), path: path.map(Into::into) };
    identity.check().map_err(|reason| IdentityError::Foreign { reason })?;
    Ok(identity)
}

/// What a certificate says. The caller has verified, or lets TLS verify, that the ring's authority signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedIdentity {
    pub identity: Identity,
    pub begins: SystemTime,
    pub expires: SystemTime,
}

impl CertifiedIdentity {
    /// Reads a certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, IdentityError> {
        let unreadable = |reason: String| IdentityError::Certificate { reason };
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| unreadable(error.to_string()))?;
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|error: X509Error| unreadable(error.to_string()))?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let identity = match (uris.next(), uris.next()) {
            (Some(uri), None) => Identity::from_uri(uri).map_err(|reason| IdentityError::Foreign { reason })?,
            _ => return Err(IdentityError::Foreign { reason: "it has not exactly one URI" }),
        };
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
        let validity = certificate.validity();
        let (begins, expires) = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
        Ok(Self { identity, begins, expires })
    }

    /// When the owner asks for the next certificate: two thirds of this one's time are over then.
    pub fn renew_at(&self) -> SystemTime {
        let length = self.expires.duration_since(self.begins).unwrap_or_default();
        self.begins + length * 2 / 3
    }
}
