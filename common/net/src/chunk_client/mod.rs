//! Stores and fetches chunks: groups them by owner, sends the groups side by side, follows the ring when it moves.
//!
//! A put goes once, to the owner, which passes it on. A get goes to the owner and, for what is missing there, on to the
//! next holders: during a join the new owner may not have been filled yet. Either way an unresponsive node costs a
//! second, since other holders can answer too; and what fails is retried until the deadline, by a route learnt anew.

mod batch;
mod durability_check;
mod get;
mod put;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, FileName},
    chunk_api::{REPLICAS, Space, calls},
    fs_error::FsError,
    namespace::Extent,
    ring_id::{Neighbours, NodeRef, RingId},
    route_table::Route,
};
use futures_util::future::{BoxFuture, join_all};
use hyper::{HeaderMap, Method};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tracing::debug;

use self::sync::UnsyncedBatches;
use crate::{backoff::Backoff, http_pool::HttpPool, router::Router};

/// A chunk that is in no file this long after it was put will never be: a writer commits within seconds, and gives up
/// within minutes. Until then the nodes remember what they have deleted.
const SETTLED_AFTER: Duration = Duration::from_secs(600);
/// For one try, not counting its bytes. A stopped node costs this once; the ring has dropped it by then.
const TRY_DEADLINE: Duration = Duration::from_secs(5);
/// Each try gets time for its bytes at this rate, so that a slow network is not taken for a dead node.
const SLOWEST_BYTES_PER_SECOND: usize = 1 << 20;
/// A node that does not answer for this long may have stopped: another holder is asked as well.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests sent to other holders as well, at a time: if everything is slow they must not double the load.
const DOUBLED: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Look-ups for one request at most: each fills a gap of the table.
const MAX_LOOK_UPS: usize = 1024;

#[derive(Clone, Debug)]
pub struct NewChunk {
    pub file: FileName,
    pub id: ChunkId,
    pub data: Bytes,
}

/// What a client still has in memory of the chunks that it has stored.
pub type LocalCopies<'a> = &'a (dyn Fn(ChunkId) -> Option<Bytes> + Sync);

/// Knows which chunks are in no file.
pub trait Registry: Send + Sync {
    /// Returns the pieces of these runs that are in no file. It may leave some out and return them when asked again.
    fn unreferenced(&self, runs: Vec<Extent>) -> BoxFuture<'_, Result<Vec<Extent>, FsError>>;
}

pub struct ChunkClient {
    router: Arc<Router>,
    pool: Arc<HttpPool>,
    deadline: Duration,
    unsynced: UnsyncedBatches,
    registry: OnceLock<Arc<dyn Registry>>,
    settled_after: Duration,
    /// One permit for each request sent to other holders as well.
    doubled: Semaphore,
}

impl ChunkClient {
    /// Every operation ends by `deadline`.
    pub fn new(router: Arc<Router>, pool: Arc<HttpPool>, deadline: Duration) -> Self {
        Self {
            router,
            pool,
            deadline,
            unsynced: UnsyncedBatches::default(),
            registry: OnceLock::new(),
            settled_after: SETTLED_AFTER,
            doubled: Semaphore::new(DOUBLED),
        }
    }

    /// Without a registry, a chunk that was put and that no node has keeps every sync from succeeding.
    pub fn set_registry(&self, registry: Arc<dyn Registry>) {
        // The first registry stays: a client belongs to one namespace.
        let _ = self.registry.set(registry);
    }

    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The ring's space for file contents, counting each byte once although several nodes keep it.
    pub async fn space(&self) -> Result<Space, FsError> {
        if self.router.members().is_empty() {
            self.router.route(RingId(0)).await.map_err(|error| FsError::NoReplica { detail: error.to_string() })?;
        }
        let members = self.router.members();
        let asked = join_all(members.iter().map(|node| self.space_of(node))).await;
        let told: Vec<Space> = asked.into_iter().flatten().collect();
        if told.is_empty() {
            return Err(FsError::NoReplica { detail: "no node reported its space".into() });
        }
        let copies = members.len().min(REPLICAS) as u64;
        Ok(Space {
            capacity_bytes: told.iter().map(|space| space.capacity_bytes).sum::<u64>() / copies,
            free_bytes: told.iter().map(|space| space.free_bytes).sum::<u64>() / copies,
        })
    }

    async fn space_of(&self, node: &NodeRef) -> Option<Space> {
        let address = node.files_address();
        let answer =
            self.pool.request(address, Method::GET, calls::SPACE, HeaderMap::new(), vec![], TRY_DEADLINE).await;
        postcard::from_bytes(&answer.ok()?.body).ok()
    }

    /// Learns when the ring has closed up around an unresponsive node; the node after it knows first.
    fn refresh_from(&self, node: NodeRef) {
        let router = self.router.clone();
        tokio::spawn(async move { router.refresh(&node).await });
    }

    fn learn_from(&self, node: &NodeRef, json: &[u8]) {
        match serde_json::from_slice::<Neighbours>(json) {
            Ok(neighbours) => self.router.learn(&neighbours),
            Err(error) => {
                debug!(%node, %error, "an answer about the ring does not decode");
                self.router.invalidate(node);
            }
        }
    }

    /// Fills the gaps of the table, with one look-up for each gap and not for each key.
    async fn routes(&self, keys: impl Iterator<Item = RingId> + Clone) -> Vec<Option<Arc<Route>>> {
        let mut routes = self.router.known(keys.clone());
        for _ in 0..MAX_LOOK_UPS {
            let Some((key, _)) = keys.clone().zip(&routes).find(|(_, route)| route.is_none()) else { break };
            if let Err(error) = self.router.route(key).await {
                debug!(%key, %error, "no route");
                break;
            }
            routes = self.router.known(keys.clone());
        }
        routes
    }
}

fn try_deadline(bytes: usize) -> Duration {
    TRY_DEADLINE + Duration::from_secs_f64(bytes as f64 / SLOWEST_BYTES_PER_SECOND as f64)
}

/// The tries of one operation, with pauses between them; ends at the deadline.
struct Rounds {
    end: Instant,
    backoff: Backoff,
}

impl Rounds {
    fn new(deadline: Duration) -> Self {
        Self { end: Instant::now() + deadline, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }
    }

    async fn pause(&mut self, detail: impl FnOnce() -> String) -> Result<(), FsError> {
        let pause = self.backoff.pause();
        if Instant::now() + pause > self.end {
            return Err(FsError::NoReplica { detail: detail() });
        }
        sleep(pause).await;
        Ok(())
    }
}
