//! Calls of the store from asynchronous code. The store waits for the disk, so its calls run on threads that may wait.
//! Small calls of which the last ones were short run where they are asked for ([`ShortCalls`]).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
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
    /// Runs `work`, in this thread if calls of this kind have been short lately. The caller has made sure that this one
    /// has no more to do than those. Errors: as of [`with_store`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        store: &Arc<Store>,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let measured = move |store: &Store| {
            let began = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| work(store)));
            let result = result.unwrap_or_else(|_| Err(StoreError::Aborted { reason: "the call panicked".into() }));
            (result, began.elapsed())
        };
        let in_place = if self.0.are_short() { CallInPlace::begin() } else { None };
        let (result, took) = match in_place {
            Some(_in_place) => measured(store),
            None => with_store(store, move |store| Ok(measured(store))).await?,
        };
        self.0.note(took);
        result
    }
}

/// The one call of this process that runs in a thread of the runtime, until this is dropped. A disk that stops
/// answering must not stop all of these threads: they serve the ring's calls, the status and Raft's heartbeats. Only an
/// operator who asks for a single thread accepts that, for nodes that share one machine and its disk: there nothing
/// goes on without the disk in any case.
struct CallInPlace;

static IN_PLACE: AtomicBool = AtomicBool::new(false);

impl CallInPlace {
    /// `None` if another call runs in place.
    fn begin() -> Option<Self> {
        (!IN_PLACE.swap(true, Acquire)).then_some(Self)
    }
}

impl Drop for CallInPlace {
    fn drop(&mut self) {
        IN_PLACE.store(false, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use chordfs_store::{DataFolder, StoreOptions};

    use super::*;

    async fn runs_here(calls: &ShortCalls, store: &Arc<Store>) -> bool {
        let here = thread::current().id();
        calls.run(store, move |_| Ok(thread::current().id() == here)).await.expect("it runs")
    }

    #[test]
    fn a_call_runs_in_place_only_while_calls_are_short_and_no_other_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(dir.path()).expect("it opens");
        let store = Arc::new(Store::open(&folder, StoreOptions::default()).expect("it opens"));
        let calls = ShortCalls::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        // The averages of these calls are those of calls that do nothing.
        let run = || runtime.block_on(runs_here(&calls, &store));
        assert!(!run(), "nothing is known of them");
        (0..100).for_each(|_| calls.0.note(Duration::ZERO));
        assert!(run());
        let another = runtime.block_on(async { CallInPlace::begin() });
        assert!(another.is_some() && !run());
        drop(another);
        assert!(run());
        for _ in 0..3 {
            let failed = runtime.block_on(calls.run(&store, |_| -> Result<(), _> {
                thread::sleep(Duration::from_millis(2));
                Err(StoreError::Aborted { reason: "a broken disk".into() })
            }));
            assert!(failed.is_err());
        }
        assert!(!run(), "a call that fails late is long, too");
    }
}
