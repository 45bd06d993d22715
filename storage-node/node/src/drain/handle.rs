//! The handle to this node's drain: begins it, cancels it, waits for its end.

use std::{sync::Arc, time::Duration};

use chordfs_log::info_limited;
use chordfs_replication::{drain::DrainError, drain_progress::DrainProgress};
use chordfs_types::{
    admin::{DrainPhase, DrainStatus, NodeState},
    rate_limit::RateLimit,
};

use super::{
    context::DrainContext,
    control::{BeginOutcome, CancelDrainError, DrainControl},
    pace::DrainPace,
    task::DrainTask,
};

#[derive(Clone, Debug)]
pub struct DrainSettings {
    /// A drain that makes no progress for this long is given up.
    pub stall_timeout: Duration,
    /// How long missing nodes may take to answer, as they may only be restarting, before the drain is refused.
    pub members_timeout: Duration,
    pub vote_deadline: Duration,
    /// The longest time that puts wait for the node to leave. After that they continue, and the node retries.
    pub fence: Duration,
    /// How long the node still answers requests after it has left.
    pub grace: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            stall_timeout: Duration::from_secs(60),
            members_timeout: Duration::from_secs(5),
            vote_deadline: Duration::from_secs(60),
            fence: Duration::from_secs(8),
            grace: Duration::from_secs(3),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct DrainOptions {
    /// Leave even if fewer than three nodes remain.
    pub allow_fewer_copies: bool,
    /// How much this drain may send per second; with `None` it shares the limit of repair.
    pub rate: Option<RateLimit>,
    /// The machine terminates in any case, so the drain cannot be cancelled.
    pub must_go: bool,
}

/// Cloning it is cheap.
#[derive(Clone)]
pub struct Drain(pub(super) Arc<DrainTask>);

impl Drain {
    pub fn new(context: DrainContext, settings: DrainSettings) -> Self {
        let pace = DrainPace::new(context.traffic.clone());
        let (control, finished) = (DrainControl::default(), Default::default());
        Self(Arc::new(DrainTask { context, settings, control, pace, finished }))
    }

    /// Begins a drain in the background. A running drain continues, with the new rate if `options` has one.
    pub fn begin(&self, options: DrainOptions) -> Result<(), DrainError> {
        let DrainTask { context, control, pace, .. } = &*self.0;
        match control.begin(options.must_go, context.stage.get())? {
            BeginOutcome::AlreadyRunning => {
                if let Some(rate) = options.rate {
                    let limit = pace.set(Some(rate));
                    context.departure.change_progress(|progress| progress.limit_to(limit));
                }
            }
            BeginOutcome::Started(run) => {
                let limit = pace.set(options.rate);
                context.stage.set(NodeState::Draining);
                context.departure.set_progress(DrainProgress::begin(limit));
                context.departure.begin();
                info_limited!(allow_fewer_copies = options.allow_fewer_copies, %limit, "draining");
                tokio::spawn(self.0.clone().run(options, run));
            }
        }
        Ok(())
    }

    /// Cancels the drain. Returns when the node serves as before and has announced that to the other nodes.
    pub async fn cancel(&self) -> Result<(), CancelDrainError> {
        self.0.control.cancel()?.ended().await;
        Ok(())
    }

    /// Returns when the node has left the ring and the grace period is over.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }

    pub fn status(&self) -> Option<DrainStatus> {
        self.0.context.departure.status()
    }

    pub fn phase(&self) -> Option<DrainPhase> {
        self.status().map(|status| status.phase)
    }
}
