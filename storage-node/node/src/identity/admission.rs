//! Where a node that starts has its identity from: its folder, itself if it begins a ring, or its ring.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use chordfs_identity::{Fingerprint, InvitationToken, NewKey, Role};
use chordfs_namespace::has_log;
use chordfs_net::{
    identity_client::{ObtainError, ObtainedIdentity, Proof, obtain},
    operator_token::find_local_node,
    transport::{Connector, PlainNetworks, TlsProbe, probe_tls},
};
use chordfs_store::DataFolder;
use chordfs_types::namespace::EntryName;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::folder::NodeIdentity;
use crate::driver::SavedRing;

/// Pause before the nodes of the ring are asked again, which may be starting, too.
const PAUSE: Duration = Duration::from_millis(200);
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// How often a node has to end a handshake before it counts as one that does not encrypt: one that stops ends it, too.
const SURE_AFTER: u32 = 3;

/// The identity of a node, and the connections that it takes without one.
#[derive(Clone, Debug, Default)]
pub struct SecurityConfig {
    /// The node works without an identity: in a test network, or in a ring that has begun so.
    pub insecure: bool,
    /// By which a node of another machine may join.
    pub invitation: Option<InvitationToken>,
    /// Networks from which plain connections are taken although the ring has identities.
    pub plain: PlainNetworks,
    /// The folder to which plain connections are bound, from the root down: its files are all that they read and
    /// change.
    pub plain_folder: Vec<EntryName>,
}

/// What decides where a node has its identity from.
pub(crate) struct Newcomer<'a> {
    pub folder: &'a DataFolder,
    pub address: SocketAddr,
    pub join: &'a [SocketAddr],
    /// It founds the namespace, though it joins the members that it was told of.
    pub founds: bool,
    pub security: &'a SecurityConfig,
    pub deadline: Duration,
}

/// Returns the identity of the node; `None` if its ring has none.
pub(crate) async fn identity_of(node: Newcomer<'_>) -> Result<Option<NodeIdentity>> {
    let Newcomer { folder, address, join, founds, security, deadline } = node;
    let (name, path) = (address.to_string(), folder.path().display());
    if let Some(identity) = NodeIdentity::load(folder.path(), &name)? {
        if security.insecure {
            bail!("{path} belongs to a ring with identities: start the node without --insecure, or use a new folder");
        }
        return Ok(Some(identity));
    }
    if !security.insecure && was_in_a_ring(folder).await? {
        if security.invitation.is_some() {
            bail!("{path} belongs to a ring without identities, and cannot join another one: use a new folder");
        }
        warn!(
            "{path} belongs to a ring without identities: nothing is encrypted, and whoever reaches the ports of this \
             node may read, change and delete everything. To say that this is meant, start it with --insecure"
        );
        return Ok(None);
    }
    if security.insecure {
        warn!(
            "--insecure: nothing is encrypted, and whoever reaches the ports of this node may read, change and delete \
             everything"
        );
        return Ok(None);
    }
    if join.is_empty() || (founds && security.invitation.is_none()) {
        info!("this node begins a ring with identities");
        return Ok(Some(NodeIdentity::found(folder.path(), &name)?));
    }
    let obtained = obtain_patiently(join, security.invitation.as_ref(), &name, deadline).await?;
    info!(owner = obtained.credentials.owner().identity.id.to_string(), "the ring has let this node in");
    Ok(Some(NodeIdentity::adopt(folder.path(), &obtained)?))
}

async fn was_in_a_ring(folder: &DataFolder) -> Result<bool> {
    let saved = SavedRing::read(folder.path()).await?;
    Ok(has_log(folder.path()) || saved.is_some_and(|saved| saved.settled))
}

async fn obtain_patiently(
    join: &[SocketAddr],
    invitation: Option<&InvitationToken>,
    name: &str,
    deadline: Duration,
) -> Result<ObtainedIdentity> {
    let (end, key) = (Instant::now() + deadline, NewKey::generate()?);
    let mut plain_answers = 0;
    loop {
        if invitation.is_none()
            && let Some(node) = plain_node(join).await
        {
            plain_answers += 1;
            if plain_answers == SURE_AFTER {
                bail!(
                    "{node} does not encrypt: its ring has no identities, and this node would have to be started with \
                     --insecure. If it is a foreign Chord node, name a storage node of the ring, or start this one by an \
                     invitation or, for the first storage node of that ring, with --found-namespace"
                );
            }
        }
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

/// One of the nodes that does not encrypt. A node that was not told otherwise joins no ring without identities.
async fn plain_node(join: &[SocketAddr]) -> Option<SocketAddr> {
    for node in join {
        if probe_tls(*node).await == TlsProbe::Plain {
            return Some(*node);
        }
    }
    None
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
