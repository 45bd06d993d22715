//! The ring's authority and this node's certificate, in the data folder.
//!
//! ```text
//! DATA/identity/authority.pem   the authority's certificate and private key
//! DATA/identity/node.pem        this node's certificate, the authority's certificate, this node's private key
//! ```
//! Both are for the node's user alone. The private keys are made here and never change their machine, but for the
//! authority's, which every node of the ring has.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use chordfs_files::create_folder_durably;
use chordfs_identity::{
    CertificateAuthority, CertifiedIdentity, Credentials, Identity, IdentityError, NewKey, Role, Tls, Validity,
    new_identity,
};
use chordfs_log::{info_limited, warn_limited};
use chordfs_net::{clients::NamespaceClient, identity_client::ObtainedIdentity, operator_token::authority_path};
use chordfs_store::DataFolder;
use chordfs_types::{
    fs_error::FsError,
    namespace::{AdmissionReason, Change, KeyHash, Reply},
};
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const FOLDER_MODE: u32 = 0o700;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A certificate is renewed when two thirds of its time are over. So a machine may be off for a month.
pub(super) const LIFETIME: Duration = DAY.saturating_mul(90);
const LOOK_EVERY: Duration = Duration::from_secs(600);
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(5);

pub(crate) struct NodeIdentity {
    path: PathBuf,
    authority: CertificateAuthority,
    tls: Tls,
    owner: Mutex<CertifiedIdentity>,
}

impl NodeIdentity {
    /// Reads what the folder has; `None` if it has no identity.
    pub(crate) fn load(data: &Path, name: &str) -> Result<Option<Self>> {
        let (path, authority_path) = (node_path(data), authority_path(data));
        if !authority_path.try_exists().context("the ring's authority")? {
            return Ok(None);
        }
        let authority = CertificateAuthority::load(&authority_path).context("the ring's authority")?;
        if !path.try_exists().context("this node's identity")? {
            // A crash came between the two files.
            return Self::by_authority(data, name, authority).map(Some);
        }
        let credentials = Credentials::load(&path).context("this node's identity")?;
        Ok(Some(Self::new(path, authority, &credentials)?))
    }

    /// Makes the authority of a new ring, and its first identity.
    pub(crate) fn found(data: &Path, name: &str) -> Result<Self> {
        Self::by_authority(data, name, CertificateAuthority::create(SystemTime::now())?)
    }

    fn by_authority(data: &Path, name: &str, authority: CertificateAuthority) -> Result<Self> {
        let credentials = certify(&authority, &new_identity(Role::Node, name, None)?)?;
        Self::keep(data, authority, &credentials)
    }

    /// Keeps the identity that a node of the ring has issued to this one.
    pub(crate) fn adopt(data: &Path, obtained: &ObtainedIdentity) -> Result<Self> {
        let ObtainedIdentity { credentials, authority_key } = obtained;
        let key = authority_key.as_ref().context("the ring has issued a certificate that is not one of a node")?;
        let authority = CertificateAuthority::from_parts(credentials.authority(), key)?;
        Self::keep(data, authority, credentials)
    }

    fn keep(data: &Path, authority: CertificateAuthority, credentials: &Credentials) -> Result<Self> {
        let path = node_path(data);
        create_folder_durably(path.parent().expect("it is in a folder"), FOLDER_MODE)?;
        // The authority comes first: who has it can make the rest anew.
        authority.save(&authority_path(data))?;
        credentials.save(&path)?;
        Self::new(path, authority, credentials)
    }

