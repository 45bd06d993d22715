//! How a client knows that a server is a node of its ring, and a server that a client is of its ring.
//!
//! Certificates and signatures are for webpki to check. Only two things are replaced. The name that a server's
//! certificate has to have is always that of nodes, whatever address the client has dialled. And a client's certificate
//! may have expired: its owner may do nothing with it but renew it, which a machine that slept for long has to.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{refused, roots};
use crate::{
    authority::Fingerprint,
    error::IdentityError,
    identity::{CertifiedIdentity, NODE_NAME},
};

fn node_name() -> ServerName<'static> {
    ServerName::try_from(NODE_NAME).expect("it is a DNS name")
}

#[derive(Debug)]
pub(super) struct NodeVerifier {
    ring: KnownRing,
    provider: Arc<CryptoProvider>,
}

/// By what the client knows its ring.
#[derive(Debug)]
enum KnownRing {
    Authority(Arc<WebPkiServerVerifier>),
    /// The fingerprint of the authority's certificate, which is the last of the server's chain.
    Fingerprint(Fingerprint),
}

impl NodeVerifier {
    pub(super) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Self, IdentityError> {
        let ring = KnownRing::Authority(webpki(roots, &provider)?);
        Ok(Self { ring, provider })
    }

    pub(super) fn pinned(authority: Fingerprint, provider: Arc<CryptoProvider>) -> Self {
        Self { ring: KnownRing::Fingerprint(authority), provider }
    }

    fn webpki_for(&self, chain: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let pinned = match &self.ring {
            KnownRing::Authority(verifier) => return Ok(verifier.clone()),
            KnownRing::Fingerprint(pinned) => *pinned,
        };
        let authority = chain.last().filter(|authority| Fingerprint::of(authority) == pinned);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let roots = roots(&authority.clone().into_owned()).map_err(|error| Error::General(error.to_string()))?;
        webpki(Arc::new(roots), &self.provider).map_err(|error| Error::General(error.to_string()))
    }
}

fn webpki(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, IdentityError> {
    WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().map_err(refused)
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.webpki_for(chain)?.verify_server_cert(certificate, chain, &node_name(), ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes certificates of this ring that are valid or were once. The server looks at the time before each call.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.0.verify_client_cert(certificate, chain, now) {
            Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                let then = began(certificate).ok_or(Error::InvalidCertificate(CertificateError::Expired))?;
                self.0.verify_client_cert(certificate, chain, then)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// When the certificate became valid.
fn began(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let owner = CertifiedIdentity::of(certificate).ok()?;
    owner.begins.duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
}
