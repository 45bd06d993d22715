//! `storage-node aws accept`: makes the user of this machine an operator of a group's ring.
//!
//! A user who may read the secret with the ring's authority can let in anybody. So that the ring lists the operator and
//! can revoke him, the authority only vouches for this program for some minutes; the program has a node invite the
//! user.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use chordfs_identity::{CertificateAuthority, Credentials, InvitationToken, NewKey, Role, Tls, Validity, new_identity};
use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool, ring_access::RingAccess, transport::Connector};
use chordfs_types::ring_id::NodeAddress;
use serde_json::json;

use super::{
    args::AwsSettings,
    cloud::Cloud,
    group_nodes::RING_PORT,
    plan::{group_of, this_machine},
    ring_authority::{parse_authority, secret_name},
};

const LIFETIME: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(10);

/// Returns the text to print.
pub async fn accept(settings: AwsSettings) -> Result<String> {
    let (cloud, identity) = this_machine(settings.asg.is_some()).await?;
    let group = group_of(&cloud, &settings, identity.as_ref()).await?;
    let secret = secret_name(&settings, &group);
    let Some(text) = cloud.secret(&secret).await? else {
        bail!(
            "there is no secret {secret}: no node of {group} has begun a ring with identities in this region and account"
        );
    };
    let authority = parse_authority(&secret, &text)?;
    let found = cloud.group(&group).await?.with_context(|| format!("there is no Auto Scaling group {group}"))?;
    let nodes: Vec<NodeAddress> =
        found.addresses().into_iter().map(|ip| SocketAddr::new(ip, RING_PORT).into()).collect();
    let name = format!("operator on {}", host_name());
    let token = invitation(&authority, &nodes, &name).await?;
    RingAccess::accept(&token, &name).await.context("the invitation")?;
    Ok(format!(
        "The ring of {group} has let this user in as operator. Commands find it by any of its nodes: --node {}\n",
        nodes[0]
    ))
}

async fn invitation(authority: &CertificateAuthority, nodes: &[NodeAddress], name: &str) -> Result<InvitationToken> {
    let tls = Tls::new(&credentials(authority, name)?)?;
    let client = AdminClient::new(Arc::new(HttpPool::over(Connector::over(&tls))), DEADLINE);
    let body = json!({"role": Role::Operator, "name": name, "path": null, "expires_seconds": LIFETIME.as_secs()});
    let mut failure = anyhow::anyhow!("no instance of the group is in service");
    for node in nodes {
        match client.invite(*node, &body).await {
            Ok(made) => {
                let token = made["token"].as_str().with_context(|| format!("{node} sent no token: {made}"))?;
                return Ok(token.parse()?);
            }
            Err(error) => failure = anyhow::Error::from(error).context(format!("{node} invites nobody")),
        }
    }
    Err(failure)
}

fn credentials(authority: &CertificateAuthority, name: &str) -> Result<Credentials> {
    let (key, identity) = (NewKey::generate()?, new_identity(Role::Operator, name, None)?);
    let validity = Validity::starting(SystemTime::now(), LIFETIME);
    let certificate = authority.issue(&key.request()?, &identity, validity)?;
    Ok(key.certified(&certificate, authority.certificate())?)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
