//! This node's side of the administration plane: its status and the calls that act on it.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use chordfs_namespace::{NO_NAMESPACE, Namespace};
use chordfs_net::clients::NamespaceClient;
use chordfs_store::{CacheStats, Store};
use chordfs_types::{
    admin::{CacheStatus, NamespaceStatus, NodeState, NodeStatus, StoreStatus, VoterLag, Work},
    chunk::ChunkName,
    chunk_api::ChunkList,
    fs_error::FsError,
    namespace::Query,
    ring_config::{CacheCapacity, RingConfig},
    ring_id::{NodeRef, RingArc},
};
use futures_util::future::BoxFuture;

use super::{arc_hand_over::ArcHandOver, disk_watch::DiskWatch, own_session::OwnSession, stage::Stage};
use crate::{
    config::ConfigFollower,
    driver::RingHandle,
    http::{admin::NodeAdmin, measured::RequestMeters},
    replica::{copy_traffic::CopyTraffic, departure::Departure},
    scrub::{Scrub, unix_now_secs},
};

/// A voter that has confirmed nothing for this long does not answer.
const VOTER_SILENCE: Duration = Duration::from_secs(5);

/// Gathers the node's status from its parts.
pub struct LocalAdmin {
    pub stage: Arc<Stage>,
    pub ring: RingHandle,
    pub store: Arc<Store>,
    pub disk: Arc<DiskWatch>,
    pub capacity_bytes: Option<u64>,
    pub traffic: Arc<CopyTraffic>,
    pub departure: Arc<Departure>,
    pub namespace: Namespace,
    pub session: OwnSession,
    pub scrub: Scrub,
    pub arcs: ArcHandOver,
    pub config: ConfigFollower,
    pub zone: Option<String>,
    pub requests: Arc<RequestMeters>,
    /// The ring has no identities.
    pub insecure: bool,
}

impl NodeAdmin for LocalAdmin {
    fn status(&self) -> NodeStatus {
        let (store, namespace) = (self.store.stats(), self.namespace.status());
        let (repair, drain) = (self.traffic.status(), self.departure.status());
        NodeStatus {
            state: self.stage.get(),
            neighbours: Some(self.ring.neighbours()),
            store: StoreStatus {
                chunks: store.chunks,
                data_bytes: store.live_bytes,
                free_bytes: store.free_bytes,
                capacity_bytes: self.capacity_bytes.unwrap_or(store.live_bytes + store.dead_bytes + store.free_bytes),
                disk: store.disk,
                problem: self.disk.problem(),
            },
            namespace: NamespaceStatus {
                voter: namespace.voter,
                leader: self.namespace.leader(),
                voters: self.namespace.voters(),
                known: self.namespace.id().is_some(),
                leads: namespace.leads,
                leader_confirmed: namespace.leader_confirmed,
                lags: namespace.lags.into_iter().map(voter_lag).collect(),
                leases: namespace.leases,
                logged: namespace.logged,
            },
            work: Work::of(&repair, self.departure.shown_drain().as_ref(), &self.scrub.status(), unix_now_secs()),
            repair,
            drain,
            cache: cache_status(&self.store.cache_stats(), &self.config.current()),
            zone: self.zone.clone(),
            requests: self.requests.requests.load(Relaxed),
            insecure: self.insecure,
        }
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if self.stage.get() != NodeState::Serving {
                return Err(format!("the node is {}", self.stage.get()));
            }
            if let Some(problem) = self.disk.problem() {
                return Err(format!("the disk cannot be used: {problem}"));
            }
            if self.namespace.id().is_none() {
                return Err(NO_NAMESPACE.to_owned());
            }
            let asked = NamespaceClient::query(&self.session, Query::StatFs).await;
            asked.map(drop).map_err(|error| error.to_string())
        })
    }

    fn local_chunks(&self, from: Option<u64>) -> BoxFuture<'_, Result<ChunkList, FsError>> {
        let own = self.ring.neighbours().node.id;
        Box::pin(self.arcs.list(RingArc::new(own, own), from.unwrap_or(0)))
    }

    fn hand_over(&self, to: NodeRef) -> BoxFuture<'_, Result<Vec<ChunkName>, FsError>> {
        Box::pin(self.arcs.give_arc(to))
    }
}

fn cache_status(stats: &CacheStats, config: &RingConfig) -> CacheStatus {
    let CacheStats { hits, misses, inserts, evictions, items, bytes, capacity_bytes, policy } = *stats;
    let reduced_from_bytes = match config.cache.capacity {
        CacheCapacity::Bytes(configured) if configured > capacity_bytes => Some(configured),
        _ => None,
    };
    CacheStatus {
        hits,
        misses,
        inserts,
        evictions,
        items,
        bytes,
        capacity_bytes,
        reduced_from_bytes,
        policy,
        config_version: config.version,
    }
}

fn voter_lag((voter, entries, silent_for): (SocketAddr, u64, Duration)) -> VoterLag {
    VoterLag { voter, entries, unresponsive: silent_for >= VOTER_SILENCE }
}
