//! Compaction of the store in the background.

use std::{sync::Arc, time::Duration};

use chordfs_log::warn_limited;
use chordfs_store::Store;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::blocking::with_store;

/// Rewrites the store segment by segment. The pause after each depends on its reason; without work it is `period`.
pub(super) async fn compact(store: Arc<Store>, period: Duration, stop: CancellationToken) {
    loop {
        let began = Instant::now();
        let pause = match with_store(&store, Store::compact).await {
            Ok(Some(moved)) => moved.reason.pause(moved.bytes, began.elapsed()),
            Ok(None) => period,
            Err(error) => {
                warn_limited!(%error, "cannot rewrite a segment");
                period
            }
        };
        tokio::select! { biased; () = stop.cancelled() => return, () = sleep(pause) => {} }
    }
}
