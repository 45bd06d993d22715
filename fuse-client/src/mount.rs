//! One mount from start to end: connect to the namespace, mount, serve until an unmount or a signal, flush what was
//! written, and close the session. The requests themselves are handled by `fuse` and `fs`.

use std::{
    mem::ManuallyDrop,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use chordfs_identity::Role;
use chordfs_net::{
    allocator::{self, TrimSchedule},
    chunk_client::ChunkClient,
    clients::NamespaceClient,
    http_pool::HttpPool,
    ring_access::RingAccess,
    router::Router,
    session::{Session, SessionEvent, SessionOptions},
    transport::Connector,
};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, EntryName, FileKind, Ino, Query},
};
use fuser::{BackgroundSession, MountOption, SessionACL};
use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    daemon::Reporter,
    exit::MountError,
    fs::FileSystem,
    fuse::Mount,
    local_users::LocalUsers,
    mountpoint::{self, Device},
    notify::{self, Notices},
    options::{AtimeMode, Config, Options},
    resolving::resolve_while_cut_off,
    root_map::RootMap,
    source::MountSource,
    space_reports::SpaceReports,
    transfer::{GroupedPuts, Transfer, TransferSettings},
    urgency::Urgency,
    write_back::WriteBack,
};

/// How long to wait for a detached mount to end while programs still have files open in it.
const DETACH_GRACE: Duration = Duration::from_secs(5);
/// The deadline of a single look-up in the ring; an operation retries look-ups until its own deadline.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(2);
/// How long closing the session may take; a session that was not closed ends when its lease expires.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Mounts at `target`, which has been checked, and serves until the mount ends. Reports to `reporter` when the mount
/// is ready.
pub async fn run(config: &Config, target: &Path, reporter: &mut Reporter) -> Result<(), MountError> {
    let mut signals = Signals::install()?;
    let (connected, events) = tokio::select! {
        connected = connect(config, target) => connected?,
        () = signals.stop() => return Err(MountError::interrupted()),
    };
    if config.fake {
        connected.close_session().await;
        return reporter.ready().map_err(|_| MountError::interrupted());
    }
    tokio::spawn(connected.fs.clone().follow_feed(events));
    tokio::spawn(resolve_while_cut_off(connected.session.clone(), config.source.clone()));
    tokio::spawn(allocator::trim_regularly(TrimSchedule::MOUNT));
    let mounted = match connected.mount(config, target).await {
        Ok(mounted) => mounted,
        Err(failure) => {
            connected.close_session().await;
            return Err(failure);
        }
    };
    info!("{} is mounted on {}", config.source, target.display());
    match reporter.ready() {
        Ok(()) => serve(&connected, mounted, &mut signals).await,
        Err(_) => {
            mounted.detach();
            connected.close_session().await;
            Err(MountError::interrupted())
        }
    }
}

/// The client side of a mount, connected to the namespace and not yet mounted.
struct Connected {
    /// The ring lets this mount only read.
    read_only: bool,
    /// The ring lets root of this machine do only what others may do.
    squashes_root: bool,
    session: Session,
    fs: Arc<FileSystem>,
    root: RootMap,
    /// Taken by the thread that notifies the kernel.
    queue: parking_lot::Mutex<Option<notify::NoticeQueue>>,
}

type Events = mpsc::UnboundedReceiver<SessionEvent>;

async fn connect(config: &Config, target: &Path) -> Result<(Connected, Events), MountError> {
    let nodes = config.source.resolve().await?;
    let access = ring_access(config, target, &nodes).await?;
    let connector = access.connector().clone();
    let read_only = access.role().is_some_and(Role::is_read_only_client);
    let squashes_root = access.role().is_some_and(Role::squashes_root);
    let folder = mounted_folder(&config.source, &access)?;
    let (session, events) = open_session(config, target, nodes.clone(), connector.clone()).await?;
    let (leader, known) = (session.clone(), nodes.clone());
    tokio::spawn(access.keep_valid(move || leader.leader().into_iter().chain(known.iter().copied()).collect()));
    let urgency = Arc::<Urgency>::default();
    let (namespace, write_back) = namespace(&session, config, squashes_root, urgency.clone());
    let root = root_inode(&*namespace, &config.source, &folder).await?;
    let (notices, queue) = Notices::new();
    let chunks = chunk_client(nodes, connector, &session, &config.options);
    chunks.set_references(Arc::new(session.clone()));
    let transfer = transfer(namespace.clone(), chunks.clone(), &config.options, urgency);
    let space = SpaceReports::start(chunks);
    let space = Arc::new(move || space.clone().current().boxed());
    let fs = FileSystem::new(session.clone(), namespace, transfer, notices, space);
    claim_leases(&session, &fs, write_back.as_ref());
    if let Some(write_back) = write_back {
        let weak = Arc::downgrade(&fs);
        write_back.on_refusal(move || weak.upgrade().iter().for_each(|fs| fs.forget_everything()));
    }
    let queue = parking_lot::Mutex::new(Some(queue));
    let root = RootMap::new(root, config.options.shown);
    Ok((Connected { read_only, squashes_root, session, fs, root, queue }, events))
}

