//! A node's life: open the folder, listen, take a place on the ring and in the namespace, serve, stop.
//!
//! The parts are put together here and nowhere else. Order matters three times: no port is taken before the folder is ours;
//! the planes answer before the node says its first word in the ring, because the others call back at once; and nobody can
//! connect before they answer, because a node that is called and says nothing counts as stopped, and costs its callers a
//! second.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use chordfs_namespace::{self, Namespace, NamespaceConfig, garbage::Deleter};
use chordfs_net::{
    chunk_client::ChunkClient,
    http_pool::HttpPool,
    router::Router,
    rpc::{self, RpcLimits},
    session::{Session, SessionOptions},
};
use chordfs_store::{DataFolder, Store, StoreOptions};
use chordfs_types::{
    admin::NodeState,
    chunk::ChunkRun,
    placement::Zone,
    rate_limit::RateLimit,
    ring_id::{NodeAddress, RingId},
};
use futures_util::future::{BoxFuture, join_all};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    drain::{self, Drain, DrainSettings, shutdown_requested},
    driver::{self, DriverSettings, Load, RingHandle},
    files::{FileDefaults, FileService},
    http::{
        admin::{AdminOptions, HealthSource, admin_router},
        chunks::{self, ChunkPlane},
        files::{FilesOptions, files_router},
        metrics::install_recorder,
        server::{self, ServerOptions},
    },
    node::{Node, OwnSession, Stage, copies_floor},
    replica::{departure::Departure, peer::Peers, repair::Repair, traffic::Traffic, write::Writer},
    scrub::{self, Scrub},
    status,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub data: PathBuf,
    /// Ring address; the other planes use the next two ports.
    pub address: SocketAddr,
    /// Where to listen, if others reach the node by an address that is translated on its way here.
    pub listen: Option<IpAddr>,
    pub join: Vec<SocketAddr>,
    pub id: Option<u32>,
    /// What fails together with this node: an availability zone, a rack.
    pub zone: Option<String>,
    pub store: StoreOptions,
    pub allow_kill: bool,
    /// The first SIGTERM drains the node instead of stopping it.
    pub drain_on_term: bool,
    /// One request between nodes.
    pub peer_deadline: Duration,
    /// One question to the ring.
    pub look_up_deadline: Duration,
    /// An operation on behalf of a script or a browser.
    pub operation_deadline: Duration,
    /// How long to go on asking the members named in `join`.
    pub join_deadline: Duration,
    pub repair_period: Duration,
    /// What repair and filling may move in a second.
    pub repair_rate: RateLimit,
    pub compact_period: Duration,
    pub scrub: scrub::Settings,
}

impl NodeConfig {
    pub fn new(data: PathBuf, address: SocketAddr) -> Self {
        Self {
            data,
            address,
            listen: None,
            join: Vec::new(),
            id: None,
            zone: None,
            store: StoreOptions::default(),
            allow_kill: false,
            drain_on_term: false,
            peer_deadline: Duration::from_secs(10),
            look_up_deadline: Duration::from_secs(2),
            operation_deadline: Duration::from_secs(30),
            join_deadline: Duration::from_secs(60),
            repair_period: Duration::from_secs(8),
            repair_rate: RateLimit::default(),
            compact_period: Duration::from_secs(2),
            scrub: scrub::Settings::default(),
        }
    }

    fn listens_at(&self) -> SocketAddr {
        SocketAddr::new(self.listen.unwrap_or(self.address.ip()), self.address.port())
    }
}

