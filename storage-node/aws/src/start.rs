//! From the command line to a running node: who and where it is, which ring is its, and how much of that is waited for.
//!
//! A node that remembers its ring needs nobody's leave to serve: it comes back by its folder, and what AWS does not say at
//! once is found out beside it. Only a node without data waits: for its address and zone, because its position depends on
//! them and is kept for life, and for the ring of its group, because there must be one only. While it waits, the plane of
//! administration says what for.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use chordfs_node::{
    driver::SavedRing,
    lifecycle::{self, NodeConfig},
    mutual_exclusion::Claim,
};
use chordfs_types::ring_id::{NodeRef, RingId};
use tokio::time::timeout;
use tracing::info;

use super::{
    args::{Advertise, AwsSettings},
    around::{Around, Known},
    founding::{self, Meanwhile, Shown},
    identity::{self, Identity},
    leave,
    sdk::Sdk,
};

/// How long a node that can serve lets AWS keep it from that, for each of: who it is, its group, the group's members.
const SOON: Duration = Duration::from_secs(2);

/// `storage-node --aws`. `config`'s address has the port; the IP is the instance's unless one was given.
pub async fn run(settings: AwsSettings, config: NodeConfig, ip: Option<IpAddr>) -> Result<()> {
    let known = Known::nothing(settings.asg.clone());
    let start = Start { imds: Sdk::metadata_client(), settings, config, ip, known };
    let entered = match remembered(&start.config.data).await? {
        Some(saved) => Some(start.come_back(&saved).await?),
        None => start.come().await?,
    };
    match entered {
        Some((config, around)) => lifecycle::run_in(config, Some(Arc::new(around))).await,
        // The group ends this instance, and it has nothing to lose.
        None => Ok(()),
    }
}

/// The ring in which the folder's node has had a place.
async fn remembered(data: &Path) -> Result<Option<SavedRing>> {
    Ok(SavedRing::read(data).await?.filter(|saved| saved.settled))
}

struct Start {
    imds: aws_config::imds::Client,
    settings: AwsSettings,
    config: NodeConfig,
    /// That was given.
    ip: Option<IpAddr>,
    known: Known,
}

impl Start {
    /// A node with a ring: serves, whatever AWS says.
    async fn come_back(mut self, saved: &SavedRing) -> Result<(NodeConfig, Around)> {
        let asked = soon(Identity::ask(&self.imds)).await.and_then(Result::ok);
        let identity = match asked {
            Some(identity) => Some(identity),
            None if self.place_by_memory(saved) => None,
            // An older program's folder, or another machine's: nothing says where this node is reached.
            None => Some(self.wait_for_identity().await?),
        };
        if let Some(identity) = &identity {
            self.place(identity)?;
        }
        let around = self.around();
        self.known.standing.show(Shown { ring: true, bid: Claim::Idle });
        if let Some(identity) = identity
            && let Some(context) = soon(around.context_of(identity)).await
            && self.config.join.is_empty()
        {
            self.config.join = soon(founding::known_members(context)).await.unwrap_or_default();
        }
        info!(members = ?self.config.join, "the folder remembers a ring; it is looked for again");
        Ok((self.config, around))
    }

    /// A node without data. `None`: the group ends the instance before it had a part in the ring.
    async fn come(mut self) -> Result<Option<(NodeConfig, Around)>> {
        let meanwhile = self.answer_meanwhile().await?;
        let identity = identity::wait(&self.imds, &self.known.board).await;
        info!(?identity, "this instance");
        self.place(&identity)?;
        let around = self.around();
        if self.config.join.is_empty() {
            let context = around.context_of(identity).await;
            info!(group = context.group, "in the group");
            let members = tokio::select! {
                members = founding::find_ring(context) => members,
                () = leave::watch_without_data(context) => return Ok(None),
            };
            self.config.join = members;
        } else {
            self.known.standing.show(Shown { ring: true, bid: Claim::Idle });
        }
        meanwhile.end().await;
        Ok(Some((self.config, around)))
    }

    async fn wait_for_identity(&self) -> Result<Identity> {
        let meanwhile = self.answer_meanwhile().await?;
        let identity = identity::wait(&self.imds, &self.known.board).await;
        meanwhile.end().await;
        Ok(identity)
    }

    /// Before the instance's address is known, all that it has are listened on.
    async fn answer_meanwhile(&self) -> Result<Meanwhile> {
        let ip = self.config.listen.or(self.ip.filter(is_here)).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let admin = NodeRef { ip, port: self.config.address.port(), id: RingId(0) }.admin_address();
        let known = self.known.clone();
        let meanwhile = Meanwhile::begin(admin, move || known.shown(), self.known.standing.clone()).await;
        meanwhile.with_context(|| format!("cannot listen on {admin}"))
    }

