//! The ring's certificate authority, in AWS Secrets Manager.
//!
//! An instance that boots has to be let into the ring without a person. It has its role, and the role may read one
//! secret: the ring's authority, with which the instance makes its own certificate. The first instance makes the
//! secret. Making it is one call that fails if there is one, so instances that boot at the same moment have the same
//! authority. Every node keeps the authority in its data folder anyway, and does not need AWS again.

use std::{path::Path, time::Duration, time::SystemTime};

use anyhow::{Context, Result, bail};
use chordfs_identity::CertificateAuthority;
use chordfs_net::backoff::Backoff;
use tokio::time::sleep;
use tracing::info;

use super::{AwsContextInner, args::AwsSettings, cloud::CallError, health::Topic};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Returns the authority of the group's ring. Retries until AWS gives it; until then `/healthz` reports the error.
pub(crate) async fn ring_authority(aws: &AwsContextInner) -> CertificateAuthority {
    let name = secret_name(&aws.settings, &aws.group);
    let mut backoff = Backoff::new(FIRST_RETRY, RETRY_LIMIT);
    loop {
        // A name that was mistyped must not leave a secret behind.
        let group = aws.cloud.group(&aws.group).await;
        let group = group.and_then(|found| found.ok_or_else(|| CallError::no_group(&aws.group)));
        if aws.health.record(Topic::Group, group).is_some() {
            match read_or_create(aws, &name).await {
                Ok(authority) => {
                    aws.health.clear(Topic::Secret);
                    aws.health.clear_activity();
                    return authority;
                }
                Err(error) => aws.health.set(Topic::Secret, &format!("{error:#}")),
            }
        }
        aws.health.set_activity(format!("waiting for the ring's authority, the secret {name}"));
        sleep(backoff.pause()).await;
    }
}

/// The name of the secret of a group.
pub(crate) fn secret_name(settings: &AwsSettings, group: &str) -> String {
    settings.ring_secret.clone().unwrap_or_else(|| format!("chordfs/{group}/authority"))
}

/// Reads the text of the secret.
pub(crate) fn parse_authority(name: &str, text: &str) -> Result<CertificateAuthority> {
    let authority = CertificateAuthority::from_pem(text.as_bytes(), Path::new(name));
    authority.with_context(|| format!("the secret {name} is no authority of a ring"))
}

async fn read_or_create(aws: &AwsContextInner, name: &str) -> Result<CertificateAuthority> {
    if let Some(text) = aws.cloud.secret(name).await? {
        return parse_authority(name, &text);
    }
    let authority = CertificateAuthority::create(SystemTime::now())?;
    if aws.cloud.create_secret(name, authority.to_pem()).await? {
        info!(secret = name, "made the authority of the group's ring");
        return Ok(authority);
    }
    bail!("another instance has just made the secret {name}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        AwsContextInner,
        cloud::{Group, SharedCloud},
        fake_cloud::FakeCloud,
        founding::tests::node_with,
    };

    fn instance(number: u8, cloud: &Arc<FakeCloud>) -> Arc<AwsContextInner> {
        let cloud: SharedCloud = cloud.clone();
        Arc::new(AwsContextInner { cloud, ..node_with([127, 0, 0, number].into(), &[]) })
    }

    fn cloud() -> Arc<FakeCloud> {
        let cloud = FakeCloud::default();
        *cloud.group.lock() = Some(Group { name: "G".into(), min: 1, max: 8, desired: 1, members: Vec::new() });
        Arc::new(cloud)
    }

    /// The name of a group that does not exist would have left a secret behind.
    #[tokio::test(start_paused = true)]
    async fn no_secret_is_made_for_a_group_that_does_not_exist() {
        let cloud = Arc::new(FakeCloud::default());
        let aws = instance(1, &cloud);
        let waiting = tokio::time::timeout(Duration::from_secs(60), ring_authority(&aws)).await;
        assert!(waiting.is_err() && cloud.secrets.lock().is_empty());
        assert!(aws.health.to_json()["problems"].to_string().contains("no Auto Scaling group"));
    }

    #[tokio::test(start_paused = true)]
    async fn instances_that_boot_at_once_have_one_authority() {
        let cloud = cloud();
        let [one, two] = [1, 2].map(|number| instance(number, &cloud));
        let (one, two) = tokio::join!(ring_authority(&one), ring_authority(&two));
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!(cloud.secrets.lock().keys().collect::<Vec<_>>(), ["chordfs/G/authority"]);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_rights_and_a_wrong_secret_are_named_until_they_are_mended() {
        let cloud = cloud();
        let aws = instance(1, &cloud);
        cloud.deny("secret");
        let waiting = tokio::spawn({
            let aws = aws.clone();
            async move { ring_authority(&aws).await.fingerprint() }
        });
        let problem = |part: &str| aws.health.to_json()["problems"].to_string().contains(part);
        while !problem("secret") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        cloud.secrets.lock().insert("chordfs/G/authority".into(), "nonsense".into());
        cloud.allow();
        while !problem("is no authority of a ring") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let right = CertificateAuthority::create(SystemTime::now()).unwrap();
        cloud.secrets.lock().insert("chordfs/G/authority".into(), right.to_pem());
        assert_eq!(waiting.await.unwrap(), right.fingerprint());
        assert_eq!(aws.health.to_json()["state"], "ok");
    }
}
