//! Carrying a drain out: announce it, hand chunks over, give up the vote, leave, answer requests a little longer.
//!
//! Every step before the moment of leaving can be undone: a drain that fails or is cancelled stops wherever it is, and
//! leaves a node that serves as before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chordfs_log::info_limited;
use chordfs_replication::{
    arc_comparison::CopyAmount,
    drain as plan,
    drain::{DrainError, RemainingNodes, RemainingPeer},
};
use chordfs_types::{
    admin::{DrainPhase, NodeState},
    ring_id::NodeRef,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    DrainOptions, DrainSettings,
    announce::announce_to_all,
    context::DrainContext,
    control::{DrainControl, DrainRun},
    hand_over::{self, StepError},
    leaving::LeaveOutcome,
    pace::DrainPace,
    stall_timeout::StallTimeout,
};
use crate::replica::departure::DrainState;

/// How often the drain is announced; the other nodes forget it if they receive no announcement for some time.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// If no more chunks than this were stored during the last round, the rest can be handed over while puts wait.
const FEW_CHUNKS: usize = 2048;
/// Rounds over recently stored chunks before the rest is handed over while puts wait, however much it is.
const MAX_ROUNDS: usize = 20;

/// What the steps of a drain share.
pub(super) struct DrainTask {
    pub context: DrainContext,
    pub settings: DrainSettings,
    pub control: DrainControl,
    pub pace: DrainPace,
    pub finished: CancellationToken,
}

impl DrainTask {
    pub(super) async fn run(self: Arc<Self>, options: DrainOptions, run: DrainRun) {
        let done = tokio::select! {
            biased;
            () = run.cancelled.cancelled() => None,
            done = self.drain(options) => Some(done),
            never = self.keep_announcing() => Some(never),
        };
        match done {
            Some(Ok(())) => {
                info!("drained, and out of the ring");
                sleep(self.settings.grace).await;
                self.finished.cancel();
            }
            Some(Err(error)) => {
                warn!(%error, "not drained; the node continues to serve");
                self.resume_serving(DrainPhase::Refused, error.to_string()).await;
            }
            None => {
                info!("the drain was cancelled; the node continues to serve");
                self.resume_serving(DrainPhase::Cancelled, "it was cancelled".into()).await;
            }
        }
    }

