//! Who this instance is, by its metadata service.

use chordfs_net::backoff::Backoff;
use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};
use aws_config::imds;
use tokio::time::sleep;

use super::{
    args::Advertise,
    board::{Board, Topic},
    cloud::CallError,
    sdk::metadata,
};

/// Between tries, besides those that a question has by itself.
const TRY_FIRST: Duration = Duration::from_secs(1);
const TRY_AT_LEAST: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub instance: String,
    /// The availability zone, as in `eu-central-1a`.
    pub zone: String,
    pub region: String,
    pub private: IpAddr,
    /// `None` for an instance without one.
    pub public: Option<IpAddr>,
}

impl Identity {
    pub async fn ask(imds: &imds::Client) -> Result<Self> {
        let no_service = "this machine has no metadata service, so it seems to be no EC2 instance (or the service is \
                          switched off for it, or allows fewer hops than there are): run without --aws, or see \
                          AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let instance = metadata(imds, "instance-id").await.context(no_service)?;
        let asked = |path: &'static str| async move {
            let value: Option<String> = metadata(imds, path).await?;
            Ok::<_, CallError>(value.filter(|text| !text.is_empty()))
        };
        let zone = asked("placement/availability-zone").await?.context("the metadata service names no zone")?;
        let region = asked("placement/region").await?.unwrap_or_else(|| region_of(&zone));
        let private = asked("local-ipv4").await?.context("the metadata service names no private address")?;
        let public = asked("public-ipv4").await?;
        Ok(Self {
            instance: instance.filter(|id| !id.is_empty()).context("the metadata service names no instance id")?,
            zone,
            region,
            private: private.parse().with_context(|| format!("{private:?} as the private address"))?,
            public: public.and_then(|text| text.parse().ok()),
        })
    }

    /// The address that other nodes and mounts are told.
    pub fn advertised(&self, advertise: Advertise) -> Result<IpAddr> {
        match advertise {
            Advertise::Private => Ok(self.private),
            Advertise::Address(address) => Ok(address),
            Advertise::Public => match self.public {
                Some(address) => Ok(address),
                None => bail!(
                    "--advertise public: {} has no public address; give its subnet or launch template one, or \
                     advertise the private one",
                    self.instance
                ),
            },
        }
    }
}

/// Who this instance is; asks until it is known, because the metadata service may come later than this process, and an
/// operator may switch it on. What is missing meanwhile is on the board.
pub async fn wait(imds: &imds::Client, board: &Board) -> Identity {
    let mut backoff = Backoff::new(TRY_FIRST, TRY_AT_LEAST);
    loop {
        match Identity::ask(imds).await {
            Ok(identity) => {
                board.clear(Topic::Metadata);
                return identity;
            }
            Err(error) => board.set(Topic::Metadata, &format!("{error:#}")),
        }
        sleep(backoff.pause()).await;
    }
}

/// `eu-central-1a` is in `eu-central-1`; also in a local zone (`us-west-2-lax-1a`) the region comes first.
fn region_of(zone: &str) -> String {
    let mut parts = zone.splitn(4, '-');
    let name: Vec<&str> = parts.by_ref().take(2).collect();
    let number: String = parts.next().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    format!("{}-{number}", name.join("-"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;

    use super::*;

    #[test]
    fn a_zone_says_its_region() {
        assert_eq!(region_of("eu-central-1a"), "eu-central-1");
        assert_eq!(region_of("ap-southeast-2b"), "ap-southeast-2");
        assert_eq!(region_of("us-west-2-lax-1a"), "us-west-2");
    }

    #[test]
    fn what_is_advertised_is_there() {
        let (private, public) = ([10, 0, 0, 1].into(), Some([3, 0, 0, 1].into()));
        let identity = Identity { instance: "i-1".into(), zone: "z".into(), region: "r".into(), private, public };
        assert_eq!(identity.advertised(Advertise::Private).unwrap(), private);
        assert_eq!(identity.advertised(Advertise::Public).ok(), public);
        let without = Identity { public: None, ..identity };
        assert!(without.advertised(Advertise::Public).unwrap_err().to_string().contains("no public address"));
    }

    /// It once ended the process at its start.
    #[tokio::test]
    async fn a_metadata_service_that_comes_later_is_waited_for() {
        let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let imds = imds::Client::builder().endpoint(format!("http://{service}")).unwrap().max_attempts(1).build();
        let board = Arc::new(Board::default());
        let shown = board.clone();
        let waiting = tokio::spawn(async move { wait(&imds, &shown).await });
        while board.shown()["state"] != "degraded" {
            tokio::task::yield_now().await;
        }
        assert!(board.shown()["problems"][0].as_str().unwrap().contains("run without --aws"), "{}", board.shown());
        let listener = tokio::net::TcpListener::bind(service).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, fake_service()).await });
        let identity = waiting.await.unwrap();
        assert_eq!((identity.instance.as_str(), identity.region.as_str()), ("i-7", "eu-central-1"));
        assert_eq!(board.shown()["state"], "ok");
    }

    fn fake_service() -> Router {
        let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "600")];
        let value = |value: &'static str| axum::routing::get(move || async move { value });
        Router::new()
            .route("/latest/api/token", axum::routing::put(move || async move { (ttl, "token") }))
            .route("/latest/meta-data/instance-id", value("i-7"))
            .route("/latest/meta-data/placement/availability-zone", value("eu-central-1a"))
            .route("/latest/meta-data/local-ipv4", value("10.0.0.7"))
    }
}
