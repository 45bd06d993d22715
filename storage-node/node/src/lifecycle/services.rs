//! The middle stage: the node's work on chunks and names, on top of its core.

use std::{io, sync::Arc};

use anyhow::{Context, Result};
use chordfs_namespace::{Namespace, NamespaceConfig, NamespaceSettings, UidRenewal};
use chordfs_net::{operator_token::link_token, session::Session};
use chordfs_store::DataFolder;
use chordfs_types::chunk_api::REPLICAS;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::{compaction::compact, core::Core, deleter::deleter, placer::placer};
use crate::{
    config::ConfigFollower,
    files::FilesRead,
    node::own_session::{OwnSession, keep_open},
    operator::AcceptedTokens,
    replica::{repair::Repair, write::Writer},
    scrub::{self, Scrub},
};

/// The services need no open port; the tasks that call other nodes start with [`Services::begin`].
pub(super) struct Services {
    pub namespace: Namespace,
    pub session: OwnSession,
    pub writer: Arc<Writer>,
    pub scrub: Scrub,
    pub files_read: Arc<FilesRead>,
    pub config: ConfigFollower,
    pub operators: AcceptedTokens,
    repair: Repair,
    opened: watch::Sender<Option<Session>>,
}

impl Services {
    pub(super) async fn start(core: &Core) -> Result<Self> {
        let namespace = start_namespace(core).await?;
        let (opened, session) = watch::channel(None);
        let session = OwnSession::new(session, core.config.operation_deadline);
        let wake = Arc::new(Notify::new());
        let writer = Arc::new(writer(core, namespace.clone(), wake.clone()));
        let scrub = scrub(core, &namespace, &session, wake.clone())?;
        let repair = repair(core, wake);
        let config = ConfigFollower::start(&core.folder, core.store.clone());
        let operators = operators(core)?;
        let files_read = Arc::default();
        Ok(Self { namespace, session, writer, scrub, files_read, config, operators, repair, opened })
    }

    /// Starts the background tasks, once other nodes can reach this one.
    pub(super) fn begin(self, core: &Core) {
        let Core { config, store, stop, tasks, .. } = core;
        self.scrub.start(tasks, stop);
        tasks.spawn(self.repair.run(stop.clone()));
        let (disk, folder, stopped) = (core.disk.clone(), core.folder.path().to_owned(), stop.clone());
        tasks.spawn(async move { disk.run(folder, stopped).await });
        tasks.spawn(compact(store.clone(), config.compact_period, stop.clone()));
        let session = Arc::new(self.session);
        tasks.spawn(self.config.run(session.clone(), stop.clone()));
        tasks.spawn(self.operators.run(session.clone(), stop.clone()));
        if let Some(identity) = &core.identity {
            tasks.spawn(identity.clone().keep_valid(session.clone(), stop.clone()));
            tasks.spawn(core.revoked.clone().run(session.clone(), stop.clone()));
        }
        let dialer = Arc::new(core.connector.clone());
        tasks.spawn(keep_open(dialer, config.address, self.opened, self.files_read, stop.clone()));
    }
}

fn operators(core: &Core) -> Result<AcceptedTokens> {
    let (folder, address) = (core.folder.path(), core.config.address);
    let tokens = AcceptedTokens::start(folder.to_owned(), core.folder.node_uid(), address);
    let tokens = tokens.context("the operator's token")?;
    if let Err(error) = link_token(folder, address) {
        warn!(%error, "`storage-node` on this machine has to be told where the operator's token is (--token-file)");
    }
    Ok(tokens)
}

async fn start_namespace(core: &Core) -> Result<Namespace> {
    let config = &core.config;
    let namespace = Namespace::start(NamespaceConfig {
        uid: core.folder.node_uid(),
        renew_uid: renew_uid(core.folder.clone()),
        node: config.address,
        dir: core.folder.path().to_owned(),
        neighbours: core.ring.watch_storage_nodes(),
        create: (config.join.is_empty() || config.found_namespace) && !core.ring.remembers_peers(),
        join: config.join.clone(),
        pool: core.pool.clone(),
        deleter: deleter(core.ring.clone(), core.peers.clone()),
        placer: placer(core),
        settings: NamespaceSettings { root_owner: config.root_owner, ..NamespaceSettings::default() },
    });
    Ok(namespace.await?)
}

fn renew_uid(folder: DataFolder) -> UidRenewal {
    Arc::new(move || folder.renew_uid().map_err(io::Error::other))
}

fn writer(core: &Core, namespace: Namespace, repair: Arc<Notify>) -> Writer {
    Writer {
        store: core.store.clone(),
        peers: core.peers.clone(),
        neighbours: core.ring.watch_storage_nodes(),
        floor: Arc::new(move || copies_floor(&namespace)),
        repair,
        traffic: core.traffic.clone(),
        deadline: core.config.peer_deadline,
        departure: core.departure.clone(),
        small_puts: Default::default(),
    }
}

fn repair(core: &Core, wake: Arc<Notify>) -> Repair {
    let ring = core.ring.clone();
    Repair {
        store: core.store.clone(),
        peers: core.peers.clone(),
        router: core.router(),
        neighbours: core.ring.watch_storage_nodes(),
        wake,
        traffic: core.traffic.clone(),
        period: core.config.repair_period,
        restart_grace: core.config.restart_grace,
        is_foreign: Arc::new(move |node| ring.is_foreign(node)),
        departure: core.departure.clone(),
    }
}

fn scrub(core: &Core, namespace: &Namespace, session: &OwnSession, repair: Arc<Notify>) -> Result<Scrub> {
    Ok(Scrub::new(scrub::ScrubDependencies {
        folder: core.folder.subfolder("scrub")?,
        store: core.store.clone(),
        ring: core.ring.clone(),
        peers: core.peers.clone(),
        pool: core.pool.clone(),
        router: core.router(),
        session: Arc::new(session.clone()),
        namespace: namespace.clone(),
        repair,
        settings: core.config.scrub.clone(),
    }))
}

/// The fewest copies with which a write is acknowledged, even if this node sees no other nodes at the moment: after a
/// restart, a node of a larger ring waits for the others.
fn copies_floor(namespace: &Namespace) -> usize {
    match namespace.voters().len() {
        1 if namespace.is_voter() => 1,
        _ => REPLICAS.min(2),
    }
}