    async fn drain(&self, options: DrainOptions) -> Result<(), DrainError> {
        let mut stall = StallTimeout::new(self.settings.stall_timeout);
        loop {
            self.phase(DrainPhase::Copying);
            let remaining = self.find_remaining_nodes(options).await?;
            match self.hand_over_and_leave(&remaining, options).await {
                Ok(LeaveOutcome::Left) => return Ok(()),
                Ok(LeaveOutcome::RingChanged) => stall.reset(),
                Err(StepError::Final(error)) => return Err(error),
                Err(StepError::Retry(reason)) => {
                    info_limited!(reason, "a step of the drain failed and is retried");
                    let sent = self.context.departure.status().map_or(0, |status| status.chunks_sent);
                    stall.record_failure(sent, &reason, Instant::now())?;
                }
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn hand_over_and_leave(
        &self,
        remaining: &RemainingNodes,
        options: DrainOptions,
    ) -> Result<LeaveOutcome, StepError> {
        let mut holders = self.hand_over_all(remaining).await?;
        self.give_up_vote().await?;
        self.phase(DrainPhase::Leaving);
        holders.extend(self.hand_over_most(remaining).await?);
        // Most chunks are on disk after this, so that few have to be synced while puts wait.
        hand_over::sync(&self.context, &holders).await?;
        self.leave(remaining, holders, options).await
    }

    /// Returns the members that remain. Nodes that do not answer are given some time.
    async fn find_remaining_nodes(&self, options: DrainOptions) -> Result<RemainingNodes, DrainError> {
        let end = Instant::now() + self.settings.members_timeout;
        loop {
            let found = match self.announce(DrainState::Draining).await {
                Ok((peers, unresponsive)) => plan::remaining(&peers, unresponsive, options.allow_fewer_copies),
                Err(reason) => Err(DrainError::Stalled { within: self.settings.members_timeout, reason }),
            };
            match found {
                Err(_) if Instant::now() < end => sleep(RETRY_PAUSE).await,
                done => return done,
            }
        }
    }

    /// Announces to all members whether this node drains. Returns those that answer, in the order of the ring, and how
    /// many do not.
    pub(super) async fn announce(&self, state: DrainState) -> Result<(Vec<RemainingPeer>, usize), String> {
        let members = self.context.ring.members().await.map_err(|error| error.to_string())?;
        Ok(announce_to_all(&self.context.pool, &members, self.context.ring.me(), state).await)
    }

    /// Hands over every chunk, arc by arc. Returns the nodes that received some.
    async fn hand_over_all(&self, remaining: &RemainingNodes) -> Result<HashSet<NodeRef>, StepError> {
        let estimate = hand_over::estimate(&self.context, remaining).await?;
        let (peers, _) = self.announce(DrainState::Draining).await.map_err(StepError::Retry)?;
        plan::check_room(&estimate.needs, &peers)?;
        self.context.departure.change_progress(|progress| progress.found(estimate.left));
        for incomplete in &estimate.incomplete {
            hand_over::hand_over_arc(&self.context, &self.pace, incomplete).await?;
        }
        self.context.departure.change_progress(|progress| progress.found(CopyAmount::default()));
        Ok(estimate.holders)
    }

    /// Hands over the chunks that were stored meanwhile, until a round has few of them.
    async fn hand_over_most(&self, remaining: &RemainingNodes) -> Result<HashSet<NodeRef>, StepError> {
        let mut touched = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            touched.extend(self.hand_over_fresh(remaining).await?);
            if self.context.departure.count_fresh() <= FEW_CHUNKS {
                break;
            }
        }
        Ok(touched)
    }

    pub(super) async fn hand_over_fresh(&self, remaining: &RemainingNodes) -> Result<HashSet<NodeRef>, StepError> {
        let fresh = self.context.departure.take_fresh();
        if fresh.incomplete {
            return Err(StepError::Retry("more was stored than one round can hand over".into()));
        }
        match hand_over::hand_over_fresh(&self.context, remaining, &fresh).await {
            Err(error) => {
                fresh.put_back(&self.context.departure);
                Err(error)
            }
            touched => touched,
        }
    }

    async fn give_up_vote(&self) -> Result<(), DrainError> {
        if self.context.namespace.request_removal().await {
            return Ok(());
        }
        self.phase(DrainPhase::Voting);
        let (within, end) = (self.settings.vote_deadline, Instant::now() + self.settings.vote_deadline);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.context.namespace.leave(left).await {
                Ok(()) => return Ok(()),
                // No voter can take the lead yet, or the chosen voter did not; a retry may succeed.
                Err(_) if Instant::now() + RETRY_PAUSE < end => sleep(RETRY_PAUSE).await,
                Err(error) => return Err(DrainError::NoMajority { within, reason: error.to_string() }),
            }
        }
    }

    async fn keep_announcing(&self) -> Result<(), DrainError> {
        loop {
            // A draining node must not be chosen as a voter. A voter stays one until its chunks are handed over.
            if !self.context.namespace.is_voter() {
                self.context.namespace.decline(true).await;
            }
            sleep(ANNOUNCE_EVERY).await;
            // If the members cannot be listed now, the drain itself retries.
            let _ = self.announce(DrainState::Draining).await;
        }
    }

    /// Ends a drain that failed or was cancelled. The end is published last, as the next drain may begin as soon as it
    /// is visible.
    async fn resume_serving(&self, phase: DrainPhase, reason: String) {
        self.control.abandon();
        self.context.departure.cancel();
        self.context.stage.set(NodeState::Serving);
        tokio::spawn(reclaim_vote(self.context.clone()));
        // A node that this call does not reach forgets the drain after a while.
        let _ = self.announce(DrainState::Serving).await;
        self.context.departure.change_progress(|progress| progress.end(phase, reason, Instant::now().into_std()));
        self.control.end();
    }

    pub(super) fn phase(&self, phase: DrainPhase) {
        self.context.departure.change_progress(|progress| {
            if progress.phase() != phase {
                info_limited!("the drain enters the phase `{}`", phase.label());
            }
            progress.enter(phase);
        });
    }
}

/// Reports to the namespace's leader that this node may vote again; the leader decides whether it does. Ends when the
/// leader has answered, or when the node drains again.
async fn reclaim_vote(context: DrainContext) {
    // The report is sent twice, as a message of the ended drain may still arrive after the first one.
    for _ in 0..2 {
        while !context.departure.drains() && !context.namespace.stay().await {
            sleep(RETRY_PAUSE).await;
        }
        sleep(ANNOUNCE_EVERY).await;
    }
}