    fn place(&mut self, identity: &Identity) -> Result<()> {
        let ip = self.ip.map_or_else(|| identity.advertised(self.settings.advertise), Ok)?;
        self.place_at(ip, Some(identity.private));
        self.config.zone.get_or_insert_with(|| identity.zone.clone());
        Ok(())
    }

    /// Whether that is possible: by an address that was given, or by the last one, unless this is another machine now.
    fn place_by_memory(&mut self, saved: &SavedRing) -> bool {
        let last = saved.address.map(|address| address.ip());
        let last = last.filter(|ip| self.settings.advertise != Advertise::Private || is_here(ip));
        let ip = self.ip.or(last);
        ip.into_iter().for_each(|ip| self.place_at(ip, None));
        ip.is_some()
    }

    /// EC2 translates a public address on its way to the instance, which itself has only the private one.
    fn place_at(&mut self, ip: IpAddr, private: Option<IpAddr>) {
        self.config.address.set_ip(ip);
        if !is_here(&ip) {
            let all = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            self.config.listen.get_or_insert(private.unwrap_or(all));
        }
    }

    fn around(&self) -> Around {
        Around {
            imds: self.imds.clone(),
            settings: self.settings.clone(),
            known: self.known.clone(),
            address: self.config.address,
            chose_address: self.ip.is_some(),
            data: self.config.data.clone(),
        }
    }
}

/// Boxed: what asks AWS has much state.
fn soon<T>(answer: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let answer = Box::pin(answer);
    async move { timeout(SOON, answer).await.ok() }
}

/// One of this machine's own addresses.
fn is_here(ip: &IpAddr) -> bool {
    let bound = UdpSocket::bind(SocketAddr::new(*ip, 0));
    bound.map_or_else(|error| error.kind() != std::io::ErrorKind::AddrNotAvailable, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::settings;

    const ELSEWHERE: &str = "203.0.113.9";

    /// Where nobody answers for the metadata service.
    fn start(line: &str, data: &Path) -> Start {
        let settings = settings(line).unwrap();
        let imds = aws_config::imds::Client::builder().endpoint("http://127.0.0.1:1").unwrap().max_attempts(1).build();
        let config = NodeConfig::new(data.to_owned(), SocketAddr::from(([0, 0, 0, 0], 6057)));
        let known = Known::nothing(settings.asg.clone());
        Start { imds, settings, config, ip: None, known }
    }

    async fn folder(address: &str) -> (tempfile::TempDir, SavedRing) {
        let folder = tempfile::tempdir().unwrap();
        let ring = format!(r#"{{"format": 1, "id": 7, "settled": true, "known": [], "address": "{address}:6057"}}"#);
        std::fs::write(folder.path().join("ring.json"), ring).unwrap();
        let saved = remembered(folder.path()).await.unwrap().unwrap();
        (folder, saved)
    }

    #[tokio::test]
    async fn a_node_that_remembers_its_ring_comes_back_without_a_word_from_aws() {
        let (folder, saved) = folder("127.0.0.1").await;
        let (config, around) = start("", folder.path()).come_back(&saved).await.unwrap();
        assert_eq!((config.address, config.listen), (saved.address.unwrap(), None));
        let shown = around.known.shown();
        assert!(shown["instance"].is_null() && shown["group"].is_null(), "{shown}");
    }

    #[tokio::test]
    async fn an_address_that_this_machine_does_not_have_is_remembered_only_where_it_is_translated() {
        let (folder, saved) = folder(ELSEWHERE).await;
        assert!(!start("", folder.path()).place_by_memory(&saved), "a volume from another machine");
        let mut public = start("--advertise public", folder.path());
        assert!(public.place_by_memory(&saved));
        assert_eq!(public.config.address, saved.address.unwrap());
        assert_eq!(public.config.listen, Some(Ipv4Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn a_public_address_is_told_and_the_private_one_listened_on() {
        let identity = Identity {
            instance: "i-1".into(),
            zone: "z".into(),
            region: "r".into(),
            private: Ipv4Addr::LOCALHOST.into(),
            public: Some(ELSEWHERE.parse().unwrap()),
        };
        for (line, told, listened) in [
            ("", "127.0.0.1", None),
            ("--advertise public", ELSEWHERE, Some(identity.private)),
            ("--advertise 127.0.0.2", "127.0.0.2", None),
        ] {
            let mut start = start(line, Path::new("/nowhere"));
            start.place(&identity).unwrap();
            assert_eq!(
                (start.config.address.ip().to_string().as_str(), start.config.listen),
                (told, listened),
                "{line}"
            );
        }
    }
}
