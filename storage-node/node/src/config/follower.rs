//! Follows the configuration of the ring.
//!
//! Every node asks the namespace every two seconds, which the leader answers from memory. That covers every way in
//! which a node can miss a change (another leader, a broken connection, a snapshot, a start) with one mechanism. The
//! last configuration is kept in the data folder: a node that starts while no majority of the namespace answers, as
//! after a power failure of all, works with that one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chordfs_files::replace_durably;
use chordfs_log::{info_limited, warn_limited};
use chordfs_net::clients::NamespaceClient;
use chordfs_store::{DataFolder, Store};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Query},
    ring_config::{CacheCapacity, RingConfig},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::memory::NodeMemory;

const ASK_EVERY: Duration = Duration::from_secs(2);
/// In the data folder: the JSON of the last configuration.
const FILE: &str = "ring-config.json";

/// The configuration that this node works with. Cheap to clone; the clones share it.
#[derive(Clone)]
pub struct ConfigFollower {
    store: Arc<Store>,
    path: PathBuf,
    current: Arc<Mutex<RingConfig>>,
    /// Held from the question to the namespace until its answer is applied, so that an older answer is never applied
    /// after a newer one.
    turn: Arc<AsyncMutex<()>>,
}

impl ConfigFollower {
    /// Applies the configuration that the folder keeps, or that of a new ring.
    pub fn start(folder: &DataFolder, store: Arc<Store>) -> Self {
        let path = folder.path().join(FILE);
        let kept = std::fs::read(&path).ok().and_then(|bytes| read_kept(&bytes)).unwrap_or_default();
        let follower = Self { store, path, current: Arc::new(Mutex::new(kept)), turn: Arc::default() };
        follower.configure_cache(&kept);
        follower
    }

    /// The configuration that this node has applied.
    pub fn current(&self) -> RingConfig {
        *self.current.lock()
    }

    /// Follows the namespace until the node stops.
    pub async fn run(self, namespace: Arc<dyn NamespaceClient>, stop: CancellationToken) {
        let follow = async {
            loop {
                self.follow_once(&*namespace).await;
                sleep(ASK_EVERY).await;
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    async fn follow_once(&self, namespace: &dyn NamespaceClient) {
        let turn = self.turn.clone().lock_owned().await;
        match ask(namespace).await {
            Ok(config) => self.apply_in_turn(turn, config).await,
            Err(error) => tracing::debug!(%error, "the ring's configuration is not known at present"),
        }
    }

    /// Applies a configuration of the namespace unless it is the current one. The namespace is right even if its
    /// version is lower: it may have been recovered, or founded anew.
    pub async fn apply(&self, config: RingConfig) {
        let turn = self.turn.clone().lock_owned().await;
        self.apply_in_turn(turn, config).await;
    }

    async fn apply_in_turn(&self, turn: OwnedMutexGuard<()>, config: RingConfig) {
        let former = self.current();
        if config == former {
            return;
        }
        let this = self.clone();
        // Emptying a large cache takes a while, and the disk may be slow.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            if former.cache.clears != config.cache.clears {
                this.store.clear_cache();
            }
            if (former.cache.capacity, former.cache.policy) != (config.cache.capacity, config.cache.policy) {
                this.configure_cache(&config);
            }
            *this.current.lock() = config;
            info_limited!(version = config.version, "this node follows another configuration of the ring now");
            this.keep(&config);
        });
        if done.await.is_err() {
            warn_limited!(version = config.version, "a configuration of the ring was not applied as a whole");
        }
    }

    fn configure_cache(&self, config: &RingConfig) {
        let bytes = NodeMemory::read().cache_bytes(config.cache.capacity);
        if let CacheCapacity::Bytes(configured) = config.cache.capacity
            && bytes < configured
        {
            warn_limited!(configured, bytes, "this node has too little memory for the configured cache and takes less");
        }
        self.store.configure_cache(bytes, config.cache.policy);
        info_limited!(bytes, policy = %config.cache.policy, "the cache of chunks has this capacity");
    }

    fn keep(&self, config: &RingConfig) {
        let text = serde_json::to_vec(config).expect("plain data always encodes");
        if let Err(error) = replace_durably(&self.path, &text) {
            let path = self.path.display();
            warn_limited!(%path, %error, "the ring's configuration is not kept; it is asked for at the next start");
        }
    }
}

/// `None` for a file that is damaged or of another release: the namespace has the configuration.
fn read_kept(bytes: &[u8]) -> Option<RingConfig> {
    serde_json::from_slice::<RingConfig>(bytes).ok().filter(|config| config.check().is_ok())
}

/// Returns the namespace's current configuration.
pub(super) async fn ask(namespace: &dyn NamespaceClient) -> Result<RingConfig, FsError> {
    match namespace.query(Query::RingConfig).await? {
        Answer::RingConfig(config) => Ok(config),
        other => Err(FsError::Internal { detail: format!("an answer to another query: {other:?}") }),
    }
}
