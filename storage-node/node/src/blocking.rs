//! Calls of the store from asynchronous code. The store waits for the disk, so its calls run on threads that may wait.
//! Small calls of which the last ones were short run where they are asked for ([`ShortCalls`]).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use chordfs_history::recent::RecentTimes;
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

/// Calls of one kind, which are made where they are asked for as long as they are short.
#[derive(Default)]
pub(crate) struct ShortCalls(RecentTimes);

impl ShortCalls {
    /// Runs `work`, in this thread if calls of this kind have been short lately. Errors: as of [`with_store`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        store: &Arc<Store>,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let measured = move |store: &Store| {
            let began = Instant::now();
            let result = work(store)?;
            Ok((result, began.elapsed()))
        };
        let (result, took) = if self.0.are_short() {
            let in_place = catch_unwind(AssertUnwindSafe(|| measured(store)));
            in_place.unwrap_or_else(|_| Err(StoreError::Aborted { reason: "the call panicked".into() }))?
        } else {
            with_store(store, measured).await?
        };
        self.0.note(took);
        Ok(result)
    }
}
