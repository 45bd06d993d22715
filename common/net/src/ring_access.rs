//! How a program that is no node connects to a ring: a mount, or a command.
//!
//! Where the ring has identities, the program has a certificate. It has one from before, because its user was invited
//! (`identity_store`); or it uses an invitation now; or it obtains one, for its own life, by what its user may do
//! anyway: read the files of a node on this machine, and with them an operator's token.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use chordfs_identity::{CertifiedIdentity, Credentials, InvitationToken, MAX_NAME_BYTES, NewKey, Role, Tls};
use chordfs_log::{info_limited, warn_limited};
use chordfs_types::{
    chunk::NameError,
    namespace::{EntryName, folder_of},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    identity_client::{ObtainError, Proof, obtain},
    identity_store::{self, StoredIdentity},
    operator_token::find_local_node,
    transport::{Connector, TlsProbe, probe_tls},
};

const DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for a ring that is starting.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// A machine that slept may find its certificate expired.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone)]
pub struct RingAccess {
    connector: Connector,
    certified: Option<Certified>,
}

#[derive(Clone)]
struct Certified {
    tls: Tls,
    owner: CertifiedIdentity,
    /// Where the identity is kept; `None`: it is in memory alone.
    file: Option<PathBuf>,
}

impl RingAccess {
    /// Connects without a certificate.
    pub fn plain() -> Self {
        Self { connector: Connector::Plain, certified: None }
    }

    fn with(credentials: &Credentials, file: Option<PathBuf>) -> Result<Self, ObtainError> {
        let (tls, owner) = (Tls::new(credentials)?, credentials.owner().clone());
        Ok(Self { connector: Connector::over(&tls), certified: Some(Certified { tls, owner, file }) })
    }

    /// Uses an identity from before. Its certificate is renewed first if it has expired.
    async fn stored(stored: &StoredIdentity, nodes: &[SocketAddr]) -> Result<Self, ObtainError> {
        let mut access = Self::with(&stored.credentials, Some(stored.path.clone()))?;
        if let Some(certified) = access.certified.as_mut().filter(|own| own.owner.expires <= SystemTime::now()) {
            certified.renew(&access.connector, nodes).await?;
        }
        Ok(access)
    }

    /// Uses an invitation, and keeps the identity that it gives. An identity of that ring from before is used instead.
    pub async fn accept(invitation: &InvitationToken, name: &str) -> Result<Self, ObtainError> {
        let stored = identity_store::all();
        let own = |stored: &&StoredIdentity| stored.credentials.authority_fingerprint() == invitation.authority;
        if let Some(known) = stored.iter().find(own) {
            return Self::stored(known, &invitation.nodes).await;
        }
        let pinned = Connector::pinned(invitation.authority)?;
        let (nodes, proof) = (&invitation.nodes, Proof::Invitation(invitation.secret));
        let credentials = obtain_patiently(&pinned, nodes, &proof, Role::Client, name).await?;
        let file = identity_store::keep(&credentials, nodes)?;
        Self::with(&credentials, Some(file))
    }

    /// Finds out how to connect to the ring of these nodes, which are ring addresses. `name` is for people.
    pub async fn find(nodes: &[SocketAddr], role: Role, name: &str) -> Result<Self, ObtainError> {
        let stored = identity_store::all();
        if let Some(known) = stored.iter().find(|stored| stored.knows_any_of(nodes)) {
            return Self::stored(known, nodes).await;
        }
        for local in nodes.iter().filter_map(|node| find_local_node(*node)) {
            // A file that cannot be read must not lead to a connection without encryption.
            let Some(authority) = local.authority? else { continue };
            let (pinned, proof) = (Connector::pinned(authority)?, Proof::Operator(local.token));
            let credentials = obtain_patiently(&pinned, nodes, &proof, role, name).await?;
            return Self::with(&credentials, None);
        }
        // Nodes of a ring that the user has joined may have other addresses by now.
        for other in stored {
            let access = Self::with(&other.credentials, Some(other.path.clone()))?;
            for node in nodes {
                if matches!(timeout(DEADLINE, access.connector.connect(*node)).await, Ok(Ok(_))) {
                    return Self::stored(&other, nodes).await;
                }
            }
        }
        if role == Role::Client {
            refuse_encrypted(nodes).await?;
        }
        Ok(Self::plain())
    }

    /// What this program may do; `None`: the ring has no identities.
    pub fn role(&self) -> Option<Role> {
        self.certified.as_ref().map(|certified| certified.owner.identity.role)
    }

    /// The folder above which this program sees nothing; empty: it sees everything.
    pub fn folder(&self) -> Result<Vec<EntryName>, NameError> {
        let folder = self.certified.as_ref().map(|certified| folder_of(&certified.owner.identity)).transpose()?;
        Ok(folder.flatten().unwrap_or_default())
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Renews the certificate in time, for ever. `nodes` returns ring addresses of nodes, the best one first.
    pub async fn keep_valid(self, nodes: impl Fn() -> Vec<SocketAddr>) {
        let Some(mut certified) = self.certified else { return };
        loop {
            if SystemTime::now() >= certified.owner.renew_at() {
                match certified.renew(&self.connector, &nodes()).await {
                    Ok(()) => info_limited!("renewed this program's certificate"),
                    Err(error) => warn_limited!(%error, "cannot renew this program's certificate yet"),
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Certified {
    async fn renew(&mut self, connector: &Connector, nodes: &[SocketAddr]) -> Result<(), ObtainError> {
        let (role, name) = (self.owner.identity.role, &self.owner.identity.name);
        let key = NewKey::generate()?;
        let obtained = obtain(connector, nodes, &key, &Proof::Certificate, role, name, DEADLINE).await?;
        self.tls.renew(&obtained.credentials)?;
        if let Some(file) = &self.file {
            obtained.credentials.save(file)?;
        }
        self.owner = obtained.credentials.owner().clone();
        Ok(())
    }
}

/// A mount without an identity can do nothing in a ring that has identities. Commands can: some calls need none.
async fn refuse_encrypted(nodes: &[SocketAddr]) -> Result<(), ObtainError> {
    for node in nodes {
        match probe_tls(*node).await {
            TlsProbe::Encrypted => return Err(ObtainError::NotInvited { node: *node }),
            TlsProbe::Plain => return Ok(()),
            TlsProbe::Unreachable => {}
        }
    }
    Ok(())
}

/// Waits for nodes that do not answer yet.
async fn obtain_patiently(
    connector: &Connector,
    nodes: &[SocketAddr],
    proof: &Proof,
    role: Role,
    name: &str,
) -> Result<Credentials, ObtainError> {
    let (end, name) = (Instant::now() + PATIENCE, &acceptable_name(name));
    let key = NewKey::generate()?;
    loop {
        match obtain(connector, nodes, &key, proof, role, name, DEADLINE).await {
            Ok(obtained) => return Ok(obtained.credentials),
            Err(error) if error.may_pass() && Instant::now() < end => sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// The name without what identities do not allow, such as the end of a very long path.
fn acceptable_name(name: &str) -> String {
    let mut acceptable: String = name.chars().filter(|character| !character.is_control()).collect();
    let end = (0..=MAX_NAME_BYTES.min(acceptable.len())).rev().find(|end| acceptable.is_char_boundary(*end));
    acceptable.truncate(end.unwrap_or(0));
    acceptable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_where_identities_end_it() {
        assert_eq!(acceptable_name("host:/mnt\n/ü"), "host:/mnt/ü");
        let long = "ü".repeat(100);
        assert_eq!(acceptable_name(&long), "ü".repeat(MAX_NAME_BYTES / 2));
    }
}
