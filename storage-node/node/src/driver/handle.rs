//! The ring's interface for the rest of the process: cheap to clone, and every wait has a deadline.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chordfs_log::warn_limited;
use chordfs_net::rpc::{RpcError, Value};
use chordfs_ring::{Event, JoinError, NoRoute, RingAnswer, RingRequest, RingRoute};
use chordfs_types::{
    placement,
    ring_id::{Neighbours, NodeRef, RingArc, RingId},
};
use futures_util::future::join_all;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Command, DriverSettings,
    peers::RingPeers,
    place::Places,
    saved::Saver,
    wire::{self, Load, own},
};

/// The longest ring that `members` walks.
pub(super) const MEMBERS_MAX: usize = 4096;
/// The dead hops that a lookup may meet in a row. Each costs one call's deadline.
const DEAD_HOPS: u32 = 10;
/// How many positions a joining node tries if each was taken meanwhile.
const POSITIONS_TRIED: u32 = 8;

#[derive(Clone)]
pub struct RingHandle(Arc<RingHandleState>);

pub(super) struct RingHandleState {
    settings: DriverSettings,
    commands: mpsc::Sender<Command>,
    views: Views,
    peers: RingPeers,
    saver: Saver,
    places: Places,
}

/// The neighbours of this node among all members, and among the storage nodes.
pub(super) struct Views {
    pub ring: watch::Receiver<Neighbours>,
    pub storage_nodes: watch::Receiver<Neighbours>,
}

#[derive(Clone, Debug, Error)]
pub enum RingError {
    #[error("the ring of this node has stopped")]
    Stopped,
    #[error("the ring did not answer within {}; try again", humantime::format_duration(*deadline))]
    Deadline { deadline: Duration },
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("no live node after {after} is known; the ring may be repairing itself, try again")]
    Broken { after: NodeRef },
    #[error("the ring has more than {MEMBERS_MAX} members")]
    TooLong,
    #[error(transparent)]
    Peer(#[from] RpcError),
    #[error("{address} sent an unreadable answer: {reason}")]
    Unreadable { address: SocketAddr, reason: String },
}

#[derive(Debug, Error)]
pub enum JoinRingError {
    #[error("none of the nodes {asked:?} lets this node join; the last error was: {last}")]
    NoMember { asked: Vec<SocketAddr>, last: RingError },
}

impl RingHandleState {
    pub(super) fn new(
        settings: DriverSettings,
        commands: mpsc::Sender<Command>,
        views: Views,
        peers: RingPeers,
        saver: Saver,
    ) -> Self {
        Self { settings, commands, views, peers, saver, places: Places::default() }
    }
}

impl RingHandle {
    pub(super) fn new(shared: RingHandleState) -> Self {
        Self(Arc::new(shared))
    }

    pub(super) fn peers(&self) -> &RingPeers {
        &self.0.peers
    }

    pub(super) fn saver(&self) -> &Saver {
        &self.0.saver
    }

    pub(super) fn settings(&self) -> &DriverSettings {
        &self.0.settings
    }

    pub(super) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(super) fn kill_token(&self) -> Option<&CancellationToken> {
        self.0.settings.kill.as_ref()
    }

    /// The neighbours as this node knows them now.
    pub fn neighbours(&self) -> Neighbours {
        self.0.views.ring.borrow().clone()
    }

