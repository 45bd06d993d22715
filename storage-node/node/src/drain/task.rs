//! Carrying a drain out: tell the others, hand over, give up the vote, leave, answer a little longer.
//!
//! Until the moment of leaving nothing is given up that cannot be taken back: a drain that fails or is called off breaks
//! off wherever it is, and leaves a node that serves as before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chordfs_net::http_pool::HttpPool;
use chordfs_replication::{
    descent::Left,
    drain as plan,
    drain::{DrainError, Heirs, Peer},
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
    control::{Control, Run},
    hand_over::{self, Trouble},
    leaving::Leaving,
    pace::Pace,
    patience::Patience,
};
use crate::node::Node;

/// How often the others are told that this node drains; they forget it after some silence.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
pub(super) const TRY_AGAIN: Duration = Duration::from_millis(300);
/// With no more than this stored since the last look, the rest can be handed over while puts wait.
const FEW_CHUNKS: usize = 2048;
/// Looks at what was stored meanwhile before the rest is handed over with puts waiting, however much it is.
const MAX_LOOKS: usize = 20;

/// What all of a drain works with.
pub(super) struct Task {
    pub node: Arc<Node>,
    pub pool: Arc<HttpPool>,
    pub settings: DrainSettings,
    pub control: Control,
    pub pace: Pace,
    pub finished: CancellationToken,
}

