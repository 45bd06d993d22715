//! Changes the ring's configuration for an operator: from a call, a form, or a command.

use std::sync::Arc;

use axum::http::StatusCode;
use chordfs_net::clients::NamespaceClient;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, Reply},
    ring_config::{CacheCapacity, ConfigError, RingConfig},
};
use serde_json::Value;

use super::{
    follower::{ConfigFollower, ask},
    memory::NodeMemory,
};
use crate::http::error::HttpError;

/// How often a change without a version is made again because another one came first.
const ATTEMPTS: usize = 5;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct ConfigEditor {
    namespace: Arc<dyn NamespaceClient>,
    follower: ConfigFollower,
}

impl ConfigEditor {
    pub(crate) fn new(namespace: Arc<dyn NamespaceClient>, follower: ConfigFollower) -> Self {
        Self { namespace, follower }
    }

    /// The configuration as the namespace has it now.
    pub(crate) async fn current(&self) -> Result<RingConfig, FsError> {
        ask(&*self.namespace).await
    }

    /// Changes the settings of a JSON object, all or none; [`RingConfig::with_json`] describes its form.
    pub(crate) async fn change(&self, wanted: &Value) -> Result<RingConfig, HttpError> {
        let base = RingConfig::base_version(wanted)?;
        let memory = NodeMemory::read();
        self.replace(base, |current| checked_change(current, wanted, &memory)).await
    }

    /// Makes every node empty its cache.
    pub(crate) async fn clear_caches(&self) -> Result<RingConfig, HttpError> {
        let one_more = |current: &RingConfig| {
            let mut changed = *current;
            changed.cache.clears += 1;
            Ok(changed)
        };
        self.replace(None, one_more).await
    }

    /// Replaces the configuration by what `edit` makes of the current one, which has to have the version `base` if one
    /// is given.
    async fn replace(
        &self,
        base: Option<u64>,
        edit: impl Fn(&RingConfig) -> Result<RingConfig, ConfigError>,
    ) -> Result<RingConfig, HttpError> {
        for _ in 0..ATTEMPTS {
            let current = self.current().await?;
            if base.is_some_and(|base| base != current.version) {
                break;
            }
            let config = edit(&current)?;
            if let Some(changed) = self.configure(config).await? {
                self.follower.apply(changed).await;
                return Ok(changed);
            }
        }
        Err(HttpError::new(
            StatusCode::CONFLICT,
            "somebody else has changed the configuration meanwhile, and nothing was changed now; look at it again",
        ))
    }

    /// Returns the new configuration; `None` if another change came first.
    async fn configure(&self, config: RingConfig) -> Result<Option<RingConfig>, FsError> {
        match self.namespace.apply(Change::Configure { config }).await? {
            Reply::Configured { config, changed } => Ok(changed.then_some(config)),
            other => Err(FsError::Internal { detail: format!("a reply to another change: {other:?}") }),
        }
    }
}

impl From<ConfigError> for HttpError {
    fn from(error: ConfigError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// A capacity that stays is not checked: a node with less memory than the others takes less, and other settings can be
/// changed through it.
fn checked_change(current: &RingConfig, wanted: &Value, memory: &NodeMemory) -> Result<RingConfig, ConfigError> {
    let changed = current.with_json(wanted)?;
    let most = CacheCapacity::Bytes(memory.largest_cache());
    match changed.cache.capacity {
        CacheCapacity::Bytes(bytes)
            if bytes > memory.largest_cache() && changed.cache.capacity != current.cache.capacity =>
        {
            Err(ConfigError {
                field: "cache.capacity".into(),
                reason: format!(
                    "{bytes} bytes are more than this node can give: at most {most}, three quarters of its memory"
                ),
            })
        }
        _ => Ok(changed),
    }
}