/// Hooks for the platform that a node runs on, such as the cloud its machine belongs to.
pub trait HostEnvironment: Send + Sync + 'static {
    /// Additional routes for the administration port.
    fn routes(&self) -> axum::Router;
    /// A field of `/healthz`: its name and its value.
    fn health(&self) -> (&'static str, serde_json::Value);
    /// Called once the node has taken its place in the ring.
    fn placed(&self);
    /// Runs beside the node from its start; the process does not end before this returns, after `stop`.
    fn attend(self: Arc<Self>, drain: Drain, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

/// Runs a node until SIGTERM, SIGINT or the ring's `kill`.
pub async fn run(config: NodeConfig) -> Result<()> {
    run_in(config, None).await
}

/// Like [`run`], with hooks for the hosting platform.
pub async fn run_in(config: NodeConfig, around: Option<Arc<dyn HostEnvironment>>) -> Result<()> {
    let folder = DataFolder::open(&config.data)?;
    let ports = Ports::take(config.listens_at())?;
    let store = open_store(&folder, config.store.clone()).await?;
    let (stop, killed) = (CancellationToken::new(), CancellationToken::new());
    let tasks = TaskTracker::new();
    let parts = Parts { folder: &folder, store, stop: &stop, killed: &killed, tasks: &tasks, around: around.clone() };
    let (node, drain) = assemble(&config, parts, ports).await?;
    let attending = around.clone().map(|around| tokio::spawn(around.attend(drain.clone(), stop.clone())));
    let joined = tokio::select! {
        joined = take_place(&config, &node) => joined,
        () = shutdown_requested(&killed, None) => Ok(()),
    };
    if let (Some(around), Ok(())) = (&around, &joined) {
        around.placed();
    }
    let ended = match joined {
        Ok(()) => serve(&config, &node, &drain, &killed).await,
        failed => failed,
    };
    info!("stopping");
    node.stage.set(NodeState::Gone);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    if let Some(namespace) = node.namespace.get() {
        namespace.shutdown().await;
    }
    sync_store(&node.store).await;
    // Last of all: what is around may take its time to let the machine go, and nothing of the node is up any more.
    if let Some(Err(error)) = futures_util::future::OptionFuture::from(attending).await {
        warn!(%error, "what is around the node ended before it");
    }
    ended
}

/// Until somebody asks it to stop, or it can no longer do its part: better gone, and replaced, than half there.
async fn serve(config: &NodeConfig, node: &Node, drain: &Drain, killed: &CancellationToken) -> Result<()> {
    let namespace = node.namespace.get().context("the namespace is started before the node serves")?;
    tokio::select! {
        () = shutdown_requested(killed, config.drain_on_term.then_some(drain)) => Ok(()),
        () = drain.finished() => Ok(()),
        reason = namespace.failed() => bail!("the namespace has stopped on this node: {reason}"),
    }
}

/// The ports of the three planes: taken, and until [`Port::listen`] nobody can connect.
struct Ports {
    ring: Port,
    files: Port,
    admin: Port,
}

impl Ports {
    fn take(ring: SocketAddr) -> Result<Self> {
        let node = NodeAddress(ring);
        Ok(Self { ring: Port::take(node.ring())?, files: Port::take(node.files())?, admin: Port::take(node.admin())? })
    }
}

struct Port {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Port {
    fn take(address: SocketAddr) -> Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let bound = socket.and_then(|socket| {
            // The connections of an earlier process may still be closing.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        });
        let socket = bound.map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    ": this machine has no such address; if it is translated on its way here, say with --listen where to listen"
                }
                _ => "",
            };
            anyhow::Error::new(error).context(format!("cannot listen on {address}{advice}"))
        })?;
        Ok(Self { address, socket })
    }

    fn listen(self) -> Result<TcpListener> {
        self.socket.listen(BACKLOG).with_context(|| format!("cannot listen on {}", self.address))
    }
}

async fn open_store(folder: &DataFolder, options: StoreOptions) -> Result<Arc<Store>> {
    let folder = folder.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&folder, options)).await??;
    let stats = store.stats();
    info!(chunks = stats.chunks, bytes = stats.live_bytes, "opened the chunk store");
    Ok(Arc::new(store))
}

/// What is there before the node is.
struct Parts<'a> {
    folder: &'a DataFolder,
    store: Arc<Store>,
    stop: &'a CancellationToken,
    killed: &'a CancellationToken,
    tasks: &'a TaskTracker,
    around: Option<Arc<dyn HostEnvironment>>,
}

