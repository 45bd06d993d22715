//! Background maintenance of the stored chunks: every checksum is verified within a set time, damaged records are
//! replaced by sound copies from other holders, and chunks that belong to no file are collected.
//!
//! | file | what |
//! |---|---|
//! | `pace`, `unreferenced` | pure: how fast to read; which runs are unreferenced |
//! | `orphan_candidates`, `look_plan` | pure: when a chunk counts as orphaned; which chunks a look asks about |
//! | `pass` | reading all records once, and where an interrupted pass continues |
//! | `repair` | sound copies for damaged records |
//! | `orphans`, `namespace_marker` | asking the namespace which chunks belong to no file; when its answer does not count |
//! | `report`, `routes` | the results, for people and programs; the calls on 5059 |
//!
//! Nothing here can lose data. A damaged record has left the index before this room learns of it. Chunks that are no
//! longer needed are declared dead by the namespace, in the order of its log, and its garbage collection deletes them
//! on all nodes. If the namespace cannot be reached, or its answer is implausible, the chunks stay.

#[cfg(test)]
mod convergence_test;
mod look_plan;
mod namespace_marker;
mod orphan_candidates;
mod orphans;
mod pace;
mod pass;
mod repair;
mod report;
mod routes;
mod unreferenced;

use chordfs_net::clients::NamespaceClient;
use std::{path::PathBuf, sync::Arc, time::Duration};

use chordfs_namespace::Namespace;
use chordfs_net::{http_pool::HttpPool, router::Router};
use chordfs_store::Store;
pub use chordfs_types::admin::{PassReport, ScrubStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::report::unix_now_secs;
pub(crate) use self::routes::NAMESPACE_PATH;
use self::{
    namespace_marker::NamespaceMarker, orphans::Orphans, pass::PassReader, repair::DamageRepair, report::Report,
};
use crate::{driver::RingHandle, replica::peer::Peers};

#[derive(Clone, Debug)]
pub struct ScrubSettings {
    /// Every record is read and checked once in this time.
    pub period: Duration,
    /// The most that a scrub reads, which includes a requested one.
    pub bytes_per_second: u64,
    /// A chunk that belongs to no file is garbage once a node has kept it for this long.
    pub orphan_age: Duration,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(7 * 24 * 3600),
            bytes_per_second: 64 << 20,
            orphan_age: Duration::from_secs(3600),
        }
    }
}

/// What the scrub needs of the node it runs in.
pub struct ScrubDependencies {
    /// The scrub's own folder, which is created if it is missing.
    pub folder: PathBuf,
    pub store: Arc<Store>,
    pub ring: RingHandle,
    pub peers: Peers,
    pub pool: Arc<HttpPool>,
    pub router: Arc<Router>,
    pub session: Arc<dyn NamespaceClient>,
    pub namespace: Namespace,
    /// Wakes repair after a pass: the store may miss chunks whose names are unknown.
    pub repair: Arc<Notify>,
    pub settings: ScrubSettings,
}

/// The scrub of this node. Cheap to clone.
#[derive(Clone)]
pub struct Scrub {
    shared: Arc<ScrubShared>,
}

struct ScrubShared {
    parts: ScrubDependencies,
    report: Mutex<Report>,
    marker: NamespaceMarker,
    /// The number of passes that operators have requested; the reader watches it.
    asked: watch::Sender<u64>,
}

impl Scrub {
    pub fn new(parts: ScrubDependencies) -> Self {
        let marker = NamespaceMarker::new(&parts.folder);
        let report = Mutex::new(Report::new(&parts.settings));
        Self { shared: Arc::new(ScrubShared { parts, report, marker, asked: watch::Sender::new(0) }) }
    }

    /// Starts the background tasks, which end with `stop`.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let stopped = |work: futures_util::future::BoxFuture<'static, ()>| {
            let stop = stop.clone();
            async move {
                tokio::select! { () = work => {}, () = stop.cancelled() => {} }
            }
        };
        tasks.spawn(stopped(Box::pin(PassReader::new(self.shared.clone()).run())));
        tasks.spawn(stopped(Box::pin(DamageRepair::new(self.shared.clone()).run())));
        tasks.spawn(stopped(Box::pin(Orphans::new(self.shared.clone()).run())));
    }

    /// The calls on the administration plane.
    pub fn routes(&self) -> axum::Router {
        routes::routes(self.clone())
    }

    /// Answers from memory, without waiting.
    pub fn status(&self) -> ScrubStatus {
        let waiting = self.shared.parts.store.damaged().len() as u64;
        self.shared.report.lock().status(waiting)
    }

    /// Requests a pass as fast as the limit allows, which replaces the one under way. The pass has ended when
    /// `asked_done` of the status has reached the returned number.
    pub fn begin_pass(&self) -> u64 {
        self.shared.asked.send_modify(|asked| *asked += 1);
        *self.shared.asked.borrow()
    }
}
