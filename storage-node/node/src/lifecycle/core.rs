//! The lowest stage: what a node has before it belongs to a namespace.

use std::sync::Arc;

use anyhow::Result;
use chordfs_net::{
    http_pool::HttpPool,
    router::Router,
    transport::{Acceptor, Connector},
};
use chordfs_store::{DataFolder, Store, StoreOptions};
use chordfs_types::{placement::Zone, ring_id::RingId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{config::NodeConfig, load::load};
use crate::{
    blocking::with_store,
    driver::{self, DriverSettings, RingHandle},
    identity::{Newcomer, NodeIdentity, RevokedIdentities, identity_of},
    node::{disk_watch::DiskWatch, stage::Stage},
    replica::{copy_traffic::CopyTraffic, departure::Departure, peer::Peers},
};

/// The data folder, the store, and the node's part in the ring, which sends nothing until `answering`.
pub(super) struct Core {
    pub config: NodeConfig,
    pub folder: DataFolder,
    pub store: Arc<Store>,
    pub disk: Arc<DiskWatch>,
    /// `None`: the ring has no identities.
    pub identity: Option<Arc<NodeIdentity>>,
    pub revoked: RevokedIdentities,
    /// How this node connects to others.
    pub connector: Connector,
    pub pool: Arc<HttpPool>,
    pub peers: Peers,
    pub ring: RingHandle,
    pub traffic: Arc<CopyTraffic>,
    pub departure: Arc<Departure>,
    pub stage: Arc<Stage>,
    /// Cancelled once the ports are open. Before that the node sends nothing to the ring.
    pub answering: CancellationToken,
    /// Cancelled when the node is to stop.
    pub stop: CancellationToken,
    /// Cancelled by the ring's call `kill`.
    pub killed: CancellationToken,
    /// The tasks that have to end before the process does.
    pub tasks: TaskTracker,
}

impl Core {
    pub(super) async fn open(config: NodeConfig, folder: DataFolder) -> Result<Self> {
        let identity = identity_of(Newcomer {
            folder: &folder,
            address: config.address,
            join: &config.join,
            founds: config.found_namespace,
            security: &config.security,
            deadline: config.join_deadline,
        });
        let identity = identity.await?.map(Arc::new);
        let connector = identity.as_ref().map_or(Connector::Plain, |identity| Connector::over(identity.tls()));
        let revoked =
            identity.as_ref().map(|_| RevokedIdentities::load(folder.path().join("identity").join("revoked")));
        let revoked = revoked.unwrap_or_default();
        let store = open_store(&folder, config.store.clone()).await?;
        let pool = Arc::new(HttpPool::over(connector.clone()));
        let peers = Peers::new(pool.clone(), config.peer_deadline);
        let (traffic, departure) = (Arc::new(CopyTraffic::new(config.repair_rate)), Arc::new(Departure::default()));
        let (stop, killed, answering) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let settings = DriverSettings {
            load: load(&store, &traffic, &departure),
            silent_until: Some(answering.clone()),
            connector: connector.clone(),
            plain: config.security.plain.clone(),
            ..driver_settings(&config, &folder, &killed)
        };
        let ring = driver::start(settings, config.address, stop.clone()).await?;
        let (stage, tasks, disk) = (Arc::default(), TaskTracker::new(), Arc::default());
        Ok(Self {
            config,
            folder,
            store,
            disk,
            identity,
            revoked,
            connector,
            pool,
            peers,
            ring,
            traffic,
            departure,
            stage,
            answering,
            stop,
            killed,
            tasks,
        })
    }

    /// Makes a router. Every user has its own, because what one user learns must not affect another.
    pub(super) fn router(&self) -> Arc<Router> {
        let dialer = Arc::new(self.connector.clone());
        Arc::new(Router::over(dialer, vec![self.config.address], self.config.look_up_deadline))
    }

    /// Takes the connections of others.
    pub(super) fn acceptor(&self) -> Acceptor {
        let plain = &self.config.security.plain;
        self.identity.as_ref().map_or_else(Acceptor::default, |identity| Acceptor::over(identity.tls(), plain.clone()))
    }

    pub(super) async fn sync_store(&self) {
        if let Err(error) = with_store(&self.store, Store::sync).await {
            warn!(%error, "the chunk store was not synced");
        }
    }
}

async fn open_store(folder: &DataFolder, options: StoreOptions) -> Result<Arc<Store>> {
    let folder = folder.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&folder, options)).await??;
    let stats = store.stats();
    info!(chunks = stats.chunks, bytes = stats.live_bytes, "opened the chunk store");
    Ok(Arc::new(store))
}

fn driver_settings(config: &NodeConfig, folder: &DataFolder, kill: &CancellationToken) -> DriverSettings {
    DriverSettings {
        id: config.id.map(RingId),
        zone: config.zone.as_deref().map(Zone::of_name),
        kill: config.allow_kill.then(|| kill.clone()),
        ..DriverSettings::new(folder.path().to_owned())
    }
}