async fn assemble(config: &NodeConfig, parts: Parts<'_>, ports: Ports) -> Result<(Arc<Node>, Drain)> {
    let Parts { folder, store, stop, killed, tasks, around } = parts;
    let pool = Arc::new(HttpPool::new());
    let peers = Peers::new(pool.clone(), config.peer_deadline);
    let traffic = Arc::new(Traffic::new(config.repair_rate));
    let departure = Arc::new(Departure::default());
    let answering = CancellationToken::new();
    let settings = DriverSettings {
        load: load(&store, &traffic, &departure),
        silent_until: Some(answering.clone()),
        ..driver_settings(config, folder, killed)
    };
    let ring = driver::start(settings, config.address, stop.clone()).await?;
    let neighbours = ring.watch_keepers();

    let (opened, session) = watch::channel(None);
    let session = OwnSession::new(session, config.operation_deadline);
    let node = Arc::new(Node {
        stage: Stage::default(),
        ring: ring.clone(),
        store: store.clone(),
        peers: peers.clone(),
        session: session.clone(),
        traffic: traffic.clone(),
        namespace: OnceLock::new(),
        scrub: OnceLock::new(),
        capacity_bytes: config.store.capacity_bytes,
        departure: departure.clone(),
    });
    let namespace = Namespace::start(NamespaceConfig {
        uid: folder.node_uid(),
        node: config.address,
        dir: folder.path().to_owned(),
        neighbours: neighbours.clone(),
        create: config.join.is_empty(),
        join: config.join.clone(),
        pool: pool.clone(),
        deleter: deleter(ring.clone(), peers.clone()),
        settings: chordfs_namespace::Settings::default(),
    })
    .await?;
    node.namespace.set(namespace.clone()).ok().context("the namespace was started twice")?;

    let repair = Arc::new(Notify::new());
    let floor = {
        let namespace = namespace.clone();
        Arc::new(move || copies_floor(&namespace))
    };
    let writer = Arc::new(Writer {
        store: store.clone(),
        peers: peers.clone(),
        neighbours: neighbours.clone(),
        floor,
        repair: repair.clone(),
        traffic: traffic.clone(),
        deadline: config.peer_deadline,
        departure: departure.clone(),
    });
    let own = vec![config.address];
    let router = || Arc::new(Router::new(own.clone(), config.look_up_deadline));
    let scrub = Scrub::new(scrub::Parts {
        folder: folder.subfolder("scrub")?,
        store: store.clone(),
        ring,
        peers: peers.clone(),
        pool: pool.clone(),
        router: router(),
        session: Arc::new(session.clone()),
        namespace: namespace.clone(),
        repair: repair.clone(),
        settings: config.scrub.clone(),
    });
    scrub.start(tasks, stop);
    node.scrub.set(scrub.clone()).ok().context("the scrub was started twice")?;
    let drain = Drain::new(node.clone(), pool.clone(), DrainSettings::default());
    let chunk_client = Arc::new(ChunkClient::new(router(), pool.clone(), config.operation_deadline));
    chunk_client.set_registry(Arc::new(session.clone()));
    let files = FileService::over(Arc::new(session), chunk_client, FileDefaults::default());
    let file_plane = chunks::routes(ChunkPlane { store: store.clone(), writer, traffic: traffic.clone() })
        .merge(files_router(files, FilesOptions::default()));
    let metrics = install_recorder().map_err(anyhow::Error::msg)?;
    let beside = around.as_ref().map_or_else(axum::Router::new, |around| around.routes());
    let health = around.map(|around| -> HealthSource { Arc::new(move || around.health()) });
    let admin_plane = admin_router(node.clone(), metrics, AdminOptions { health, ..AdminOptions::default() })
        .merge(beside)
        .merge(namespace.routes())
        .merge(status::routes(node.clone(), pool))
        .merge(scrub.routes())
        .merge(drain::routes(node.clone(), drain.clone()));

    tasks.spawn(rpc::serve(ports.ring.listen()?, node.clone(), RpcLimits::default(), stop.clone()));
    let options = ServerOptions::default();
    tasks.spawn(server::serve(ports.files.listen()?, file_plane, options.clone(), stop.clone().cancelled_owned()));
    tasks.spawn(server::serve(ports.admin.listen()?, admin_plane, options, stop.clone().cancelled_owned()));
    answering.cancel();
    let repair = Repair {
        store: store.clone(),
        peers,
        router: router(),
        neighbours,
        wake: repair,
        traffic,
        period: config.repair_period,
        departure,
    };
    tasks.spawn(repair.run(stop.clone()));
    tasks.spawn(compact(store, config.compact_period, stop.clone()));
    tasks.spawn(open_session(config.address, opened, stop.clone()));
    Ok((node, drain))
}

fn driver_settings(config: &NodeConfig, folder: &DataFolder, kill: &CancellationToken) -> DriverSettings {
    DriverSettings {
        id: config.id.map(RingId),
        zone: config.zone.as_deref().map(Zone::of_name),
        kill: config.allow_kill.then(|| kill.clone()),
        ..DriverSettings::new(folder.path().to_owned())
    }
}

