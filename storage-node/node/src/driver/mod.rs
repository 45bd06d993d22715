//! The task that owns the ring: it waits, feeds one event to the `Ring`, and carries out the actions. No decision is
//! taken here.
//!
//! `peers` calls other nodes, `wire` encodes what is sent, `calls` answers the calls of others, `handle` is the
//! interface for the rest of the process, `place` gives positions to joining nodes, `storage_nodes` is the ring without
//! foreign nodes, `survey` lists all nodes that any member names, `saved` keeps the id and the known peers on disk.

mod calls;
mod handle;
mod peers;
mod place;
mod saved;
mod storage_nodes;
mod survey;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_log::{info_limited, warn_limited};
use chordfs_net::transport::{Connector, PlainNetworks};
use chordfs_ring::{Action, Event, JoinError, NoRoute, Ring, RingRoute, RingSettings, Tag};
use chordfs_types::{
    placement::Zone,
    ring_id::{Neighbours, NodeRef, RingArc, RingId},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{
    calls::ring_call,
    handle::{JoinRingError, RingError, RingHandle},
    saved::{SavedError, SavedRing},
    survey::{NodeKind, SurveyedNode},
    wire::{Load, own},
};
use self::{
    handle::{RingHandleState, Views},
    peers::RingPeers,
    saved::Saver,
};

/// Commands that may wait for the driver.
const QUEUE_COMMANDS: usize = 1024;
/// How often a node whose position is taken asks for another. A ring that is changing at the moment may refuse.
const POSITION_TRIES: u32 = 30;
const POSITION_PAUSE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct DriverSettings {
    pub ring: RingSettings,
    /// How often the ring stabilizes.
    pub stabilize_every: Duration,
    /// How long a peer may take to answer. With `stabilize_every` it bounds how long a dead peer stays in the ring.
    pub call_deadline: Duration,
    /// Copies of each chunk. Positions are chosen so that the nodes hold equal shares of all copies.
    pub copies: usize,
    /// Where id and known peers are kept.
    pub data_folder: PathBuf,
    /// The failure domain of this node: copies are kept in others. Part of its position.
    pub zone: Option<Zone>,
    /// The position to take instead of a chosen one.
    pub id: Option<RingId>,
    /// Cancelled by the call `kill`. That call is refused if this is `None`.
    pub kill: Option<CancellationToken>,
    /// The ring sends nothing until this is cancelled, because the node cannot answer calls before that.
    pub silent_until: Option<CancellationToken>,
    /// How this node connects to others.
    pub connector: Connector,
    /// Where foreign nodes may be, if `connector` makes encrypted connections.
    pub plain: PlainNetworks,
    /// Returns what this node holds now.
    pub load: Arc<dyn Fn() -> Load + Send + Sync>,
}

impl DriverSettings {
    pub fn new(data_folder: PathBuf) -> Self {
        Self {
            ring: RingSettings::default(),
            stabilize_every: Duration::from_secs(1),
            call_deadline: Duration::from_secs(1),
            copies: 3,
            data_folder,
            zone: None,
            id: None,
            kill: None,
            silent_until: None,
            connector: Connector::Plain,
            plain: PlainNetworks::default(),
            load: Arc::new(|| Load::Holds(0)),
        }
    }
}

/// Starts the ring of the node that others reach at `address`. It is a ring of one at first, and rejoins the peers that
/// it remembers; `RingHandle::join_ring` joins a ring for the first time. Ends with `shutdown`.
pub async fn start(
    settings: DriverSettings,
    address: SocketAddr,
    shutdown: CancellationToken,
) -> Result<RingHandle, SavedError> {
    let (saved, is_new) = match SavedRing::read(&settings.data_folder).await? {
        Some(saved) => (saved, false),
        None => (SavedRing::new(RingId::of_address(address)), true),
    };
    let id = if saved.settled { saved.id } else { initial_id(&settings, saved.id) };
    warn_of_another_zone(&settings, id);
    let me = NodeRef { ip: address.ip(), port: address.port(), id };
    let ring = Ring::new(me, settings.ring, saved.known.clone());
    let saver = Saver::start(settings.data_folder.clone(), saved.with_id(id)).await?;
    saver.change(|saved| saved.address = Some(address));
    info!(node = %me, is_new, "the ring starts");
    Ok(Driver::start(ring, settings, saver, shutdown))
}

fn initial_id(settings: &DriverSettings, saved: RingId) -> RingId {
    let id = settings.id.unwrap_or(saved);
    settings.zone.map_or(id, |zone| zone.mark(id))
}

/// A position is kept for life, and contains the zone that the node had when it took the position.
fn warn_of_another_zone(settings: &DriverSettings, id: RingId) {
    if let Some(zone) = settings.zone.filter(|&zone| Zone::of_id(id) != Some(zone)) {
        warn!(
            %id, zone = zone.number(),
            "this node took its position without this zone, so its copies are not spread by it; to change that, drain it, \
             and let it join again with an empty folder"
        );
    }
}

/// Commands from the rest of the process to the ring's task.
pub(crate) enum Command {
    Event(Event, oneshot::Sender<()>),
    FindSuccessor(RingId, oneshot::Sender<Result<NodeRef, NoRoute>>),
    Join(NodeRef, oneshot::Sender<Result<(), JoinError>>),
    Route(RingId, oneshot::Sender<RingRoute>),
}

/// The caller that waits for the result with this tag.
enum Waiting {
    Lookup(oneshot::Sender<Result<NodeRef, NoRoute>>),
    Join(oneshot::Sender<Result<(), JoinError>>),
}

struct Driver {
    ring: Ring,
    handle: RingHandle,
    view: watch::Sender<Neighbours>,
    waiting: HashMap<Tag, Waiting>,
    next_tag: Tag,
    /// Outcomes of calls. There are never more than calls under way, and each call has a deadline.
    outcomes: mpsc::UnboundedSender<Event>,
    started: Instant,
}

impl Driver {
    fn start(ring: Ring, settings: DriverSettings, saver: Saver, shutdown: CancellationToken) -> RingHandle {
        let (outcomes, outcome) = mpsc::unbounded_channel();
        let (commands, command) = mpsc::channel(QUEUE_COMMANDS);
        let (view, seen) = watch::channel(ring.neighbours());
        let connecting = (settings.connector.clone(), settings.plain.clone());
        let peers = RingPeers::new(connecting, settings.call_deadline, outcomes.clone());
        let (every, silent) = (settings.stabilize_every, settings.silent_until.clone());
        let (storage_nodes, kept) = watch::channel(ring.neighbours());
        let handle = RingHandle::new(RingHandleState::new(
            settings,
            commands,
            Views { ring: seen, storage_nodes: kept },
            peers,
            saver,
        ));
        tokio::spawn(storage_nodes::follow(handle.clone(), storage_nodes, shutdown.clone()));
        let driver = Driver {
            ring,
            handle: handle.clone(),
            view,
            waiting: HashMap::new(),
            next_tag: 0,
            outcomes,
            started: Instant::now(),
        };
        tokio::spawn(async move {
            if let Some(silent) = silent {
                tokio::select! { () = silent.cancelled() => {} () = shutdown.cancelled() => {} }
            }
            driver.run(every, command, outcome, shutdown).await;
        });
        handle
    }

    async fn run(
        mut self,
        every: Duration,
        mut commands: mpsc::Receiver<Command>,
        mut outcomes: mpsc::UnboundedReceiver<Event>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => self.tick(),
                Some(event) = outcomes.recv() => self.apply_event(event),
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
            }
        }
        self.handle.peers().close();
    }

    fn tick(&mut self) {
        self.waiting.retain(|_, waiting| match waiting {
            Waiting::Lookup(caller) => !caller.is_closed(),
            Waiting::Join(caller) => !caller.is_closed(),
        });
        self.apply_event(Event::Tick);
    }

    /// A failure to send a result is ignored: the caller no longer waits for it.
    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Event(event, done) => {
                self.apply_event(event);
                let _ = done.send(());
            }
            Command::Route(target, caller) => {
                let _ = caller.send(self.ring.route(target));
            }
            Command::FindSuccessor(target, caller) => {
                let tag = self.await_result(Waiting::Lookup(caller));
                self.apply_event(Event::FindSuccessor { tag, target });
            }
            Command::Join(member, caller) => {
                let tag = self.await_result(Waiting::Join(caller));
                self.apply_event(Event::Join { tag, member });
            }
        }
    }

    fn await_result(&mut self, waiting: Waiting) -> Tag {
        self.next_tag += 1;
        self.waiting.insert(self.next_tag, waiting);
        self.next_tag
    }

    fn apply_event(&mut self, event: Event) {
        for action in self.ring.handle(self.started.elapsed(), event) {
            self.execute(action);
        }
    }

    fn execute(&mut self, action: Action) {
        let peers = self.handle.peers();
        match action {
            Action::Call { call, to, request } => {
                let (peers, outcomes) = (peers.clone(), self.outcomes.clone());
                tokio::spawn(async move {
                    let event = match peers.ask(to, request).await {
                        Ok(answer) => Event::Answered { call, answer },
                        Err(failure) => Event::Unanswered { call, failure },
                    };
                    let _ = outcomes.send(event); // Fails only when the driver has ended.
                });
            }
            Action::Send { to, message } => {
                let peers = peers.clone();
                tokio::spawn(async move { peers.send(to, message).await });
            }
            Action::Found { tag, result } => {
                if let Some(Waiting::Lookup(caller)) = self.waiting.remove(&tag) {
                    let _ = caller.send(result);
                }
            }
            Action::Joined { tag, result } => {
                if let Some(Waiting::Join(caller)) = self.waiting.remove(&tag) {
                    let _ = caller.send(result);
                }
            }
            Action::IdTaken { by } => self.take_another_position(by),
            Action::Changed(view) => self.publish(view),
            Action::Remember(known) => self.handle.saver().change(|saved| saved.known = known),
        }
    }

    fn publish(&mut self, view: Neighbours) {
        let name = |node: &NodeRef| node.to_string();
        let predecessor = view.predecessor.as_ref().map_or("none".to_owned(), name);
        let successors: Vec<String> = view.successors.iter().map(name).collect();
        let successors = if successors.is_empty() { "none".to_owned() } else { successors.join(", ") };
        info_limited!(node = %view.node, predecessor, successors, "neighbours changed");
        let is_member = !view.successors.is_empty();
        self.handle.saver().change(|saved| {
            saved.id = view.node.id;
            saved.settled |= is_member;
        });
        let before = self.view.send_replace(view.clone());
        self.notify_former_predecessor(&before, &view);
    }

    /// If a node has joined between this node and its predecessor, asks the predecessor to stabilize now instead of at
    /// its next turn. Until then no node confirms the newcomer's arc, and writes to it wait.
    fn notify_former_predecessor(&self, before: &Neighbours, now: &Neighbours) {
        let (Some(former), Some(newcomer)) = (before.predecessor, now.predecessor) else { return };
        let between = RingArc::new(former.id, now.node.id).strictly_contains(newcomer.id);
        if between && before.node.id == now.node.id {
            let peers = self.handle.peers().clone();
            tokio::spawn(async move { peers.send_followed(former, newcomer).await });
        }
    }

    fn take_another_position(&mut self, by: NodeRef) {
        warn_limited!(node = %self.ring.me(), peer = %by, "another member has this id; choosing another position");
        let handle = self.handle.clone();
        tokio::spawn(async move {
            for _ in 0..POSITION_TRIES {
                let Err(error) = handle.join_at_new_position(&[by.ring_address()]).await else { return };
                warn_limited!(%error, "not joined again at another position yet");
                tokio::time::sleep(POSITION_PAUSE).await;
            }
            warn!("cannot join again at another position; the ring keeps asking the remembered peers");
        });
    }
}
