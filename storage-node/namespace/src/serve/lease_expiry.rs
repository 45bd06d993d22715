//! Ending leases that have run out, so that no answer waits longer for a mount that is silent. After a pause of this
//! process all leases begin anew, because what the mounts sent meanwhile was not read.

use std::{sync::Arc, time::Duration};

use chordfs_net::boot_clock::since_boot;

use super::pauses::PauseDetector;
use crate::state::session_feed::SessionFeed;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs until it is dropped.
pub(crate) async fn end_old_leases(feed: Arc<SessionFeed>) {
    let mut pauses = PauseDetector::new(LOOK_EVERY);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if pauses.was_paused(since_boot()) {
            feed.renew_inode_leases();
        }
        feed.end_old_leases();
    }
}
