//! A ring without a namespace. Only a storage node founds a namespace, and only the first node of a ring does so by
//! itself: two nodes that join a foreign Chord node's ring at the same time could not know of each other, and each
//! would found one.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::raft::leader::LeaderTracking;

/// The problem and its remedy, for the log and for `/readyz`.
pub const NO_NAMESPACE: &str = "no storage node of this ring is known to have a namespace, so no file can be read or \
                                written. If a foreign Chord node founded the ring, start one of its storage nodes anew, \
                                with an empty data folder and --found-namespace";
/// A joining node searches for the leader for this long before it reports the problem.
const REPORT_AFTER: Duration = Duration::from_secs(15);
const REMIND_EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub(crate) async fn report(leader: Arc<LeaderTracking>) {
    let mut due = Instant::now() + REPORT_AFTER;
    loop {
        sleep(LOOK_EVERY).await;
        if leader.namespace().is_some() {
            due = Instant::now() + REPORT_AFTER;
        } else if Instant::now() >= due {
            tracing::warn!("{NO_NAMESPACE}");
            due = Instant::now() + REMIND_EVERY;
        }
    }
}
