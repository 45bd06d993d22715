//! Starts a node with `--aws`: discovers its identity, address and ring, and decides which of them to wait for.
//!
//! A node whose data folder records a ring serves even without AWS: it rejoins from its folder, and whatever AWS does
//! not answer at once is discovered later. Only a node without data waits: for its address and zone, because its
//! position depends on them and is permanent, and for the ring of its group, because a group must have only one.
//! Meanwhile the administration port reports what the node waits for.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use chordfs_net::transport::{Acceptor, Connector, PlainNetworks};
use chordfs_node::{
    driver::SavedRing,
    identity::take_authority,
    lifecycle::{self, NodeConfig},
    mutual_exclusion::Claim,
};
use chordfs_types::ring_id::NodeAddress;
use tokio::time::timeout;
use tracing::info;

use super::{
    AwsContext,
    args::{Advertise, AwsSettings},
    environment::{AwsEnvironment, AwsStatus},
    founding::{self, BootstrapServer, FoundingStatus},
    identity::{self, InstanceIdentity},
    ring_authority::ring_authority,
    sdk::Sdk,
    termination,
};

/// The longest that a node which can serve waits for AWS, for each of: its identity, its group, the group's members.
const AWS_DEADLINE: Duration = Duration::from_secs(2);

/// Runs `storage-node --aws`. `config.address` supplies the port; its IP is replaced by `ip` or by the instance's
/// address.
pub async fn run(settings: AwsSettings, config: NodeConfig, ip: Option<IpAddr>) -> Result<()> {
    let status = AwsStatus::new(settings.asg.clone());
    let start = AwsStart { imds: Sdk::metadata_client(), settings, config, ip, status };
    let started = match saved_ring(&start.config.data).await? {
        Some(saved) => Some(start.rejoin(&saved).await?),
        None => start.start_empty().await?,
    };
    match started {
        Some((config, environment)) => lifecycle::run_with_host(config, Some(Arc::new(environment))).await,
        // The group is terminating this instance, which holds no data.
        None => Ok(()),
    }
}

/// Returns the ring that the data folder records, if the folder's node has had a position in it.
async fn saved_ring(data: &Path) -> Result<Option<SavedRing>> {
    Ok(SavedRing::read(data).await?.filter(|saved| saved.settled))
}

struct AwsStart {
    imds: aws_config::imds::Client,
    settings: AwsSettings,
    config: NodeConfig,
    /// Set by an operator, not discovered.
    ip: Option<IpAddr>,
    status: AwsStatus,
}

impl AwsStart {
    /// Starts a node whose folder records a ring: it serves whether or not AWS answers.
    async fn rejoin(mut self, saved: &SavedRing) -> Result<(NodeConfig, AwsEnvironment)> {
        let asked = within_deadline(InstanceIdentity::fetch(&self.imds)).await.and_then(Result::ok);
        let identity = match asked {
            Some(identity) => Some(identity),
            None if self.use_saved_address(saved) => None,
            // An older program or another machine wrote the folder, so this node's address is unknown.
            None => Some(self.wait_for_identity().await?),
        };
        if let Some(identity) = &identity {
            self.set_address_and_zone(identity)?;
        }
        let environment = self.environment();
        self.status.founding.set_status(FoundingStatus { ring: true, claim: Claim::Idle });
        if let Some(identity) = identity
            && let Some(context) = within_deadline(environment.context_of(identity)).await
            && self.config.join.is_empty()
        {
            self.config.join = within_deadline(founding::known_members(context)).await.unwrap_or_default();
        }
        info!(members = ?self.config.join, "rejoining the ring that the data folder records");
        Ok((self.config, environment))
    }

