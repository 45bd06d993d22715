//! The command-line options that name a node and an operator's token, and the client for the node's administration
//! plane.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use chordfs_identity::Role;
use chordfs_net::{
    admin_client::AdminClient,
    http_pool::HttpPool,
    operator_token::{find_token, read_token},
    ring_access::RingAccess,
    transport::{Connector, TlsProbe, probe_tls},
};
use chordfs_types::ring_id::NodeAddress;
use clap::Args;

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Copy, Debug)]
pub struct NodeArg {
    /// A running node [IP:PORT of its ring plane, or IP for port 5057]
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5057", value_parser = ring_address)]
    node: SocketAddr,
}

impl NodeArg {
    pub fn address(self) -> NodeAddress {
        NodeAddress(self.node)
    }
}

/// The options of a command that changes something, and so needs the operator's token.
#[derive(Args, Clone, Debug)]
pub struct OperatorArg {
    #[command(flatten)]
    node: NodeArg,
    /// The file with the operator's token, which lies in the data folder of any node of the ring [default: that of the
    /// node, if it runs on this machine and you may read it]
    #[arg(long, value_name = "FILE", env = "CHORDFS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl OperatorArg {
    pub fn address(&self) -> NodeAddress {
        self.node.address()
    }

    /// A client that sends the token, if there is one: a node that needs it says so.
    pub(crate) async fn client(&self) -> anyhow::Result<AdminClient> {
        let token = match &self.token_file {
            Some(file) => Some(read_token(file).context("the operator's token")?),
            None => find_token(self.node.node),
        };
        let connector = connector(self.address()).await?;
        let is_far = !self.node.node.ip().is_loopback() && find_token(self.node.node).is_none();
        let is_in_clear = token.is_some() && is_far && !connector.is_encrypted();
        if is_in_clear && probe_tls(self.address().ring()).await == TlsProbe::Encrypted {
            bail!(
                "the ring of {} has identities, and this user has none in it: the operator's token would travel without \
                 encryption. On a node's machine run `storage-node invite --role operator`, and here `storage-node accept`",
                self.node.node
            );
        }
        Ok(client_over(connector, DEADLINE).with_token(token))
    }
}

pub fn ring_address(text: &str) -> Result<SocketAddr, String> {
    let with_default = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 5057));
    text.parse().or_else(|_| with_default()).map_err(|_| format!("{text:?} is neither IP:PORT nor an IP"))
}

pub(crate) async fn admin_client(node: NodeAddress) -> anyhow::Result<AdminClient> {
    admin_client_with(node, DEADLINE).await
}

pub(crate) async fn admin_client_with(node: NodeAddress, deadline: Duration) -> anyhow::Result<AdminClient> {
    Ok(client_over(connector(node).await?, deadline))
}

fn client_over(connector: Connector, deadline: Duration) -> AdminClient {
    AdminClient::new(Arc::new(HttpPool::over(connector).with_unlimited_answers()), deadline)
}

/// How a command connects to the ring of a node.
pub(crate) async fn connector(node: NodeAddress) -> anyhow::Result<Connector> {
    let access = RingAccess::find(&[node.ring()], Role::Operator, "storage-node").await;
    Ok(access.context("this command may not talk to the ring")?.connector().clone())
}
