//! The drain of this node as others hold it: they begin it, call it off, or wait for its end.

use std::{sync::Arc, time::Duration};

use chordfs_net::http_pool::HttpPool;
use chordfs_replication::{drain::DrainError, drain_progress::DrainProgress};
use chordfs_types::{
    admin::{DrainPhase, DrainStatus, NodeState},
    rate_limit::RateLimit,
};
use tracing::info;

use super::{
    control::{Begun, CallOffError, Control},
    pace::Pace,
    task::Task,
};
use crate::node::Node;

#[derive(Clone, Debug)]
pub struct DrainSettings {
    /// A drain on which nothing gets on for this long is given up.
    pub patience: Duration,
    /// A node that is only restarting comes back within this; too few of them after it are too few.
    pub look_patience: Duration,
    pub vote_deadline: Duration,
    /// Puts wait no longer than this for the end of the drain; otherwise it goes on, and ends a little later.
    pub fence: Duration,
    /// How long questions are still answered after leaving.
    pub grace: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(60),
            look_patience: Duration::from_secs(5),
            vote_deadline: Duration::from_secs(60),
            fence: Duration::from_secs(8),
            grace: Duration::from_secs(3),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct DrainOptions {
    /// Leave also when fewer than three nodes stay.
    pub allow_fewer_copies: bool,
    /// What this drain may send in a second; `None`: what repair may, together with it.
    pub rate: Option<RateLimit>,
    /// The machine goes whatever anybody wants, so nobody may call the drain off.
    pub must_go: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Drain(pub(super) Arc<Task>);

impl Drain {
    pub fn new(node: Arc<Node>, pool: Arc<HttpPool>, settings: DrainSettings) -> Self {
        let pace = Pace::new(node.traffic.clone());
        let (control, finished) = (Control::default(), Default::default());
        Self(Arc::new(Task { node, pool, settings, control, pace, finished }))
    }

    /// Begins a drain in the background. One that runs already goes on, at the rate given now if there is one.
    pub fn begin(&self, options: DrainOptions) -> Result<(), DrainError> {
        let Task { node, control, pace, .. } = &*self.0;
        match control.begin(options.must_go, node.stage.get())? {
            Begun::Already => {
                if let Some(rate) = options.rate {
                    let limit = pace.set(Some(rate));
                    node.departure.change_progress(|progress| progress.limit_to(limit));
                }
            }
            Begun::Now(run) => {
                let limit = pace.set(options.rate);
                node.stage.set(NodeState::Draining);
                node.departure.set_progress(DrainProgress::begin(limit));
                node.departure.begin();
                info!(allow_fewer_copies = options.allow_fewer_copies, %limit, "draining");
                tokio::spawn(self.0.clone().run(options, run));
            }
        }
        Ok(())
    }

    /// Returns when the node serves as before and the others know it.
    pub async fn call_off(&self) -> Result<(), CallOffError> {
        self.0.control.call_off()?.ended().await;
        Ok(())
    }

    /// When the node has left the ring and the grace is over.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }

    pub fn status(&self) -> Option<DrainStatus> {
        self.0.node.departure.status()
    }

    pub fn phase(&self) -> Option<DrainPhase> {
        self.status().map(|status| status.phase)
    }
}