    /// Starts a node without data. Returns `None` if the group terminates the instance before it has joined a ring.
    async fn start_empty(mut self) -> Result<Option<(NodeConfig, AwsEnvironment)>> {
        let bootstrap = self.start_bootstrap().await?;
        let identity = identity::wait_for_identity(&self.imds, &self.status.health).await;
        info!(?identity, "discovered the identity of this instance");
        self.set_address_and_zone(&identity)?;
        let environment = self.environment();
        let (security, joins) = (&self.config.security, !self.config.join.is_empty());
        let has_authority = !security.insecure && security.invitation.is_none();
        if joins {
            self.status.founding.set_status(FoundingStatus { ring: true, claim: Claim::Idle });
        }
        if joins && !has_authority {
            bootstrap.end().await;
            return Ok(Some((self.config, environment)));
        }
        let context = environment.context_of(identity).await;
        info!(group = context.group, "this instance belongs to an Auto Scaling group");
        let admitted = async {
            let (bootstrap, connector) = if has_authority {
                self.take_authority(bootstrap, context).await?
            } else {
                (bootstrap, Connector::Plain)
            };
            let members = if joins { None } else { Some(founding::find_ring(context, connector).await) };
            Ok::<_, anyhow::Error>((bootstrap, members))
        };
        let (bootstrap, members) = tokio::select! {
            admitted = admitted => admitted?,
            () = termination::watch_without_data(context) => return Ok(None),
        };
        bootstrap.end().await;
        self.config.join = members.unwrap_or(self.config.join);
        Ok(Some((self.config, environment)))
    }

    /// Gets this node's identity from the group's authority. From then on other members, which ask it whether it has a
    /// ring, and it them, connect by it.
    async fn take_authority(
        &self,
        bootstrap: BootstrapServer,
        context: &AwsContext,
    ) -> Result<(BootstrapServer, Connector)> {
        let authority = ring_authority(context).await;
        let tls = take_authority(&self.config.data, self.config.address, authority)?;
        bootstrap.end().await;
        Ok((self.start_bootstrap_over(Acceptor::over(&tls, PlainNetworks::all())).await?, Connector::over(&tls)))
    }

    async fn wait_for_identity(&self) -> Result<InstanceIdentity> {
        let bootstrap = self.start_bootstrap().await?;
        let identity = identity::wait_for_identity(&self.imds, &self.status.health).await;
        bootstrap.end().await;
        Ok(identity)
    }

    async fn start_bootstrap(&self) -> Result<BootstrapServer> {
        self.start_bootstrap_over(Acceptor::default()).await
    }

    /// While the instance's address is unknown, the server listens on all addresses.
    async fn start_bootstrap_over(&self, acceptor: Acceptor) -> Result<BootstrapServer> {
        let ip = self.config.listen.or(self.ip.filter(is_local_address)).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let admin = NodeAddress::from(SocketAddr::new(ip, self.config.address.port())).admin();
        let status = self.status.clone();
        let (health, founding) = (move || status.to_json(), self.status.founding.clone());
        let bootstrap = BootstrapServer::begin(admin, health, founding, acceptor).await;
        bootstrap.with_context(|| format!("cannot listen on {admin}"))
    }

    fn set_address_and_zone(&mut self, identity: &InstanceIdentity) -> Result<()> {
        let ip = self.ip.map_or_else(|| identity.advertised(self.settings.advertise), Ok)?;
        self.set_address(ip, Some(identity.private));
        self.config.zone.get_or_insert_with(|| identity.zone.clone());
        Ok(())
    }

    /// Takes the configured address or else the one in the data folder, unless the folder comes from another machine.
    /// Returns whether there was one.
    fn use_saved_address(&mut self, saved: &SavedRing) -> bool {
        let last = saved.address.map(|address| address.ip());
        let last = last.filter(|ip| self.settings.advertise != Advertise::Private || is_local_address(ip));
        let ip = self.ip.or(last);
        ip.into_iter().for_each(|ip| self.set_address(ip, None));
        ip.is_some()
    }

