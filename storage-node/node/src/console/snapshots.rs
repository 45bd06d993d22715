//! What is shown, gathered and rendered once for all viewers.
//!
//! A caller gets the last snapshot while it is young, and otherwise waits for a new one together with all others. So a
//! hundred viewers ask the ring no more often than one does, and without viewers nothing is asked.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_console::{ConsoleQuery, Fragment, RingView};
use parking_lot::Mutex;

use super::source::ConsoleSource;

/// Pages that are kept of one snapshot. There are as many as orders of the table for each node, and a stranger may ask
/// for all of them; further ones are rendered for each viewer.
const MAX_RENDERED: usize = 64;

pub(super) struct RingSnapshots {
    source: Arc<dyn ConsoleSource>,
    max_age: Duration,
    last: tokio::sync::Mutex<Option<(Instant, Arc<RingSnapshot>)>>,
}

pub(super) struct RingSnapshot {
    view: RingView,
    rendered: Mutex<HashMap<ConsoleQuery, Arc<[Fragment]>>>,
}

impl RingSnapshots {
    pub(super) fn new(source: Arc<dyn ConsoleSource>, max_age: Duration) -> Self {
        Self { source, max_age, last: tokio::sync::Mutex::default() }
    }

    pub(super) async fn current(&self) -> Arc<RingSnapshot> {
        let mut last = self.last.lock().await;
        if let Some((gathered, snapshot)) = &*last
            && gathered.elapsed() < self.max_age
        {
            return snapshot.clone();
        }
        let snapshot = Arc::new(RingSnapshot { view: self.source.view().await, rendered: Mutex::default() });
        *last = Some((Instant::now(), snapshot.clone()));
        snapshot
    }
}

impl RingSnapshot {
    pub(super) fn view(&self) -> &RingView {
        &self.view
    }

    /// The live parts of the page.
    pub(super) fn fragments(&self, query: &ConsoleQuery) -> Arc<[Fragment]> {
        let mut rendered = self.rendered.lock();
        if let Some(fragments) = rendered.get(query) {
            return fragments.clone();
        }
        let fragments: Arc<[Fragment]> = chordfs_console::fragments(&self.view, query).into();
        if rendered.len() < MAX_RENDERED {
            rendered.insert(query.clone(), fragments.clone());
        }
        fragments
    }
}
