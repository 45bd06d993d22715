//! Calls of the store from asynchronous code. The store waits for the disk, so its calls run on threads that may wait.

use std::sync::Arc;

use chordfs_store::{Store, StoreError};

/// Runs `work` on a thread of its own. Errors: those of `work`; [`StoreError::Aborted`] if it panics.
pub(crate) async fn with_store<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Aborted { reason: error.to_string() }),
    }
}
