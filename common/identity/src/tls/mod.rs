//! TLS 1.3 between owners of certificates.
//!
//! A server asks its clients for a certificate and also takes those without one, because a newcomer has none yet, and
//! those whose certificate has expired, because they renew it: who may make which call is for the table of calls. A client accepts only nodes of its ring, at any address, because
//! addresses change and identities do not. No other version of TLS is offered or taken.

mod own_certificate;
mod verifier;

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    ClientConfig, CommonState, RootCertStore, ServerConfig,
    crypto::{
        CryptoProvider,
        ring::{Ticketer, cipher_suite, default_provider},
    },
    pki_types::CertificateDer,
    server::WebPkiClientVerifier,
    version::TLS13,
};

use self::{
    own_certificate::OwnCertificate,
    verifier::{ClientVerifier, NodeVerifier},
};
use crate::{authority::Fingerprint, credentials::Credentials, error::IdentityError, identity::CertifiedIdentity};

/// What a process needs for its TLS connections to one ring. Cheap to clone; the clones share the certificate.
#[derive(Clone, Debug)]
pub struct Tls(Arc<TlsParts>);

#[derive(Debug)]
struct TlsParts {
    own: Arc<OwnCertificate>,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
    client: RwLock<Arc<ClientConfig>>,
}

impl Tls {
    pub fn new(credentials: &Credentials) -> Result<Self, IdentityError> {
        let provider = Arc::new(provider());
        let own = Arc::new(OwnCertificate::new(credentials, provider.clone())?);
        let roots = Arc::new(roots(&credentials.authority)?);
        let server = Arc::new(server_config(&provider, &roots, own.clone())?);
        let client = RwLock::new(Arc::new(client_config(&provider, &roots, own.clone())?));
        Ok(Self(Arc::new(TlsParts { own, provider, roots, server, client })))
    }

    /// Uses a renewed certificate for all later connections. It has to be of the same authority.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let TlsParts { own, provider, roots, client, .. } = &*self.0;
        own.replace(credentials)?;
        // With it go the sessions that may be resumed: a server knows a resumed one by the former certificate.
        *client.write() = Arc::new(client_config(provider, roots, own.clone())?);
        Ok(())
    }

    /// For the connections that this process accepts.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.0.server.clone()
    }

    /// For the next connection that this process makes. The name of a server only tells servers apart whose sessions are
    /// resumed, so it is the peer's address.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.0.client.read().clone()
    }
}

/// For a newcomer without a certificate: accepts any node of the ring whose authority has this fingerprint.
pub fn pinned_client(authority: Fingerprint) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(NodeVerifier::pinned(authority, provider.clone()));
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(refused)?;
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.enable_sni = false;
    Ok(config)
}

/// The owner of the other end of a connection after its handshake; `None`: it has shown no certificate.
pub fn peer_identity(connection: &CommonState) -> Result<Option<CertifiedIdentity>, IdentityError> {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    certificate.map(|certificate| CertifiedIdentity::of(certificate)).transpose()
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: Arc<OwnCertificate>,
) -> Result<ServerConfig, IdentityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = verifier.allow_unauthenticated().build().map_err(|error| refused(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider.clone());
    let config = config.with_protocol_versions(&[&TLS13]).map_err(refused)?;
    let mut config = config.with_client_cert_verifier(Arc::new(ClientVerifier(verifier))).with_cert_resolver(own);
    config.ticketer = Ticketer::new().map_err(refused)?;
    Ok(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: Arc<OwnCertificate>,
) -> Result<ClientConfig, IdentityError> {
    let verifier = Arc::new(NodeVerifier::new(roots.clone(), provider.clone())?);
    let config = ClientConfig::builder_with_provider(provider.clone());
    let config = config.with_protocol_versions(&[&TLS13]).map_err(refused)?;
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(own);
    config.enable_sni = false;
    Ok(config)
}

/// AES with 128 bits comes first, because it costs the least where processors have instructions for it.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    CryptoProvider { cipher_suites, ..default_provider() }
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(refused)?;
    Ok(roots)
}

fn refused(error: impl ToString) -> IdentityError {
    IdentityError::Tls { reason: error.to_string() }
}

#[cfg(test)]
mod tests;
