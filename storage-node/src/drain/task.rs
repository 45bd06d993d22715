//! Carrying a drain out: tell the others, hand over, give up the vote, leave, answer a little longer.
//!
//! Until the moment of leaving nothing is given up that cannot be taken back, and a drain that fails leaves a node that
//! serves as before. The moment itself is fenced: puts wait while the last of what was stored is handed over and the
//! ring is told, and then go where it says.

use std::{collections::HashSet, sync::Arc, time::Duration};

use common::{http_pool::HttpPool, ring_id::NodeRef};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    announce::{announce, ask_bid},
    departure::{DrainPhase, DrainStatus},
    hand_over::{self, Trouble},
    plan::{self, DrainError, Heirs, Peer},
};
use crate::{
    http::admin::NodeState,
    node::Node,
    turn::{self, Bid, Verdict},
};

/// How often the others are told that this node drains; they forget it after some silence.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_millis(300);
/// With no more than this stored since the last look, the rest can be handed over while puts wait.
const FEW_CHUNKS: usize = 2048;
/// Looks at what was stored meanwhile before the rest is handed over with puts waiting, however much it is.
const MAX_LOOKS: usize = 20;

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
}

/// The drain of this node; cheap to clone.
#[derive(Clone)]
pub struct Drain(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    pool: Arc<HttpPool>,
    settings: DrainSettings,
    running: Mutex<bool>,
    finished: CancellationToken,
}

/// How a try to leave ended.
enum Leaving {
    Left,
    /// The ring is another one now, or the vote came back: from the beginning.
    Changed,
}

/// Whether a node that wants to drain may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Begun,
    /// These drain, or want to as well and come first.
    Waits {
        others: Vec<NodeRef>,
    },
}

impl Drain {
    pub fn new(node: Arc<Node>, pool: Arc<HttpPool>, settings: DrainSettings) -> Self {
        let finished = CancellationToken::new();
        Self(Arc::new(Inner { node, pool, settings, running: Mutex::new(false), finished }))
    }

    /// Begins a drain in the background; one that runs already goes on.
    pub fn begin(&self, options: DrainOptions) -> Result<(), DrainError> {
        let mut running = self.0.running.lock();
        if *running {
            return Ok(());
        }
        let node = &self.0.node;
        if node.stage.get() != NodeState::Serving {
            return Err(DrainError::NotServing { state: format!("{:?}", node.stage.get()).to_lowercase() });
        }
        *running = true;
        node.stage.set(NodeState::Draining);
        node.departure.set_status(DrainStatus::new(DrainPhase::Copying));
        node.departure.begin();
        info!(allow_fewer_copies = options.allow_fewer_copies, "draining");
        tokio::spawn(self.clone().run(options));
        Ok(())
    }

    /// Begins a drain if it is this node's turn: only one node of a ring drains in turn. Otherwise says that it waits,
    /// and for whom; call again later, or [`Drain::give_up_turn`].
    pub async fn begin_in_turn(&self, options: DrainOptions) -> Result<Turn, DrainError> {
        let node = &self.0.node;
        loop {
            node.departure.set_bid(Bid::Tries);
            let turn = self.0.ask_for_turn().await;
            match turn {
                Ok((Verdict::AskAgain, _)) => sleep(TRY_AGAIN).await,
                Ok((Verdict::Go, _)) => {
                    let begun = self.begin(options);
                    node.departure.set_bid(Bid::None);
                    return begun.map(|()| Turn::Begun);
                }
                Ok((Verdict::StepBack, others)) => {
                    node.departure.set_bid(Bid::Wants);
                    return Ok(Turn::Waits { others });
                }
                Err(reason) => {
                    node.departure.set_bid(Bid::Wants);
                    return Err(DrainError::Stalled { within: self.0.settings.look_patience, reason });
                }
            }
        }
    }

    /// Others need not wait for this node.
    pub fn give_up_turn(&self) {
        self.0.node.departure.set_bid(Bid::None);
    }

    /// When the node has left the ring and the grace is over.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }

    pub fn status(&self) -> Option<DrainStatus> {
        self.0.node.departure.status()
    }

    async fn run(self, options: DrainOptions) {
        let inner = &self.0;
        let done = tokio::select! {
            done = inner.drain(options) => done,
            never = inner.keep_announcing() => never,
        };
        match done {
            Ok(()) => {
                info!("drained, and out of the ring");
                sleep(inner.settings.grace).await;
                inner.finished.cancel();
            }
            Err(error) => inner.serve_on(&error).await,
        }
    }
}

impl Inner {
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
    async fn greet(&self, draining: bool) -> Result<(Vec<Peer>, usize), String> {
        let members = self.node.ring.members().await.map_err(|error| error.to_string())?;
        let me = self.node.ring.me();
        let others: Vec<NodeRef> =
            members.into_iter().filter(|node| node.ring_address() != me.ring_address()).collect();
        let told = join_all(others.iter().map(|node| announce(&self.pool, *node, me, draining))).await;
        let peers: Vec<Peer> = told.into_iter().flatten().collect();
        let silent = others.len() - peers.len();
        Ok((peers, silent))
    }

