//! The identity of this instance, from its metadata service.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};
use aws_config::imds;
use chordfs_net::backoff::Backoff;
use tokio::time::sleep;

use super::{
    args::Advertise,
    cloud::CallError,
    health::{AwsHealth, Topic},
    sdk::metadata,
};

/// Pauses between attempts, in addition to the retries within one request.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const RETRY_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceIdentity {
    pub instance: String,
    /// The availability zone, as in `eu-central-1a`.
    pub zone: String,
    pub region: String,
    pub private: IpAddr,
    /// `None` if the instance has no public address.
    pub public: Option<IpAddr>,
}

impl InstanceIdentity {
    pub async fn fetch(imds: &imds::Client) -> Result<Self> {
        let no_service = "this machine has no metadata service: it is not an EC2 instance, the service is disabled for it, or \
                          its hop limit is too low; run without --aws, enable the service, or set \
                          AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let instance = metadata(imds, "instance-id").await.context(no_service)?;
        let field = |path: &'static str| async move {
            let value: Option<String> = metadata(imds, path).await?;
            Ok::<_, CallError>(value.filter(|text| !text.is_empty()))
        };
        let zone = field("placement/availability-zone").await?.context("the metadata service reports no zone")?;
        let region = field("placement/region").await?.unwrap_or_else(|| region_of(&zone));
        let private = field("local-ipv4").await?.context("the metadata service reports no private address")?;
        let public = field("public-ipv4").await?;
        Ok(Self {
            instance: instance.filter(|id| !id.is_empty()).context("the metadata service reports no instance id")?,
            zone,
            region,
            private: private.parse().with_context(|| format!("{private:?} as the private address"))?,
            public: public.and_then(|text| text.parse().ok()),
        })
    }

    /// Returns the address that other nodes and mounts should use.
    pub fn advertised(&self, advertise: Advertise) -> Result<IpAddr> {
        match advertise {
            Advertise::Private => Ok(self.private),
            Advertise::Address(address) => Ok(address),
            Advertise::Public => match self.public {
                Some(address) => Ok(address),
                None => bail!(
                    "--advertise public: {} has no public address; let its subnet or launch template assign one, or use \
                     --advertise private",
                    self.instance
                ),
            },
        }
    }
}

/// Retries until the identity is known: the metadata service may start later than this process, or an operator may
/// enable it. Until then `health` reports the error.
pub(crate) async fn wait_for_identity(imds: &imds::Client, health: &AwsHealth) -> InstanceIdentity {
    let mut backoff = Backoff::new(FIRST_RETRY, RETRY_LIMIT);
    loop {
        match InstanceIdentity::fetch(imds).await {
            Ok(identity) => {
                health.clear(Topic::Metadata);
                return identity;
            }
            Err(error) => health.set(Topic::Metadata, &format!("{error:#}")),
        }
        sleep(backoff.pause()).await;
    }
}

/// Returns the region of a zone: `eu-central-1` for `eu-central-1a`, and `us-west-2` for the local zone
/// `us-west-2-lax-1a`.
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
    fn a_zone_implies_its_region() {
        assert_eq!(region_of("eu-central-1a"), "eu-central-1");
        assert_eq!(region_of("ap-southeast-2b"), "ap-southeast-2");
        assert_eq!(region_of("us-west-2-lax-1a"), "us-west-2");
    }

    #[test]
    fn a_missing_public_address_is_not_advertised() {
        let (private, public) = ([10, 0, 0, 1].into(), Some([3, 0, 0, 1].into()));
        let identity =
            InstanceIdentity { instance: "i-1".into(), zone: "z".into(), region: "r".into(), private, public };
        assert_eq!(identity.advertised(Advertise::Private).unwrap(), private);
        assert_eq!(identity.advertised(Advertise::Public).ok(), public);
        let without = InstanceIdentity { public: None, ..identity };
        assert!(without.advertised(Advertise::Public).unwrap_err().to_string().contains("no public address"));
    }

    /// A missing metadata service once ended the process at startup.
    #[tokio::test]
    async fn an_identity_is_fetched_once_the_metadata_service_starts() {
        let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let imds = imds::Client::builder().endpoint(format!("http://{service}")).unwrap().max_attempts(1).build();
        let health = Arc::new(AwsHealth::default());
        let shown = health.clone();
        let waiting = tokio::spawn(async move { wait_for_identity(&imds, &shown).await });
        while health.to_json()["state"] != "degraded" {
            tokio::task::yield_now().await;
        }
        assert!(
            health.to_json()["problems"][0].as_str().unwrap().contains("run without --aws"),
            "{}",
            health.to_json()
        );
        let listener = tokio::net::TcpListener::bind(service).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, fake_service()).await });
        let identity = waiting.await.unwrap();
        assert_eq!((identity.instance.as_str(), identity.region.as_str()), ("i-7", "eu-central-1"));
        assert_eq!(health.to_json()["state"], "ok");
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
