//! A node's life: open the folder, bind the ports, take a place on the ring and in the namespace, serve, stop.
//!
//! A node is assembled only here, in three stages. Each stage takes only the stages below it, so the types enforce the
//! order:
//!
//! | stage | what it holds |
//! |---|---|
//! | `core` | data folder, store, connections, the node's part in the ring, its rate limit and its drain state |
//! | `services` | namespace, session, writer, repair, scrub, compaction |
//! | `planes` | what answers on 5057, 5058 and 5059 |
//!
//! The order matters in three places. No port is bound before the folder is locked. The planes answer before the node
//! sends its first message to the ring, because the other nodes call back at once (`Planes::open`). No connection is
//! accepted before the planes are built (`ports`), because a node that accepts a call and does not answer counts as
//! stopped, and delays its callers by a second.
//!
//! The other files: `config` is what a node is started with, `host` what a hosting platform adds, `voter_id` the
//! node's id as a voter, `join` the way into the ring, `load` what is reported for the choice of positions, `deleter`,
//! `placer` and `compaction` background work.

mod compaction;
mod config;
mod core;
mod deleter;
mod host;
mod join;
mod load;
mod placer;
mod planes;
mod ports;
mod services;
mod voter_id;

use std::sync::Arc;

use anyhow::{Result, bail};
use chordfs_namespace::Namespace;
use chordfs_store::DataFolder;
use chordfs_types::admin::NodeState;
use futures_util::future::OptionFuture;
use tracing::{info, warn};

pub use self::{config::NodeConfig, host::HostEnvironment};
use self::{core::Core, join::take_place, planes::Planes, ports::Ports, services::Services};
use crate::drain::{Drain, shutdown_requested};

/// Runs a node until SIGTERM, SIGINT or the ring's `kill`.
pub async fn run(config: NodeConfig) -> Result<()> {
    run_with_host(config, None).await
}

/// Like [`run`], with hooks for the hosting platform.
pub async fn run_with_host(config: NodeConfig, host: Option<Arc<dyn HostEnvironment>>) -> Result<()> {
    let folder = voter_id::keep_or_renew(DataFolder::open(&config.data)?)?;
    let ports = Ports::take(config.listens_at())?;
    let core = Core::open(config, folder).await?;
    let services = Services::start(&core).await?;
    let (namespace, operators, session) =
        (services.namespace.clone(), services.operators.clone(), services.session.clone());
    let drain = Planes::build(&core, &services, host.clone())?.open(&core, ports)?;
    services.begin(&core);
    let attend = |host: Arc<dyn HostEnvironment>| host.attend(drain.clone(), core.pool.clone(), core.stop.clone());
    let host_task = host.clone().map(|host| tokio::spawn(attend(host)));
    let joined = tokio::select! {
        joined = take_place(&core) => joined,
        () = shutdown_requested(&core.killed, None) => Ok(()),
    };
    if let (Some(host), Ok(())) = (&host, &joined) {
        host.placed();
    }
    let ended = match joined {
        Ok(()) => serve(&core, &namespace, &drain).await,
        failed => failed,
    };
    if core.departure.successor().is_some() {
        operators.forget_own(&session).await;
    }
    stop(core, namespace).await;
    // This comes last: the platform may take long to release the machine, and the node no longer needs it.
    if let Some(Err(error)) = OptionFuture::from(host_task).await {
        warn!(%error, "the task of the hosting platform failed");
    }
    ended
}

/// Returns when the node is to stop, or when a part of it has failed: a node that stops is replaced, a node that does
/// only half its work is not.
async fn serve(core: &Core, namespace: &Namespace, drain: &Drain) -> Result<()> {
    tokio::select! {
        () = shutdown_requested(&core.killed, core.config.drain_on_term.then_some(drain)) => Ok(()),
        () = drain.finished() => Ok(()),
        reason = namespace.failed() => bail!("the namespace has stopped on this node: {reason}"),
    }
}

async fn stop(core: Core, namespace: Namespace) {
    info!("stopping");
    core.stage.set(NodeState::Gone);
    core.stop.cancel();
    core.tasks.close();
    core.tasks.wait().await;
    namespace.shutdown().await;
    core.sync_store().await;
}
