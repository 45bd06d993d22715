//! Who this instance is, by its metadata service.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use aws_config::imds;

use super::{args::Advertise, cloud::CallError, sdk::metadata};

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

/// `eu-central-1a` is in `eu-central-1`; also in a local zone (`us-west-2-lax-1a`) the region comes first.
fn region_of(zone: &str) -> String {
    let mut parts = zone.splitn(4, '-');
    let name: Vec<&str> = parts.by_ref().take(2).collect();
    let number: String = parts.next().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    format!("{}-{number}", name.join("-"))
}

#[cfg(test)]
mod tests {
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
}