    /// Also those that drain or want to. Who does not answer is no reason to wait: the drain looks after those itself.
    async fn ask_for_turn(&self) -> Result<(Verdict, Vec<NodeRef>), String> {
        let members = self.node.ring.members().await.map_err(|error| error.to_string())?;
        let me = self.node.ring.me();
        let others = members.into_iter().filter(|node| node.ring_address() != me.ring_address());
        let asked = others.map(|node| async move { Some((node, ask_bid(&self.pool, node, me).await?)) });
        let bids: Vec<(NodeRef, Bid)> = join_all(asked).await.into_iter().flatten().collect();
        let keys = bids.iter().map(|(node, bid)| (node.ring_address(), *bid));
        let verdict = turn::verdict(&me.ring_address(), keys);
        let wanting = bids.iter().filter(|(_, bid)| *bid != Bid::None).map(|(node, _)| *node).collect();
        Ok((verdict, wanting))
    }

    /// Everything that is here, arc by arc. Returns whom it has gone to.
    async fn hand_over_all(&self, heirs: &Heirs) -> Result<HashSet<NodeRef>, Trouble> {
        let assay = hand_over::assay(&self.node, heirs).await?;
        let (peers, _) = self.greet(true).await.map_err(Trouble::Again)?;
        plan::check_room(&assay.needs, &peers)?;
        let bytes_left = assay.needs.iter().map(|need| need.bytes).sum();
        self.node.departure.change_status(|status| {
            (status.chunks_left, status.bytes_left) = (assay.chunks, bytes_left);
        });
        for todo in &assay.todo {
            hand_over::hand_on(&self.node, todo).await?;
        }
        self.node.departure.change_status(|status| (status.chunks_left, status.bytes_left) = (0, 0));
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

    async fn hand_over_fresh(&self, heirs: &Heirs) -> Result<HashSet<NodeRef>, Trouble> {
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
        if !self.node.namespace().votes_now().await {
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

    /// Puts wait from here on, until the node has left or has found that it cannot yet.
    async fn leave(&self, heirs: &Heirs, holders: HashSet<NodeRef>, options: DrainOptions) -> Result<Leaving, Trouble> {
        let late = |_| Trouble::Again(format!("the last writes took over {:?}", self.settings.fence));
        let fence = timeout(self.settings.fence, self.node.departure.fence()).await.map_err(late)?;
        let last = timeout(self.settings.fence, self.hand_over_last(heirs, holders, options)).await.map_err(late)??;
        let view = self.node.ring.neighbours();
        let (Some(members), Some(heir)) = (last, plan::view_of_heir(&view)) else { return Ok(Leaving::Changed) };
        // From here on there is no way back. The ring's task carries the word out, if late.
        if let Err(error) = self.node.ring.leave().await {
            warn!(%error, "the ring is slow to let this node go");
        }
        self.node.departure.leave(heir);
        self.node.stage.set(NodeState::Gone);
        self.phase(DrainPhase::Left);
        drop(fence);
        self.node.ring.say_left(&view, &members).await;
        Ok(Leaving::Left)
    }

    /// The other members, or `None` if they are not those any more to whom everything was handed over.
    async fn hand_over_last(
        &self,
        heirs: &Heirs,
        mut holders: HashSet<NodeRef>,
        options: DrainOptions,
    ) -> Result<Option<Vec<NodeRef>>, Trouble> {
        holders.extend(self.hand_over_fresh(heirs).await?);
        hand_over::sync(&self.node, &holders).await?;
        let (peers, silent) = self.greet(true).await.map_err(Trouble::Again)?;
        let same = plan::heirs(&peers, silent, options.allow_fewer_copies).as_ref() == Ok(heirs);
        let done = same && !self.node.namespace().votes_now().await;
        Ok(done.then(|| peers.iter().map(|peer| peer.node).collect()))
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

    async fn serve_on(&self, error: &DrainError) {
        warn!(%error, "not drained; the node goes on serving");
        self.node.departure.change_status(|status| {
            (status.phase, status.reason) = (DrainPhase::Refused, Some(error.to_string()));
        });
        self.node.departure.cancel();
        self.node.stage.set(NodeState::Serving);
        *self.running.lock() = false;
        self.node.namespace().decline(false).await;
        // Who is not reached now forgets the drain by itself.
        let _ = self.greet(false).await;
    }

    fn phase(&self, phase: DrainPhase) {
        let before = self.node.departure.status().map(|status| status.phase);
        if before != Some(phase) {
            info!(?phase, "drain");
        }
        self.node.departure.change_status(|status| status.phase = phase);
    }
}

/// Failures are forgiven as long as something gets on between them.
struct Patience {
    within: Duration,
    since: Option<Instant>,
    sent: u64,
}

impl Patience {
    fn new(within: Duration) -> Self {
        Self { within, since: None, sent: 0 }
    }

    fn begin_anew(&mut self) {
        self.since = None;
    }

    fn failed(&mut self, sent: u64, reason: &str, now: Instant) -> Result<(), DrainError> {
        if sent > self.sent {
            (self.sent, self.since) = (sent, None);
        }
        let since = *self.since.get_or_insert(now);
        match now - since >= self.within {
            true => Err(DrainError::Stalled { within: self.within, reason: reason.into() }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgiven_while_something_gets_on() {
        let (mut patience, start) = (Patience::new(Duration::from_secs(60)), Instant::now());
        let mut failed = |sent, secs| patience.failed(sent, "slow", start + Duration::from_secs(secs));
        for step in 0..5 {
            assert_eq!(failed(step, step * 59), Ok(()));
        }
        assert_eq!(failed(4, 4 * 59 + 59), Ok(()));
        assert!(matches!(failed(4, 4 * 59 + 60), Err(DrainError::Stalled { .. })));
    }
}
