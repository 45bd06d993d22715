//! A node whose disk has been full for some time gives up leadership and then its vote, in the same way as for a drain;
//! with space again it may be chosen as before. Entries that wait for the disk stay in memory until then.

use chordfs_log::warn_limited;
use std::{sync::Arc, time::Duration};

use super::resignation::VoterResignation;
use crate::storage::disk_space::DiskSpace;

/// Compaction, or an operator, may free space within this time; the node keeps its vote until then.
const KEEP_VOTE_FOR: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gives up leadership and the vote while the disk stays full, and reports to the leader when there is space again.
pub(crate) async fn step_down_while_full(disk: Arc<DiskSpace>, resignation: Arc<VoterResignation>) {
    let mut stepping_down = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let full_for = disk.full_for();
        if full_for >= KEEP_VOTE_FOR && resignation.is_voter() {
            if !stepping_down {
                warn_limited!("the disk is full: this node gives up its vote on the namespace until there is space");
            }
            stepping_down = true;
            resignation.step_down().await;
        } else if stepping_down && full_for.is_zero() {
            stepping_down = false;
            resignation.decline(false).await;
        }
    }
}
