//! The slow care for what is stored: every checksum is verified within a set time, damaged records are replaced by
//! sound copies from other holders, and chunks that belong to no file are collected.
//!
//! | file | what |
//! |---|---|
//! | `pace`, `orphan_candidates`, `unreferenced` | pure: how fast to read; when a chunk counts as orphaned; which runs are unreferenced |
//! | `pass` | reading all records once, and where an interrupted pass continues |
//! | `repair` | sound copies for damaged records |
//! | `orphans`, `namespace_marker` | asking the namespace which chunks no file has; when its answer does not count |
//! | `report`, `routes` | what was done, for people and programs; the calls on 5059 |
//!
//! Nothing here can lose data. A damaged record has left the index before this room learns of it. Chunks that are no
//! longer needed are declared dead by the namespace, in the order of its log, and its garbage collection deletes them
//! on all nodes. If the namespace cannot be asked, or answers strangely, the chunks stay.

#[cfg(test)]
mod convergence_test;
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

pub use self::report::unix_now;
use self::{
    namespace_marker::NamespaceMarker, orphans::Orphans, pass::PassReader, repair::DamageRepair, report::Report,
};
use crate::{driver::RingHandle, replica::peer::Peers};

#[derive(Clone, Debug)]
pub struct ScrubSettings {
    /// Every record is read and checked once in this time.
    pub period: Duration,
    /// Most that a scrub reads, also one that was asked for.
    pub bytes_per_second: u64,
    /// What no file has is garbage when a node has kept it for this long.
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
    /// A folder of its own, made if it is missing.
    pub folder: PathBuf,
    pub store: Arc<Store>,
    pub ring: RingHandle,
    pub peers: Peers,
    pub pool: Arc<HttpPool>,
    pub router: Arc<Router>,
    pub session: Arc<dyn NamespaceClient>,
    pub namespace: Namespace,
    /// Wakes repair: chunks that were found missing by more than this room can name.
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
    mark: NamespaceMarker,
    /// Passes asked for by people so far; the reader follows.
    asked: watch::Sender<u64>,
}

impl Scrub {
    pub fn new(parts: ScrubDependencies) -> Self {
        let mark = NamespaceMarker::new(&parts.folder);
        let report = Mutex::new(Report::new(&parts.settings));
        Self { shared: Arc::new(ScrubShared { parts, report, mark, asked: watch::Sender::new(0) }) }
    }

    /// Begins its work, which ends with `stop`.
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

    /// The calls on the plane of administration.
    pub fn routes(&self) -> axum::Router {
        routes::routes(self.clone())
    }

    /// From memory, at once.
    pub fn status(&self) -> ScrubStatus {
        let waiting = self.shared.parts.store.damaged().len() as u64;
        self.shared.report.lock().status(waiting)
    }

    /// Asks for a pass as fast as the limit allows, in place of the one under way. It is done when `asked_done` of the
    /// status has reached the number returned.
    pub fn begin_pass(&self) -> u64 {
        self.shared.asked.send_modify(|asked| *asked += 1);
        *self.shared.asked.borrow()
    }
}