async fn ring_access(config: &Config, target: &Path, nodes: &[SocketAddr]) -> Result<RingAccess, MountError> {
    let name = client_name(target);
    let access = match &config.source.invitation {
        Some(invitation) => RingAccess::accept(invitation, &name).await,
        None => RingAccess::find(nodes, Role::Client, &name).await,
    };
    access.map_err(|error| {
        MountError::failure(format!("the ring of {} does not let this mount in: {error}", config.source))
    })
}

async fn open_session(
    config: &Config,
    target: &Path,
    nodes: Vec<SocketAddr>,
    connector: Connector,
) -> Result<(Session, Events), MountError> {
    let client = client_name(target);
    let options = SessionOptions { nodes, client, deadline: config.options.deadline, holds_leases: true };
    Session::open_over(Arc::new(connector), options)
        .await
        .map_err(|error| MountError::failure(format!("no node of {} can be reached: {error}", config.source)))
}

/// The session, behind the memory that answers changes before they are logged unless each is to be logged first. Where
/// root has no power it is so, too: the ring decides what root may do, and root is told at once.
fn namespace(
    session: &Session,
    config: &Config,
    squashes_root: bool,
    urgency: Arc<Urgency>,
) -> (Arc<dyn NamespaceClient>, Option<Arc<WriteBack>>) {
    let flags = &config.options.flags;
    if flags.sync || flags.dirsync || squashes_root {
        return (Arc::new(session.clone()), None);
    }
    let write_back = WriteBack::start(Arc::new(session.clone()), urgency);
    (write_back.clone(), Some(write_back))
}

/// From a new leader the session claims the leases under which something was answered that only this mount knows.
fn claim_leases(session: &Session, fs: &Arc<FileSystem>, write_back: Option<&Arc<WriteBack>>) {
    let (fs, write_back) = (Arc::downgrade(fs), write_back.map(Arc::downgrade));
    session.claim_leases(move || {
        let unlogged = write_back.as_ref().and_then(Weak::upgrade).map(|write_back| write_back.unlogged_inos());
        let locked = fs.upgrade().map(|fs| fs.alone_locked_inos());
        unlogged.into_iter().chain(locked).flatten().collect()
    });
}

/// The folder that becomes the root of the mount: the named one, or that to which this mount is bound.
fn mounted_folder(source: &MountSource, access: &RingAccess) -> Result<Vec<EntryName>, MountError> {
    let bound =
        access.folder().map_err(|error| MountError::failure(format!("the folder of this identity: {error}")))?;
    if source.path.is_empty() {
        return Ok(bound);
    }
    if source.path.starts_with(&bound) {
        return Ok(source.path.clone());
    }
    let bound: String = bound.iter().map(|name| format!("/{name}")).collect();
    Err(MountError::failure(format!("the ring lets this mount see {bound} only, and {source} names another folder")))
}

/// Looks the folder up step by step, so that it is known where its own folders are.
async fn root_inode(
    namespace: &dyn NamespaceClient,
    source: &MountSource,
    folder: &[EntryName],
) -> Result<Ino, MountError> {
    let wrong = |why: &dyn std::fmt::Display| MountError::failure(format!("the folder named by {source}: {why}"));
    let mut at = Ino::ROOT;
    for name in folder {
        match namespace.query(Query::Lookup { parent: at, name: name.clone() }).await {
            Ok(Answer::Attr(attr)) if attr.kind == FileKind::Directory => at = attr.ino,
            Ok(Answer::Attr(_)) => return Err(wrong(&FsError::NotDirectory)),
            Ok(other) => return Err(MountError::bug(format!("look {name} up: unexpected reply {other:?}"))),
            Err(error) => return Err(wrong(&error)),
        }
    }
    Ok(at)
}

fn chunk_client(
    nodes: Vec<SocketAddr>,
    connector: Connector,
    session: &Session,
    options: &Options,
) -> Arc<ChunkClient> {
    let router = Arc::new(Router::over(Arc::new(connector.clone()), nodes, LOOK_UP_DEADLINE));
    let session = session.clone();
    router.also_begin_with(move || session.leader());
    ChunkClient::new(router, Arc::new(HttpPool::over(connector)), options.deadline)
}

fn transfer(
    namespace: Arc<dyn NamespaceClient>,
    chunks: Arc<ChunkClient>,
    options: &Options,
    urgency: Arc<Urgency>,
) -> Arc<Transfer> {
    let settings = TransferSettings {
        cache_bytes: options.cache_bytes,
        dirty_bytes: options.dirty_bytes,
        deadline: options.deadline,
        ..TransferSettings::default()
    };
    let chunks = Arc::new(GroupedPuts::new(chunks, Handle::current(), urgency.clone()));
    Transfer::start(namespace, chunks, Handle::current(), settings, urgency)
}

