//! Looks the source of a mount up again while its ring does not answer: an Auto Scaling group or a name may lead to
//! other nodes than before, because all former ones were replaced while this machine slept or was cut off.

use std::time::Duration;

use chordfs_net::session::Session;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::source::MountSource;

/// A session usually finds the next leader within seconds, through the nodes that it knows.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Runs until the mount ends.
pub(crate) async fn resolve_while_cut_off(session: Session, source: MountSource) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_attached, mut known) = (true, Vec::new());
    loop {
        checks.tick().await;
        let is_attached = session.is_attached();
        if !is_attached && !was_attached {
            match source.resolve().await {
                Ok(nodes) if nodes != known => {
                    info!(%source, ?nodes, "the ring does not answer; looking for it at the nodes that the source names now");
                    session.replace_nodes(nodes.clone());
                    known = nodes;
                }
                Ok(_) => {}
                Err(error) => debug!(%source, %error, "the source cannot be looked up"),
            }
        }
        was_attached = is_attached;
    }
}
