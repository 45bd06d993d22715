//! The nodes of a group, for a scaler that knows only the group's name.

use std::{net::SocketAddr, time::Duration};

use chordfs_net::backoff::Backoff;
use chordfs_types::ring_id::NodeAddress;
use tokio::time::sleep;
use tracing::warn;

pub(crate) const RING_PORT: u16 = 5057;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Returns the nodes in service, once there are some. A group that is being made has none at first, and then the scaler
/// has nothing to do.
pub async fn nodes_of_group(group: &str) -> Vec<NodeAddress> {
    let mut backoff = Backoff::new(FIRST_RETRY, RETRY_LIMIT);
    loop {
        match chordfs_asg::addresses(group).await {
            Ok(addresses) if !addresses.is_empty() => {
                return addresses.into_iter().map(|ip| SocketAddr::new(ip, RING_PORT).into()).collect();
            }
            Ok(_) => warn!(group, "the group has no instance in service yet"),
            Err(error) => warn!(%error, "the members of the group are not known yet"),
        }
        sleep(backoff.pause()).await;
    }
}
