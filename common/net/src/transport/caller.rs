//! The other end of a connection that this process accepted.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use chordfs_identity::{CertifiedIdentity, Role};
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// For as long a caller may stay that comes with an expired certificate: it renews it.
const RENEWAL: Duration = Duration::from_secs(30);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub enum RemoteCaller {
    /// Anyone: the ring has no identities.
    Unchecked,
    /// The owner of a certificate of this ring.
    Certified(Arc<CertifiedIdentity>),
    /// An encrypted connection, on which no certificate was shown.
    Unknown,
    /// A plain connection from a network from which the operator allows them.
    Plain,
}

impl RemoteCaller {
    /// Returns when the caller's certificate has expired: its connection ends then, so that the next one shows the
    /// certificate that it has by then. Never returns for callers without one.
    pub async fn expired(&self) {
        match self {
            Self::Certified(owner) => {
                while let Ok(left) = owner.expires.duration_since(SystemTime::now()) {
                    // The clock may be set meanwhile.
                    sleep(left.min(LOOK_EVERY)).await;
                }
            }
            Self::Unchecked | Self::Unknown | Self::Plain => std::future::pending().await,
        }
    }

    /// Like [`Self::expired`], but a caller that comes with an expired certificate gets some time to renew it.
    pub async fn expired_or_renewed(&self) {
        match self {
            Self::Certified(owner) if owner.expires <= SystemTime::now() => sleep(RENEWAL).await,
            _ => self.expired().await,
        }
    }

    /// The role of a caller whose certificate is valid at `now`. A connection may outlive the certificate that it began
    /// with.
    pub fn role(&self, now: SystemTime) -> Option<Role> {
        match self {
            Self::Certified(owner) if now < owner.expires => Some(owner.identity.role),
            Self::Certified(_) | Self::Unchecked | Self::Unknown | Self::Plain => None,
        }
    }
}