    /// EC2 translates a public address (NAT); the instance itself has only the private one and listens on that.
    fn set_address(&mut self, ip: IpAddr, private: Option<IpAddr>) {
        self.config.address.set_ip(ip);
        if !is_local_address(&ip) {
            let all = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            self.config.listen.get_or_insert(private.unwrap_or(all));
        }
    }

    fn environment(&self) -> AwsEnvironment {
        AwsEnvironment {
            imds: self.imds.clone(),
            settings: self.settings.clone(),
            status: self.status.clone(),
            address: self.config.address,
            address_is_configured: self.ip.is_some(),
            data: self.config.data.clone(),
        }
    }
}

/// Boxed, because the futures of AWS calls are large.
fn within_deadline<T>(answer: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let answer = Box::pin(answer);
    async move { timeout(AWS_DEADLINE, answer).await.ok() }
}

/// Returns whether this machine has the address.
fn is_local_address(ip: &IpAddr) -> bool {
    let bound = UdpSocket::bind(SocketAddr::new(*ip, 0));
    bound.map_or_else(|error| error.kind() != std::io::ErrorKind::AddrNotAvailable, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::settings;

    const ELSEWHERE: &str = "203.0.113.9";

    /// A node whose metadata service refuses connections.
    fn start(line: &str, data: &Path) -> AwsStart {
        let settings = settings(line).unwrap();
        let imds = aws_config::imds::Client::builder().endpoint("http://127.0.0.1:1").unwrap().max_attempts(1).build();
        let config = NodeConfig::new(data.to_owned(), SocketAddr::from(([0, 0, 0, 0], 6057)));
        let status = AwsStatus::new(settings.asg.clone());
        AwsStart { imds, settings, config, ip: None, status }
    }

    async fn folder(address: &str) -> (tempfile::TempDir, SavedRing) {
        let folder = tempfile::tempdir().unwrap();
        let ring = format!(r#"{{"format": 1, "id": 7, "settled": true, "known": [], "address": "{address}:6057"}}"#);
        std::fs::write(folder.path().join("ring.json"), ring).unwrap();
        let saved = saved_ring(folder.path()).await.unwrap().unwrap();
        (folder, saved)
    }

    #[tokio::test]
    async fn a_node_with_a_saved_ring_rejoins_without_an_answer_from_aws() {
        let (folder, saved) = folder("127.0.0.1").await;
        let (config, environment) = start("", folder.path()).rejoin(&saved).await.unwrap();
        assert_eq!((config.address, config.listen), (saved.address.unwrap(), None));
        let shown = environment.status.to_json();
        assert!(shown["instance"].is_null() && shown["group"].is_null(), "{shown}");
    }

    #[tokio::test]
    async fn a_saved_address_of_another_machine_is_used_only_behind_nat() {
        let (folder, saved) = folder(ELSEWHERE).await;
        assert!(!start("", folder.path()).use_saved_address(&saved), "a volume from another machine");
        let mut public = start("--advertise public", folder.path());
        assert!(public.use_saved_address(&saved));
        assert_eq!(public.config.address, saved.address.unwrap());
        assert_eq!(public.config.listen, Some(Ipv4Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn a_public_address_is_advertised_and_the_private_one_listened_on() {
        let identity = InstanceIdentity {
            instance: "i-1".into(),
            zone: "z".into(),
            region: "r".into(),
            private: Ipv4Addr::LOCALHOST.into(),
            public: Some(ELSEWHERE.parse().unwrap()),
        };
        for (line, advertised, listen) in [
            ("", "127.0.0.1", None),
            ("--advertise public", ELSEWHERE, Some(identity.private)),
            ("--advertise 127.0.0.2", "127.0.0.2", None),
        ] {
            let mut start = start(line, Path::new("/nowhere"));
            start.set_address_and_zone(&identity).unwrap();
            assert_eq!(
                (start.config.address.ip().to_string().as_str(), start.config.listen),
                (advertised, listen),
                "{line}"
            );
        }
    }
}
