//! A node whose disk has been full for some time gives up the lead and then its vote, in the same way as for a drain;
//! with space again it may be chosen as before. Its memory holds what waits for the disk until then.

use std::{sync::Arc, time::Duration};

use super::resignation::VoterResignation;
use crate::storage::disk_space::DiskSpace;

/// Compaction, or an operator, may free space within this time; the node keeps its vote until then.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gives up the lead and the vote while the disk stays full, and reports to the leader when it no longer is.
pub(crate) async fn step_aside(disk: Arc<DiskSpace>, resignation: Arc<VoterResignation>) {
    let mut aside = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let full_for = disk.full_for();
        if full_for >= PATIENCE && resignation.is_voter() {
            if !aside {
                tracing::warn!("the disk is full: other nodes decide about the namespace until there is space");
            }
            aside = true;
            resignation.step_back().await;
        } else if aside && full_for.is_zero() {
            aside = false;
            resignation.decline(false).await;
        }
    }
}