/// What positions are chosen by: all that is kept here, once that is what should be kept here.
fn load(store: &Arc<Store>, traffic: &Arc<Traffic>, departure: &Arc<Departure>) -> Arc<dyn Fn() -> Load + Send + Sync> {
    let (store, traffic, departure) = (store.clone(), traffic.clone(), departure.clone());
    Arc::new(move || match departure.drains() {
        true => Load::Leaving,
        false if traffic.status().rests() && traffic.keeps_no_surplus() => Load::Holds(store.stats().live_bytes),
        false => Load::Moving,
    })
}

/// Joins through any of the members named; a node that is told of none begins a ring, or finds the one it remembers.
async fn take_place(config: &NodeConfig, node: &Node) -> Result<()> {
    node.stage.set(NodeState::Joining);
    enter(config, &node.ring).await?;
    node.stage.set(NodeState::Serving);
    info!(node = %node.ring.me(), "in the ring");
    Ok(())
}

async fn enter(config: &NodeConfig, ring: &RingHandle) -> Result<()> {
    let end = Instant::now() + config.join_deadline;
    loop {
        match ring.enter(&config.join).await {
            Ok(()) => return Ok(()),
            // A node with a memory finds its ring again by itself, also when the members it was told are gone.
            Err(error) if ring.remembers() => {
                info!(%error, "not joined through the nodes that were named; looking for the ring it remembers");
                return Ok(());
            }
            Err(error) if Instant::now() > end => {
                bail!("cannot join the ring within {:?}: {error}", config.join_deadline)
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Deletes dead versions on every node of the ring; the error names all that did not.
fn deleter(ring: RingHandle, peers: Peers) -> Deleter {
    Arc::new(move |runs: Vec<ChunkRun>| {
        let (ring, peers) = (ring.clone(), peers.clone());
        Box::pin(async move {
            let members = ring.keeping_members().await.map_err(|error| error.to_string())?;
            let deleted = join_all(members.iter().map(|node| peers.delete(node, &runs))).await;
            let failed: Vec<String> =
                deleted.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
            if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
        })
    })
}

/// Rewrites piece by piece, at the rate that the reason allows; with nothing to do it looks again after `period`.
async fn compact(store: Arc<Store>, period: Duration, stop: CancellationToken) {
    loop {
        let (began, step) = (Instant::now(), store.clone());
        let pause = match tokio::task::spawn_blocking(move || step.compact()).await {
            Ok(Ok(Some(moved))) => moved.why.pause(moved.bytes, began.elapsed()),
            Ok(Ok(None)) => period,
            Ok(Err(error)) => {
                warn!(%error, "a segment could not be rewritten");
                period
            }
            Err(error) => {
                warn!(%error, "rewriting segments failed");
                period
            }
        };
        tokio::select! { biased; () = stop.cancelled() => return, () = sleep(pause) => {} }
    }
}

/// Goes on until the namespace answers: a node may start long before its peers.
async fn open_session(own: SocketAddr, opened: watch::Sender<Option<Session>>, stop: CancellationToken) {
    loop {
        let options = SessionOptions::new(vec![own], format!("storage-node {own}"));
        let session = tokio::select! { session = Session::open(options) => session, () = stop.cancelled() => return };
        match session {
            Ok((session, mut feed)) => {
                opened.send_replace(Some(session));
                // The node caches nothing of the namespace, so the feed is only kept flowing.
                loop {
                    tokio::select! { event = feed.recv() => if event.is_none() { break }, () = stop.cancelled() => return }
                }
            }
            Err(error) => info!(%error, "the namespace is not there yet"),
        }
    }
}

async fn sync_store(store: &Arc<Store>) {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || store.sync()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the chunk store was not synced"),
        Err(error) => warn!(%error, "syncing the chunk store failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_load_is_told_once_it_is_what_should_be_here_and_a_drain_before_anything() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(folder.path()).expect("it is free");
        let store = open_store(&folder, StoreOptions::default()).await.expect("it is empty");
        let (traffic, departure) = (Arc::new(Traffic::default()), Arc::new(Departure::default()));
        let load = load(&store, &traffic, &departure);
        traffic.holders_are(&[]);
        assert_eq!(load(), Load::Moving, "copies beyond the third were not looked for yet");
        traffic.surplus_is_gone();
        assert_eq!(load(), Load::Holds(0));
        traffic.neighbours_changed();
        assert_eq!(load(), Load::Moving);
        departure.begin();
        traffic.surplus_is_gone();
        assert_eq!(load(), Load::Leaving);
        departure.cancel();
        assert_eq!(load(), Load::Holds(0));
    }
}
