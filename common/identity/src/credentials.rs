//! A private key, its certificate, and the certificate of the authority that issued it, which its owner trusts.
//!
//! One file keeps them, in PEM: the certificate, the authority's certificate, the key. It is for its owner alone.

use std::path::Path;

use pem::Pem;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{authority::Fingerprint, error::IdentityError, identity::CertifiedIdentity, secret_file};

/// A key that has no certificate yet.
pub struct NewKey(KeyPair);

impl NewKey {
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(make)
    }

    /// The request for a certificate, PKCS #10 in DER. It names nobody: the authority decides who its sender is.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0).map_err(make)?.der().to_vec())
    }

    /// Puts the key and the certificate that was issued for it together.
    pub fn certified(&self, certificate: &[u8], authority: &[u8]) -> Result<Credentials, IdentityError> {
        let key = PrivateKeyDer::try_from(self.0.serialize_der());
        let key = key.map_err(|reason| IdentityError::Make { reason: reason.into() })?;
        Credentials::new(certificate.to_vec().into(), authority.to_vec().into(), key)
    }
}

pub struct Credentials {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) owner: CertifiedIdentity,
}

impl Credentials {
    fn new(
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let owner = CertifiedIdentity::of(&certificate)?;
        Ok(Self { certificate, authority, key, owner })
    }

    /// The owner, as the certificate says.
    pub fn owner(&self) -> &CertifiedIdentity {
        &self.owner
    }

    /// The authority's certificate in DER.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    pub fn authority_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    /// Reads the file. Refuses one that others may read: the key in it is no secret.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let missing = |missing| IdentityError::Incomplete { path: path.to_owned(), missing };
        let text = secret_file::read(path)?;
        let mut certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
        let certificate = certificates.next().ok_or_else(|| missing("certificate"))?;
        let authority = certificates.next().ok_or_else(|| missing("certificate of the ring"))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| missing("private key"))?;
        Self::new(certificate, authority, key)
    }

    /// Replaces the file durably. At no moment can another user read it.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let certificate = |der: &CertificateDer| Pem::new("CERTIFICATE", der.to_vec());
        let key = Pem::new("PRIVATE KEY", self.key.secret_der().to_vec());
        secret_file::replace(path, &[certificate(&self.certificate), certificate(&self.authority), key])
    }
}

fn make(error: rcgen::Error) -> IdentityError {
    IdentityError::Make { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        time::{Duration, SystemTime},
    };

    use chordfs_types::identity::Role;

    use super::*;
    use crate::{
        authority::{CertificateAuthority, Validity},
        identity::new_identity,
    };

    fn credentials() -> Credentials {
        let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
        let key = NewKey::generate().unwrap();
        let identity = new_identity(Role::Client, "Anna's laptop", Some("/projects")).unwrap();
        let validity = Validity::starting(SystemTime::now(), Duration::from_secs(3600));
        let certificate = authority.issue(&key.request().unwrap(), &identity, validity).unwrap();
        key.certified(&certificate, authority.certificate()).unwrap()
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let (first, second) = (credentials(), credentials());
        first.save(&path).unwrap();
        second.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Credentials::load(&path).unwrap();
        assert_eq!(read.owner(), second.owner());
        assert_eq!(read.authority_fingerprint(), second.authority_fingerprint());
        assert_eq!(read.key, second.key);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Credentials::load(&path), Err(IdentityError::TooOpen { .. })));
    }

    #[test]
    fn a_file_that_lacks_a_part_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        credentials().save(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let parts: Vec<&str> = whole.split_inclusive("-----\n").collect();
        for (kept, missing) in [(0, "certificate"), (2, "certificate of the ring"), (4, "private key")] {
            fs::write(&path, parts[..kept].concat()).unwrap();
            let error = Credentials::load(&path).err().unwrap().to_string();
            assert!(error.contains(&format!("has no {missing};")), "{error}");
        }
    }
}