    /// Whether a neighbour has this address.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        let view = self.0.views.ring.borrow();
        view.successors.iter().chain(&view.predecessor).any(|node| node.ip == address)
    }

    /// Follows every change of the neighbours.
    pub fn watch(&self) -> watch::Receiver<Neighbours> {
        self.0.views.ring.clone()
    }

    /// The neighbours among the storage nodes, by which chunks are placed.
    pub fn storage_nodes(&self) -> Neighbours {
        self.0.views.storage_nodes.borrow().clone()
    }

    pub fn watch_storage_nodes(&self) -> watch::Receiver<Neighbours> {
        self.0.views.storage_nodes.clone()
    }

    pub fn me(&self) -> NodeRef {
        self.0.views.ring.borrow().node
    }

    pub fn predecessor(&self) -> Option<NodeRef> {
        self.0.views.ring.borrow().predecessor
    }

    /// Entry `index` of the successor list. A node that is alone is its own successor.
    pub fn successor(&self, index: usize) -> Option<NodeRef> {
        let view = self.0.views.ring.borrow();
        if view.successors.is_empty() && index == 0 { Some(view.node) } else { view.successors.get(index).copied() }
    }

    pub async fn find_successor(&self, target: RingId) -> Result<NodeRef, RingError> {
        let deadline = self.settings().call_deadline * DEAD_HOPS;
        Ok(self.ask(deadline, |caller| Command::FindSuccessor(target, caller)).await??)
    }

    /// Joins the ring of `member` at the present position. A node that is in a ring only remembers `member`, if that
    /// answers.
    pub async fn join(&self, member: NodeRef) -> Result<(), RingError> {
        let deadline = self.settings().call_deadline * DEAD_HOPS;
        Ok(self.ask(deadline, |caller| Command::Join(member, caller)).await??)
    }

    pub async fn notify(&self, peer: NodeRef) -> Result<(), RingError> {
        self.event(Event::Notified { peer }).await
    }

    pub async fn followed(&self, newcomer: NodeRef) -> Result<(), RingError> {
        self.event(Event::Followed { newcomer }).await
    }

    pub async fn stabilize(&self) -> Result<(), RingError> {
        self.event(Event::Stabilize).await
    }

    pub async fn check_predecessor(&self) -> Result<(), RingError> {
        self.event(Event::CheckPredecessor).await
    }

    /// The next hops of this node towards the successor of `target`.
    pub async fn route(&self, target: RingId) -> Result<RingRoute, RingError> {
        self.ask(self.settings().call_deadline, |caller| Command::Route(target, caller)).await
    }

    /// A peer has announced that it leaves.
    pub async fn peer_left(&self, view: Neighbours) -> Result<(), RingError> {
        let Neighbours { node, predecessor, successors } = view;
        self.event(Event::PeerLeft { peer: node, predecessor, successors }).await
    }

    /// Leaves the ring for good. The neighbours are notified and close the gap at once.
    pub async fn leave(&self) -> Result<(), RingError> {
        self.event(Event::Leave).await
    }

    /// Notifies all `members` at the same time that the node of `view` has left: in a large ring the neighbours alone
    /// would spread it only step by step.
    pub async fn announce_left(&self, view: &Neighbours, members: &[NodeRef]) {
        let deadline = self.settings().call_deadline;
        let calls = members
            .iter()
            .map(|node| self.call(node.ring_address(), own::LEAVE, vec![wire::neighbours_value(view)], deadline));
        for (node, sent) in members.iter().zip(join_all(calls).await) {
            if let Err(error) = sent {
                debug!(peer = %node, %error, "cannot announce that this node has left");
            }
        }
    }

    /// Forwards one of the ring's calls to the successor, once this node has left.
    pub async fn ask_successor_after_leaving(
        &self,
        successor: NodeRef,
        method: &str,
        params: Vec<Value>,
    ) -> Result<Value, Value> {
        let deadline = self.settings().call_deadline * DEAD_HOPS;
        match self.call(successor.ring_address(), method, params, deadline).await {
            Err(RpcError::Remote { error, .. }) => Err(error),
            answer => answer.map_err(|error| error.to_string().into()),
        }
    }

    /// Joins a ring through the first of `seeds` that permits it; without seeds this node founds a ring. A node that
    /// has been in a ring keeps its id and rejoins; any other takes the position that it is given.
    pub async fn join_ring(&self, seeds: &[SocketAddr]) -> Result<(), JoinRingError> {
        let me = self.me().ring_address();
        let seeds: Vec<SocketAddr> = seeds.iter().copied().filter(|&seed| seed != me).collect();
        if seeds.is_empty() {
            self.saver().change(|saved| saved.settled = true);
            return Ok(());
        }
        let keeps_id = self.saver().is_settled() || self.settings().id.is_some();
        self.enter_through_any(&seeds, keeps_id).await
    }

    /// Like `enter`, at a new position.
    pub(super) async fn join_at_new_position(&self, seeds: &[SocketAddr]) -> Result<(), JoinRingError> {
        self.enter_through_any(seeds, false).await
    }

    async fn enter_through_any(&self, seeds: &[SocketAddr], keeps_id: bool) -> Result<(), JoinRingError> {
        let mut last = RingError::Stopped;
        for &seed in seeds {
            match self.join_through(seed, keeps_id).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    debug!(peer = %seed, %error, "cannot join through this node");
                    last = error;
                }
            }
        }
        Err(JoinRingError::NoMember { asked: seeds.to_vec(), last })
    }

    async fn join_through(&self, seed: SocketAddr, mut keeps_id: bool) -> Result<(), RingError> {
        let mut tried = 0;
        loop {
            let member = self.info(seed).await?;
            if !keeps_id {
                let place = self.place_through(member, tried).await?;
                let id = self.settings().zone.map_or(placement::unmarked(place), |zone| zone.mark(place));
                self.event(Event::Reposition { id }).await?;
            }
            tried += 1;
            match self.join(member).await {
                Err(RingError::Join(JoinError::IdTaken { by })) if tried < POSITIONS_TRIED => {
                    warn_limited!(node = %self.me(), peer = %by, "the position is taken; choosing another");
                    keeps_id = false;
                }
                outcome => return outcome,
            }
        }
    }

    async fn info(&self, address: SocketAddr) -> Result<NodeRef, RingError> {
        let value = self.call(address, "get_info", vec![], self.settings().call_deadline).await?;
        let node = wire::node(&value).map_err(|reason| RingError::Unreadable { address, reason })?;
        Ok(NodeRef { id: node.id, ip: address.ip(), port: address.port() })
    }

    /// All members in ring order, beginning with this node, as far as they know each other.
    pub async fn members(&self) -> Result<Vec<NodeRef>, RingError> {
        let view = self.neighbours();
        let mut members = vec![view.node];
        members.extend(view.successors);
        let mut asked = BTreeSet::from([view.node.ring_address()]);
        loop {
            // The farthest known node knows the next ones. If it is dead, a node before it may know them.
            let last = members[members.len() - 1];
            let Some(&next) = members.iter().rev().find(|node| !asked.contains(&node.ring_address())) else {
                return if asked.contains(&last.ring_address()) && self.is_alone(&members) {
                    Ok(members)
                } else {
                    Err(RingError::Broken { after: last })
                };
            };
            asked.insert(next.ring_address());
            let Ok(RingAnswer::Neighbours(theirs)) = self.peers().ask(next, RingRequest::Neighbours).await else {
                members.retain(|node| *node != next);
                continue;
            };
            let is_complete = extend_members(&mut members, &theirs.successors);
            if is_complete {
                return Ok(members);
            }
            if members.len() > MEMBERS_MAX {
                return Err(RingError::TooLong);
            }
        }
    }

    /// When no node is left to ask, the list is complete only if this node is alone.
    fn is_alone(&self, members: &[NodeRef]) -> bool {
        members.len() == 1 && self.neighbours().successors.is_empty()
    }

    /// True if this node has been in a ring, now or before a restart. Such a node rejoins that ring by itself.
    pub fn remembers(&self) -> bool {
        self.saver().is_settled()
    }

    /// Whether this node has been in a ring with other nodes, now or before a restart. Such a node never founds a
    /// namespace: its ring has one.
    pub fn remembers_peers(&self) -> bool {
        self.saver().remembers_peers()
    }

    /// The neighbours of another node, as it knows them.
    pub async fn neighbours_of(&self, node: NodeRef) -> Result<Neighbours, RingError> {
        let address = node.ring_address();
        match self.peers().ask(node, RingRequest::Neighbours).await {
            Ok(RingAnswer::Neighbours(theirs)) => Ok(theirs),
            other => Err(RingError::Unreadable { address, reason: format!("{other:?}") }),
        }
    }

    /// The load that `node` reports.
    pub async fn load_of(&self, node: NodeRef) -> Result<Load, RingError> {
        if node.ring_address() == self.me().ring_address() {
            return Ok((self.settings().load)());
        }
        let address = node.ring_address();
        let value = self.call(address, own::LOAD, vec![], self.settings().call_deadline).await?;
        wire::load(&value).map_err(|reason| RingError::Unreadable { address, reason })
    }

    /// One call of any kind to another node, over the ring's connection to it.
    pub(super) async fn call(
        &self,
        to: SocketAddr,
        method: &str,
        params: Vec<Value>,
        deadline: Duration,
    ) -> Result<Value, RpcError> {
        self.peers().call(to, method, params, deadline).await
    }

    pub(super) async fn event(&self, event: Event) -> Result<(), RingError> {
        self.ask(self.settings().call_deadline, |done| Command::Event(event, done)).await
    }

    async fn ask<T>(
        &self,
        deadline: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, RingError> {
        let (caller, result) = oneshot::channel();
        let exchange = async {
            self.0.commands.send(command(caller)).await.map_err(|_| RingError::Stopped)?;
            result.await.map_err(|_| RingError::Stopped)
        };
        timeout(deadline, exchange).await.unwrap_or(Err(RingError::Deadline { deadline }))
    }
}

/// Adds the nodes of `list` that continue clockwise from the last member. True if the list reaches the first member.
fn extend_members(members: &mut Vec<NodeRef>, list: &[NodeRef]) -> bool {
    let first = members[0];
    for &node in list {
        if node.id == first.id {
            return true;
        }
        let last = members[members.len() - 1];
        if last.id == first.id || RingArc::new(last.id, first.id).strictly_contains(node.id) {
            members.push(node);
        }
    }
    false
}