impl Task {
    pub async fn run(self: Arc<Self>, options: DrainOptions, run: Run) {
        let done = tokio::select! {
            biased;
            () = run.called_off.cancelled() => None,
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
                warn!(%error, "not drained; the node goes on serving");
                self.serve_on(DrainPhase::Refused, error.to_string()).await;
            }
            None => {
                info!("the drain was called off; the node goes on serving");
                self.serve_on(DrainPhase::Cancelled, "it was called off".into()).await;
            }
        }
    }

    async fn drain(&self, options: DrainOptions) -> Result<(), DrainError> {
        let mut patience = Patience::new(self.settings.patience);
        loop {
            self.phase(DrainPhase::Copying);
            let heirs = self.look(options).await?;
            match self.hand_over_and_leave(&heirs, options).await {
                Ok(Leaving::Left) => return Ok(()),
                Ok(Leaving::Changed) => patience.begin_anew(),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Again(reason)) => {
                    info!(reason, "the drain goes on in a moment");
                    let sent = self.node.departure.status().map_or(0, |status| status.chunks_sent);
                    patience.failed(sent, &reason, Instant::now())?;
                }
            }
            sleep(TRY_AGAIN).await;
        }
    }

    async fn hand_over_and_leave(&self, heirs: &Heirs, options: DrainOptions) -> Result<Leaving, Trouble> {
        let mut holders = self.hand_over_all(heirs).await?;
        self.give_up_vote().await?;
        self.phase(DrainPhase::Leaving);
        holders.extend(self.hand_over_most(heirs).await?);
        // Most is on disk after this, so that little is left for the time in which puts wait.
        hand_over::sync(&self.node, &holders).await?;
        self.leave(heirs, holders, options).await
    }

    /// Who there is, and who of them stays. Gives nodes that do not answer for a moment some time.
    async fn look(&self, options: DrainOptions) -> Result<Heirs, DrainError> {
        let end = Instant::now() + self.settings.look_patience;
        loop {
            let found = match self.greet(true).await {
                Ok((peers, silent)) => plan::heirs(&peers, silent, options.allow_fewer_copies),
                Err(reason) => Err(DrainError::Stalled { within: self.settings.look_patience, reason }),
            };
            match found {
                Err(_) if Instant::now() < end => sleep(TRY_AGAIN).await,
                done => return done,
            }
        }
    }

    /// Tells all members; those that answer, in the order of the ring, and how many do not.
    pub async fn greet(&self, draining: bool) -> Result<(Vec<Peer>, usize), String> {
        let members = self.node.ring.members().await.map_err(|error| error.to_string())?;
        Ok(announce_to_all(&self.pool, &members, self.node.ring.me(), draining).await)
    }

    /// Everything that is here, arc by arc. Returns whom it has gone to.
    async fn hand_over_all(&self, heirs: &Heirs) -> Result<HashSet<NodeRef>, Trouble> {
        let assay = hand_over::assay(&self.node, heirs).await?;
        let (peers, _) = self.greet(true).await.map_err(Trouble::Again)?;
        plan::check_room(&assay.needs, &peers)?;
        self.node.departure.change_progress(|progress| progress.found(assay.left));
        for todo in &assay.todo {
            hand_over::hand_on(&self.node, &self.pace, todo).await?;
        }
        self.node.departure.change_progress(|progress| progress.found(Left::default()));
        Ok(assay.holders)
    }

    /// What was stored meanwhile, until that is little at a time.
    async fn hand_over_most(&self, heirs: &Heirs) -> Result<HashSet<NodeRef>, Trouble> {
        let mut touched = HashSet::new();
        for _ in 0..MAX_LOOKS {
            touched.extend(self.hand_over_fresh(heirs).await?);
            if self.node.departure.count_fresh() <= FEW_CHUNKS {
                break;
            }
        }
        Ok(touched)
    }

    pub async fn hand_over_fresh(&self, heirs: &Heirs) -> Result<HashSet<NodeRef>, Trouble> {
        let fresh = self.node.departure.take_fresh();
        if fresh.incomplete {
            return Err(Trouble::Again("more was stored than one round can hand over".into()));
        }
        match hand_over::hand_on_fresh(&self.node, heirs, &fresh).await {
            Err(trouble) => {
                fresh.put_back(&self.node.departure);
                Err(trouble)
            }
            touched => touched,
        }
    }

    async fn give_up_vote(&self) -> Result<(), DrainError> {
        if self.node.namespace().is_let_go().await {
            return Ok(());
        }
        self.phase(DrainPhase::Voting);
        let (within, end) = (self.settings.vote_deadline, Instant::now() + self.settings.vote_deadline);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.node.namespace().leave(left).await {
                Ok(()) => return Ok(()),
                // Nobody to take the lead yet, or the one who should did not: that may pass.
                Err(_) if Instant::now() + TRY_AGAIN < end => sleep(TRY_AGAIN).await,
                Err(error) => return Err(DrainError::NoMajority { within, reason: error.to_string() }),
            }
        }
    }

    async fn keep_announcing(&self) -> Result<(), DrainError> {
        loop {
            // Whoever leaves must not be chosen as a voter meanwhile. A voter stays one until its chunks are handed over.
            if !self.node.namespace().is_voter() {
                self.node.namespace().decline(true).await;
            }
            sleep(ANNOUNCE_EVERY).await;
            // A ring that cannot be walked at the moment is tried again, and waited for, by the drain itself.
            let _ = self.greet(true).await;
        }
    }

    /// The drain has come to nothing. Its end is told last: who hears of it may begin the next one at once.
    async fn serve_on(&self, phase: DrainPhase, reason: String) {
        self.control.give_up();
        self.node.departure.cancel();
        self.node.stage.set(NodeState::Serving);
        tokio::spawn(take_vote_back(self.node.clone()));
        // Who is not reached now forgets the drain by itself.
        let _ = self.greet(false).await;
        self.node.departure.change_progress(|progress| progress.end(phase, reason));
        self.control.end();
    }

    pub fn phase(&self, phase: DrainPhase) {
        self.node.departure.change_progress(|progress| {
            if progress.phase() != phase {
                info!(?phase, "drain");
            }
            progress.enter(phase);
        });
    }
}

/// Whether this node votes again is for those that lead to say; they have to know that it may. Goes on until they do, or
/// until it drains anew.
async fn take_vote_back(node: Arc<Node>) {
    // Twice, as a word of the drain that was on its way when it broke off may come after the first.
    for _ in 0..2 {
        while !node.departure.drains() && !node.namespace().stay().await {
            sleep(TRY_AGAIN).await;
        }
        sleep(ANNOUNCE_EVERY).await;
    }
}
