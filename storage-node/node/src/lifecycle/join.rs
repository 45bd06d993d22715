//! Taking a place in the ring at the start.

use std::time::Duration;

use anyhow::{Result, bail};
use chordfs_types::admin::NodeState;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{config::NodeConfig, core::Core};
use crate::driver::RingHandle;

/// Joins through any of the configured members. A node without any founds a ring, or rejoins the ring that it
/// remembers.
pub(super) async fn take_place(core: &Core) -> Result<()> {
    core.stage.set(NodeState::Joining);
    join_ring(&core.config, &core.ring).await?;
    core.stage.set(NodeState::Serving);
    info!(node = %core.ring.me(), "in the ring");
    Ok(())
}

async fn join_ring(config: &NodeConfig, ring: &RingHandle) -> Result<()> {
    let end = Instant::now() + config.join_deadline;
    loop {
        match ring.join_ring(&config.join).await {
            Ok(()) => return Ok(()),
            // A node that has been in a ring rejoins by itself, even if the configured members are dead.
            Err(error) if ring.remembers() => {
                info!(%error, "cannot join through the configured members; looking for the remembered ring");
                return Ok(());
            }
            Err(error) if Instant::now() > end => {
                bail!("cannot join the ring within {}: {error}", humantime::format_duration(config.join_deadline))
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
