//! The certificate that this process shows, which is replaced when it is renewed.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::refused;
use crate::{credentials::Credentials, error::IdentityError};

#[derive(Debug)]
pub(super) struct OwnCertificate {
    key: RwLock<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
}

impl OwnCertificate {
    pub(super) fn new(credentials: &Credentials, provider: Arc<CryptoProvider>) -> Result<Self, IdentityError> {
        let key = RwLock::new(certified_key(credentials, &provider)?);
        Ok(Self { key, provider })
    }

    pub(super) fn replace(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let key = certified_key(credentials, &self.provider)?;
        *self.key.write() = key;
        Ok(())
    }
}

/// The chain ends with the authority's certificate, by which a newcomer recognizes the ring.
fn certified_key(credentials: &Credentials, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = vec![credentials.certificate.clone(), credentials.authority.clone()];
    let key = CertifiedKey::from_der(chain, credentials.key.clone_key(), provider);
    key.map(Arc::new).map_err(refused)
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().clone())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
