//! Where a node that starts has its identity from: its folder, itself if it begins a ring, or its ring.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use chordfs_identity::{Fingerprint, InvitationToken, NewKey, Role};
use chordfs_namespace::has_log;
use chordfs_net::{
    identity_client::{ObtainError, ObtainedIdentity, Proof, obtain},
    operator_token::find_local_node,
    transport::{Connector, PlainNetworks},
};
use chordfs_store::DataFolder;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::folder::NodeIdentity;

/// Pause before the nodes of the ring are asked again, which may be starting, too.
const PAUSE: Duration = Duration::from_millis(200);
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);

/// The identity of a node, and the connections that it takes without one.
#[derive(Clone, Debug, Default)]
pub struct SecurityConfig {
    /// The ring has identities: a new one makes its authority, and a node that joins gets a certificate. A folder that
    /// has an identity already keeps it.
    pub identities: bool,
    /// By which a node of another machine may join.
    pub invitation: Option<InvitationToken>,
    /// Networks from which plain connections are taken although the ring has identities.
    pub plain: PlainNetworks,
}

/// Returns the identity of the node with this folder; `None` if its ring has none.
pub(crate) async fn identity_of(
    folder: &DataFolder,
    address: SocketAddr,
    join: &[SocketAddr],
    security: &SecurityConfig,
    deadline: Duration,
) -> Result<Option<NodeIdentity>> {
    let name = address.to_string();
    if let Some(identity) = NodeIdentity::load(folder.path(), &name)? {
        return Ok(Some(identity));
    }
    if !security.identities && security.invitation.is_none() {
        return Ok(None);
    }
    if join.is_empty() {
        if has_log(folder.path()) {
            bail!(
                "{} belongs to a ring without identities: start it without --tls, or use a new folder",
                folder.path().display()
            );
        }
        info!("this node begins a ring with identities");
        return Ok(Some(NodeIdentity::found(folder.path(), &name)?));
    }
    let obtained = obtain_patiently(join, security.invitation.as_ref(), &name, deadline).await?;
    info!(owner = obtained.credentials.owner().identity.id.to_string(), "the ring has let this node in");
    Ok(Some(NodeIdentity::adopt(folder.path(), &obtained)?))
}

async fn obtain_patiently(
    join: &[SocketAddr],
    invitation: Option<&InvitationToken>,
    name: &str,
    deadline: Duration,
) -> Result<ObtainedIdentity> {
    let (end, key) = (Instant::now() + deadline, NewKey::generate()?);
    loop {
        let outcome = match proof(join, invitation)? {
            Some((authority, proof)) => {
                let pinned = Connector::pinned(authority)?;
                obtain(&pinned, join, &key, &proof, Role::Node, name, ATTEMPT_DEADLINE).await
            }
            None => Err(ObtainError::NoNode),
        };
        match outcome {
            Ok(obtained) => return Ok(obtained),
            Err(error) if error.may_pass() && Instant::now() < end => {
                tracing::debug!(%error, "the ring does not let this node in yet");
                sleep(PAUSE).await;
            }
            Err(ObtainError::NoNode) => bail!(
                "this node may not join: none of the nodes to join runs on this machine under a user whose files this \
                 one may read, and it was not invited: `storage-node invite --role node` there prints a token"
            ),
            Err(error) => return Err(error).context("this node may not join"),
        }
    }
}

/// The ring's fingerprint, and why this node may join: it was invited, or its user may read the files of one of the
/// nodes.
fn proof(join: &[SocketAddr], invitation: Option<&InvitationToken>) -> Result<Option<(Fingerprint, Proof)>> {
    if let Some(token) = invitation {
        return Ok(Some((token.authority, Proof::Invitation(token.secret))));
    }
    for local in join.iter().filter_map(|node| find_local_node(*node)) {
        if let Some(authority) = local.authority? {
            return Ok(Some((authority, Proof::Operator(local.token))));
        }
    }
    Ok(None)
}