    fn new(path: PathBuf, authority: CertificateAuthority, credentials: &Credentials) -> Result<Self> {
        let (tls, owner) = (Tls::new(credentials)?, Mutex::new(credentials.owner().clone()));
        let identity = Self { path, authority, tls, owner };
        identity.renew_if_due(SystemTime::now())?;
        Ok(identity)
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(crate) fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// The identity of this node.
    pub(crate) fn owner(&self) -> CertifiedIdentity {
        self.owner.lock().clone()
    }

    fn renew_if_due(&self, now: SystemTime) -> Result<bool, IdentityError> {
        let owner = self.owner.lock().clone();
        if now < owner.renew_at() {
            return Ok(false);
        }
        let credentials = certify(&self.authority, &owner.identity)?;
        credentials.save(&self.path)?;
        self.tls.renew(&credentials)?;
        *self.owner.lock() = credentials.owner().clone();
        Ok(true)
    }

    /// Renews the certificate in time, and has the namespace list this node, until the node stops.
    pub(crate) async fn keep_valid(self: Arc<Self>, namespace: Arc<dyn NamespaceClient>, stop: CancellationToken) {
        let mut listed = None;
        loop {
            let this = self.clone();
            let renewed = tokio::task::spawn_blocking(move || this.renew_if_due(SystemTime::now())).await;
            match renewed {
                Ok(Ok(true)) => info_limited!("renewed this node's certificate"),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => warn_limited!(%error, "cannot renew this node's certificate"),
            }
            let owner = self.owner();
            if listed.as_ref() != Some(&owner) {
                match list(&*namespace, &owner).await {
                    Ok(_) => listed = Some(owner),
                    Err(error) => tracing::debug!(%error, "the namespace does not list this node's identity yet"),
                }
            }
            let pause = if listed.is_some() { LOOK_EVERY } else { LIST_AGAIN_AFTER };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

/// Gives the node that will run with this data folder an identity in the ring of `authority`, unless it has one. For
/// platforms that bring the authority to the machine. Returns what the node shows others.
pub fn take_authority(data: &Path, address: SocketAddr, authority: CertificateAuthority) -> Result<Tls> {
    let (folder, name) = (DataFolder::open(data)?, address.to_string());
    let present = NodeIdentity::load(folder.path(), &name)?;
    let own = match present.filter(|own| own.authority.fingerprint() == authority.fingerprint()) {
        Some(own) => own,
        None => NodeIdentity::by_authority(folder.path(), &name, authority)?,
    };
    Ok(own.tls)
}

/// The key of a node that renews its own certificate is not known to the namespace, and nobody asks for it.
async fn list(namespace: &dyn NamespaceClient, owner: &CertifiedIdentity) -> Result<Reply, FsError> {
    let (admission, expires) = (AdmissionReason::Vouched(owner.identity.clone()), owner.expires.into());
    namespace.apply(Change::Admit { admission, key: KeyHash([0; 32]), expires }).await
}

fn certify(authority: &CertificateAuthority, identity: &Identity) -> Result<Credentials, IdentityError> {
    let key = NewKey::generate()?;
    let certificate = authority.issue(&key.request()?, identity, Validity::starting(SystemTime::now(), LIFETIME))?;
    key.certified(&certificate, authority.certificate())
}

fn node_path(data: &Path) -> PathBuf {
    data.join("identity").join("node.pem")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_stays_is_for_its_owner_alone_and_is_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        assert!(NodeIdentity::load(folder.path(), "node-a").unwrap().is_none());
        let founded = NodeIdentity::found(folder.path(), "node-a").unwrap();
        let loaded = NodeIdentity::load(folder.path(), "node-a").unwrap().unwrap();
        assert_eq!(*loaded.owner.lock(), *founded.owner.lock());
        assert_eq!(loaded.authority.fingerprint(), founded.authority.fingerprint());
        for (name, mode) in [("", 0o700), ("node.pem", 0o600), ("authority.pem", 0o600)] {
            let path = folder.path().join("identity").join(name);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        let now = SystemTime::now();
        assert!(!loaded.renew_if_due(now + 50 * DAY).unwrap());
        let before = loaded.owner.lock().clone();
        assert!(loaded.renew_if_due(now + 61 * DAY).unwrap());
        let after = loaded.owner.lock().clone();
        assert_eq!(after.identity, before.identity, "it is still the same node");
        assert!(after.expires >= before.expires);
        assert_eq!(*NodeIdentity::load(folder.path(), "node-a").unwrap().unwrap().owner.lock(), after);
        std::fs::remove_file(node_path(folder.path())).unwrap();
        let anew = NodeIdentity::load(folder.path(), "node-a").unwrap().expect("it is still a node of this ring");
        assert_eq!(anew.authority.fingerprint(), founded.authority.fingerprint());
    }

    #[test]
    fn the_nodes_to_which_an_authority_is_brought_are_of_one_ring() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [one, two] = [&folders[0], &folders[1]].map(|folder| folder.path());
        let address = |number| SocketAddr::from(([10, 0, 0, number], 5057));
        let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
        let carried = CertificateAuthority::from_pem(authority.to_pem().as_bytes(), Path::new("the secret")).unwrap();
        let again = CertificateAuthority::from_pem(authority.to_pem().as_bytes(), Path::new("the secret")).unwrap();
        take_authority(one, address(1), authority).unwrap();
        take_authority(two, address(2), carried).unwrap();
        let identity = |folder: &Path| NodeIdentity::load(folder, "unused").unwrap().unwrap();
        assert_eq!(identity(one).authority.fingerprint(), identity(two).authority.fingerprint());
        assert_ne!(identity(one).owner().identity.id, identity(two).owner().identity.id);
        let before = identity(one).owner();
        take_authority(one, address(1), again).unwrap();
        assert_eq!(identity(one).owner(), before, "it has one");
        let other = CertificateAuthority::create(SystemTime::now()).unwrap();
        let begun_anew = other.fingerprint();
        take_authority(one, address(1), other).unwrap();
        assert_eq!(identity(one).authority.fingerprint(), begun_anew);
    }

    #[test]
    fn a_folder_whose_keys_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        NodeIdentity::found(folder.path(), "node-a").unwrap();
        let path = authority_path(folder.path());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", NodeIdentity::load(folder.path(), "node-a").err().unwrap());
        assert!(error.contains("chmod 600"), "{error}");
    }
}
