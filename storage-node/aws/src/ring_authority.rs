//! The ring's certificate authority, in AWS Secrets Manager.
//!
//! An instance that boots has to be let into the ring without a person. It has its role, and the role may read one secret:
//! the ring's authority, with which the instance makes its own certificate. The first instance makes the secret. Making
//! it is one call that fails if there is one, so instances that boot at the same moment have the same authority. Every
//! node keeps the authority in its data folder anyway, and does not need AWS again.

use std::{path::Path, time::Duration, time::SystemTime};

use anyhow::Result;
use chordfs_identity::CertificateAuthority;
use chordfs_net::backoff::Backoff;
use tokio::time::sleep;
use tracing::info;

use super::{AwsContextInner, cloud::CallError, health::Topic};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Returns the authority of the group's ring. Retries until AWS gives it; until then `/healthz` reports the error.
pub(crate) async fn ring_authority(aws: &AwsContextInner) -> CertificateAuthority {
    let name = aws.settings.ring_secret.clone().unwrap_or_else(|| format!("chordfs/{}/authority", aws.group));
    let mut backoff = Backoff::new(FIRST_RETRY, RETRY_LIMIT);
    loop {
        match read_or_create(aws, &name).await {
            Ok(authority) => {
                aws.health.clear(Topic::Secret);
                aws.health.clear_activity();
                return authority;
            }
            Err(error) => aws.health.set(Topic::Secret, &error),
        }
        aws.health.set_activity(format!("waiting for the ring's authority, the secret {name}"));
        sleep(backoff.pause()).await;
    }
}

async fn read_or_create(aws: &AwsContextInner, name: &str) -> Result<CertificateAuthority, String> {
    let read = |error: CallError| error.to_string();
    if let Some(text) = aws.cloud.secret(name).await.map_err(read)? {
        let authority = CertificateAuthority::from_pem(text.as_bytes(), Path::new(name));
        return authority.map_err(|error| format!("the secret {name} is no authority of a ring: {error}"));
    }
    let authority = CertificateAuthority::create(SystemTime::now()).map_err(|error| error.to_string())?;
    if aws.cloud.create_secret(name, authority.to_pem()).await.map_err(read)? {
        info!(secret = name, "made the authority of the group's ring");
        return Ok(authority);
    }
    Err(format!("another instance has just made the secret {name}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{AwsContextInner, cloud::SharedCloud, fake_cloud::FakeCloud, founding::tests::node_with};

    fn instance(number: u8, cloud: &Arc<FakeCloud>) -> Arc<AwsContextInner> {
        let cloud: SharedCloud = cloud.clone();
        Arc::new(AwsContextInner { cloud, ..node_with([127, 0, 0, number].into(), &[]) })
    }

    #[tokio::test(start_paused = true)]
    async fn instances_that_boot_at_once_have_one_authority() {
        let cloud = Arc::new(FakeCloud::default());
        let [one, two] = [1, 2].map(|number| instance(number, &cloud));
        let (one, two) = tokio::join!(ring_authority(&one), ring_authority(&two));
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!(cloud.secrets.lock().keys().collect::<Vec<_>>(), ["chordfs/G/authority"]);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_rights_and_a_wrong_secret_are_named_until_they_are_mended() {
        let cloud = Arc::new(FakeCloud::default());
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