impl Connected {
    /// Returns when the mount is ready. Dropping the returned value does not unmount: see [`Mounted::detach`].
    async fn mount(&self, config: &Config, target: &Path) -> Result<Mounted, MountError> {
        let (timeouts, deadline) = (config.options.timeouts, config.options.deadline);
        let users = LocalUsers { squashes_root: self.squashes_root };
        let (mount, ended) = Mount::new(self.fs.clone(), Handle::current(), self.root, users, timeouts, deadline);
        let mount = mount.with_local_locks(config.options.local_locks);
        // On a read-only mount nothing changes.
        let is_read_only = self.read_only || config.options.flags.read_only;
        self.fs.note_atimes(if is_read_only { AtimeMode::Never } else { config.options.atime });
        let (kernel_config, path) = (kernel_config(config, self.read_only), target.to_owned());
        let session = tokio::task::spawn_blocking(move || fuser::Session::new(mount, path, &kernel_config))
            .await
            .map_err(MountError::bug)?
            .map_err(|error| MountError::failure(format!("cannot mount on {}: {error}", target.display())))?;
        let queue = self.queue.lock().take().ok_or_else(|| MountError::bug("mounted twice"))?;
        notify::start(queue, session.notifier(), self.root)
            .map_err(|error| MountError::system(format!("start the thread that notifies the kernel: {error}")))?;
        let device = mountpoint::mounted_device(target);
        device.iter().for_each(mountpoint::raise_read_ahead);
        let kernel = session.spawn().map_err(|error| MountError::system(format!("start serving: {error}")))?;
        Ok(Mounted { path: target.to_owned(), device, ended, _kernel: ManuallyDrop::new(kernel) })
    }

    /// Stores and commits everything written; a failure is also logged.
    async fn flush(&self) -> Result<(), FsError> {
        self.fs.flush_all().await.inspect_err(|failure| error!("data written to files may be lost: {failure}"))
    }

    async fn close_session(&self) {
        match timeout(CLOSE_DEADLINE, self.session.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => warn!("cannot close the session, its lease will expire: {failure}"),
            Err(_) => warn!("cannot close the session, its lease will expire: no reply within {CLOSE_DEADLINE:?}"),
        }
    }
}

struct Mounted {
    path: PathBuf,
    /// `None` if it was unmounted again at once.
    device: Option<Device>,
    ended: oneshot::Receiver<()>,
    /// Never dropped: dropping unmounts whatever is mounted on the folder by then, even another program's mount.
    _kernel: ManuallyDrop<BackgroundSession>,
}

impl Mounted {
    fn detach(&self) {
        let Some(device) = &self.device else { return };
        if let Err(failure) = mountpoint::unmount(&self.path, device) {
            error!("cannot unmount {}: {failure}", self.path.display());
        }
    }
}

async fn serve(connected: &Connected, mut mounted: Mounted, signals: &mut Signals) -> Result<(), MountError> {
    let mut still_in_use = false;
    tokio::select! {
        _ended = &mut mounted.ended => info!("{} was unmounted", mounted.path.display()),
        () = signals.stop() => {
            info!("asked to stop: unmounting {}", mounted.path.display());
            let _logged_and_tried_again_below = connected.flush().await;
            mounted.detach();
            still_in_use = timeout(DETACH_GRACE, &mut mounted.ended).await.is_err();
            if still_in_use {
                warn!("programs still have files open in {}; their requests are aborted", mounted.path.display());
            }
        }
    }
    let flushed = connected.flush().await;
    // Has no effect if the mount is gone; it still exists if serving ended because of an error.
    mounted.detach();
    if still_in_use {
        mounted.device.iter().for_each(mountpoint::abort);
    }
    connected.close_session().await;
    flushed.map_err(|failure| MountError::failure(format!("data written to files may be lost: {failure}")))
}

fn kernel_config(config: &Config, read_only: bool) -> fuser::Config {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut flags = config.options.flags.clone();
    flags.read_only |= read_only;
    let mut options = flags.mount_options();
    options.push(MountOption::DefaultPermissions);
    options.push(MountOption::FSName(config.source.fsname()));
    // Passed as an option for the kernel, since fuser passes its own `Subtype` to fusermount3 only.
    options.push(MountOption::CUSTOM("subtype=chordfs".to_owned()));
    let mut kernel = fuser::Config::default();
    kernel.mount_options = options;
    kernel.acl = if config.options.allow_other { SessionACL::All } else { SessionACL::Owner };
    kernel.n_threads = Some(cores.clamp(2, 4));
    kernel
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, MountError> {
        let catch = |kind| signal(kind).map_err(|error| MountError::system(format!("catch signals: {error}")));
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// Returns when SIGTERM or SIGINT arrives.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How operators see this mount.
fn client_name(target: &Path) -> String {
    format!("{}:{}", host_name(), target.display())
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}
