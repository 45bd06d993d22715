//! The ring's own certificate authority, made when the ring begins.
//!
//! Keys are ECDSA on P-256, because browsers accept no Ed25519. The authority's certificate is valid for 20 years; those
//! that it issues are short-lived and renewed by their owners.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

use chordfs_types::identity::{Identity, Role};
use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::{error::IdentityError, identity::NODE_NAME, secret_file};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const AUTHORITY_LIFETIME: Duration = YEAR.saturating_mul(20);
/// Certificates are valid from a while ago, because clocks differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3600);
/// A request for a certificate that is longer is not read. One of ours has about 300 bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub begins: SystemTime,
    pub expires: SystemTime,
}

impl Validity {
    /// From `now` on for `lifetime`, also at a peer whose clock is up to an hour late.
    pub fn starting(now: SystemTime, lifetime: Duration) -> Self {
        Self { begins: now - CLOCK_DIFFERENCE, expires: now + lifetime }
    }
}

/// The first half of the SHA-256 of an authority's certificate: long enough that nobody finds another certificate with
/// the same, and short enough for a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    pub fn of(certificate: &[u8]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(certificate)[..16]);
        Self(half)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Its key signs whatever identity its owner names, so it is worth as much as all the data of the ring.
pub struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes the authority of a new ring.
    pub fn create(now: SystemTime) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut params = CertificateParams::default();
        let Validity { begins, expires } = Validity::starting(now, AUTHORITY_LIFETIME);
        (params.not_before, params.not_after) = (begins.into(), expires.into());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(random_serial());
        // The name tells rings apart, for people and for clients that have certificates of several.
        params.distinguished_name = common_name(&format!("chordfs ring {:016x}", rand::random::<u64>()));
        let certificate = params.self_signed(&key).map_err(make)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Takes the parts that `certificate` and `key` return.
    pub fn from_parts(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let key = PrivatePkcs8KeyDer::from(key.to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(make)?;
        Ok(Self { certificate, issuer })
    }

    /// Takes the text that `to_pem` returns. `origin` is named in errors.
    pub fn from_pem(text: &[u8], origin: &Path) -> Result<Self, IdentityError> {
        let missing = |missing| IdentityError::Incomplete { path: origin.to_owned(), missing };
        let certificate = CertificateDer::from_pem_slice(text).map_err(|_| missing("certificate of the ring"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| missing("private key"))?;
        Self::from_parts(&certificate, key.secret_pkcs8_der())
    }

    /// Both parts as text: the certificate and the private key.
    pub fn to_pem(&self) -> String {
        pem::encode_many(&self.parts())
    }

    /// Reads the file with both parts. Refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        Self::from_pem(&secret_file::read(path)?, path)
    }

    /// Replaces the file durably. At no moment can another user read it.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        secret_file::replace(path, &self.parts())
    }

    fn parts(&self) -> [Pem; 2] {
        [Pem::new("CERTIFICATE", self.certificate.to_vec()), Pem::new("PRIVATE KEY", self.key())]
    }

    /// The certificate in DER, which everybody may know.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key as PKCS #8 in DER.
    pub fn key(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The SHA-256 of the key that signed `request`, a PKCS #10 request in DER.
    pub fn key_of(request: &[u8]) -> Result<[u8; 32], IdentityError> {
        Ok(Sha256::digest(parse_request(request)?.public_key.der_bytes()).into())
    }

    /// Issues a certificate for the key that signed `request`, a PKCS #10 request in DER. The request only proves that
    /// its sender has the key; everything that it asks for is ignored.
    pub fn issue(
        &self,
        request: &[u8],
        identity: &Identity,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let request = parse_request(request)?;
        let params = certificate_params(identity, validity)?;
        Ok(params.signed_by(&request.public_key, &self.issuer).map_err(make)?.der().clone())
    }
}

fn parse_request(request: &[u8]) -> Result<CertificateSigningRequestParams, IdentityError> {
    let refused = |reason: String| IdentityError::Request { reason };
    if request.len() > MAX_REQUEST_BYTES {
        return Err(refused(format!("{} bytes; at most {MAX_REQUEST_BYTES} are read", request.len())));
    }
    CertificateSigningRequestParams::from_der(&request.into()).map_err(|error| refused(error.to_string()))
}

fn certificate_params(identity: &Identity, validity: Validity) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (validity.begins.into(), validity.expires.into());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(random_serial());
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = common_name(&format!("{} {}", identity.role, identity.id));
    params.subject_alt_names = vec![SanType::URI(identity.to_uri().try_into().map_err(make)?)];
    if identity.role == Role::Node {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(SanType::DnsName(NODE_NAME.try_into().map_err(make)?));
    }
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn random_serial() -> SerialNumber {
    // A serial number is positive: its first bit is clear. A first byte of zero would be cut off.
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn make(error: rcgen::Error) -> IdentityError {
    IdentityError::Make { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::NewKey,
        identity::{CertifiedIdentity, new_identity},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_certificate_says_who_its_owner_is_and_until_when() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let authority = CertificateAuthority::create(now).unwrap();
        let authority = CertificateAuthority::from_parts(authority.certificate(), authority.key()).unwrap();
        let identity = new_identity(Role::ReadOnlyClient, "Büro 7 / Anna", Some("/a b/ü")).unwrap();
        let validity = Validity::starting(now, 24 * HOUR);
        let request = NewKey::generate().unwrap().request().unwrap();
        let certificate = authority.issue(&request, &identity, validity).unwrap();
        let read = CertifiedIdentity::of(&certificate).unwrap();
        assert_eq!((read.begins, read.expires), (validity.begins, validity.expires));
        assert_eq!(read.renew_at(), now - HOUR + (25 * HOUR) * 2 / 3);
        assert_eq!(read.identity, identity);
        assert!(CertifiedIdentity::of(authority.certificate()).is_err(), "the authority itself is nobody");
    }

    /// A part that is not signed, such as the algorithm's parameters, may be read as if it were not altered.
    #[test]
    fn no_alteration_of_a_request_gets_a_certificate_for_another_key() {
        let now = SystemTime::now();
        let authority = CertificateAuthority::create(now).unwrap();
        let identity = new_identity(Role::Client, "a", None).unwrap();
        let request = NewKey::generate().unwrap().request().unwrap();
        let issue = |request: &[u8]| authority.issue(request, &identity, Validity::starting(now, HOUR)).ok();
        let key_of = |certificate: CertificateDer| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
            certificate.public_key().raw.to_vec()
        };
        let key = key_of(issue(&request).unwrap());
        let mut refused = 0;
        for (at, bit) in (0..request.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut altered = request.clone();
            altered[at] ^= 1 << bit;
            match issue(&altered) {
                Some(certificate) => assert_eq!(key_of(certificate), key, "bit {bit} of byte {at}"),
                None => refused += 1,
            }
        }
        assert!(refused > request.len() * 7, "{refused} alterations of {} were refused", request.len() * 8);
        assert!([0, 1, request.len() - 1].into_iter().all(|cut| issue(&request[..cut]).is_none()));
    }
}
