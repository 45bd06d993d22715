//! Finds the owner and the holders of a key: keeps a table of arcs learnt from the nodes, and fills its gaps.
//!
//! The table is a value without clock or socket; the router around it asks the ring when the table has a gap. Data
//! stays safe even if a route is wrong: a node that gets a request for a key outside its arc refuses it and returns its
//! neighbours, which are learnt like any other answer.

mod unresponsive;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chordfs_types::{
    namespace::calls,
    ring_id::{Neighbours, NodeRef, RingId},
    route_table::{Route, RouteTable},
};
use parking_lot::Mutex;
use thiserror::Error;
use tracing::debug;

use self::unresponsive::UnresponsiveNodes;
use crate::{
    ring_wire,
    rpc::{Dialer, RpcClient, RpcError, Value},
    transport::Connector,
};

/// A walk round the ring ends after this many nodes, whatever the answers say.
const MAX_MEMBERS: usize = 4096;
/// Foreign nodes that may follow each other on the ring.
const FOREIGN_IN_A_ROW: usize = 16;

#[derive(Clone, Debug, Error)]
pub enum RouteError {
    #[error("no node of the ring is known; name one")]
    NoNode,
    #[error(transparent)]
    Call(#[from] RpcError),
    #[error("the nodes from {0} on are not storage nodes")]
    Foreign(NodeRef),
    #[error("the walk round the ring came to no end within {MAX_MEMBERS} nodes")]
    Endless,
    #[error("{from} sent an unusable answer to a look-up: {reason}")]
    Answer { from: SocketAddr, reason: String },
}

type KnownMember = Box<dyn Fn() -> Option<SocketAddr> + Send + Sync>;

pub struct Router {
    dialer: Arc<dyn Dialer>,
    table: Mutex<RouteTable>,
    nodes: Vec<SocketAddr>,
    member: OnceLock<KnownMember>,
    /// Selects the node to ask next: a different one each time, so that a dead node costs one attempt.
    next_index: AtomicUsize,
    connections: Mutex<HashMap<SocketAddr, RpcClient>>,
    unresponsive: Mutex<UnresponsiveNodes>,
    deadline: Duration,
}

impl Router {
    /// `nodes` are ring addresses of any members, to begin with. `deadline` bounds one call. Connects plainly.
    pub fn new(nodes: Vec<SocketAddr>, deadline: Duration) -> Self {
        Self::over(Arc::new(Connector::Plain), nodes, deadline)
    }

    /// Like `new`, over connections that `dialer` makes.
    pub fn over(dialer: Arc<dyn Dialer>, nodes: Vec<SocketAddr>, deadline: Duration) -> Self {
        Self {
            dialer,
            table: Mutex::default(),
            nodes,
            member: OnceLock::new(),
            next_index: AtomicUsize::new(0),
            connections: Mutex::default(),
            unresponsive: Mutex::default(),
            deadline,
        }
    }

    /// From now on `member` is asked at each look-up for the ring address of one more node to begin with. Without it, a
    /// client that looks nothing up while all nodes that it knows leave the ring never finds the ring again. Only the
    /// first function counts.
    pub fn also_begin_with(&self, member: impl Fn() -> Option<SocketAddr> + Send + Sync + 'static) {
        let _ = self.member.set(Box::new(member));
    }

    /// Adds the routes that follow from a node's neighbours.
    pub fn learn(&self, neighbours: &Neighbours) {
        self.table.lock().learn(neighbours);
    }

    /// Drops all routes, so that each is looked up again.
    pub fn clear(&self) {
        *self.table.lock() = RouteTable::default();
    }

    /// Drops the route, so that it is looked up again.
    pub fn drop_route(&self, route: &Route) {
        self.table.lock().drop_owner(route.owner());
    }

    /// Notes that the node did not answer: others are asked first for a while. Its routes stay.
    pub fn note_unresponsive(&self, node: &NodeRef) {
        self.unresponsive.lock().insert(node.ring_address(), Instant::now());
    }

    pub fn note_responsive(&self, node: &NodeRef) {
        self.unresponsive.lock().remove(node.ring_address());
    }

    pub fn is_unresponsive(&self, node: &NodeRef) -> bool {
        self.unresponsive.lock().contains(node.ring_address(), Instant::now())
    }

    /// Ring addresses of the nodes that are unresponsive now.
    pub fn unresponsive(&self) -> HashSet<SocketAddr> {
        self.unresponsive.lock().all(Instant::now())
    }

    /// Learns the neighbours of one node. The successor of an unresponsive node knows first that the ring has closed up
    /// around it.
    pub async fn refresh(&self, node: &NodeRef) {
        let address = node.ring_address();
        let answer =
            self.call(address, calls::STORAGE_NODES, vec![]).await.map(|answer| ring_wire::neighbours(&answer));
        match answer {
            Ok(Ok(neighbours)) => self.learn(&neighbours),
            Ok(Err(reason)) => debug!(%node, reason, "cannot decode an answer about the ring"),
            Err(error) => debug!(%node, %error, "no answer about the ring"),
        }
    }

    /// Notes that the node did not answer, and drops the routes that it owns, so that they are looked up at other
    /// nodes.
    pub fn invalidate(&self, node: &NodeRef) {
        self.note_unresponsive(node);
        self.table.lock().drop_owner(node);
        self.connections.lock().remove(&node.ring_address());
    }

    /// Returns the known routes of many keys; `None` stands for a gap in the table.
    pub fn known_routes(&self, keys: impl Iterator<Item = RingId>) -> Vec<Option<Arc<Route>>> {
        let table = self.table.lock();
        keys.map(|key| table.route(key).cloned()).collect()
    }

    /// Returns the route of a key; asks the ring if it is not known.
    pub async fn route(&self, key: RingId) -> Result<Arc<Route>, RouteError> {
        if let Some(route) = self.table.lock().route(key).cloned() {
            return Ok(route);
        }
        self.look_up(key).await
    }

    /// All nodes in the table, without duplicates.
    pub fn members(&self) -> Vec<NodeRef> {
        self.table.lock().members()
    }

    /// Finds all storage nodes of the ring, arc by arc. Needs no call where the routes are known.
    pub async fn all_members(&self) -> Result<Vec<NodeRef>, RouteError> {
        let mut members: Vec<NodeRef> = Vec::new();
        let mut key = RingId(0);
        while members.len() < MAX_MEMBERS {
            let route = self.route(key).await?;
            if members.contains(route.owner()) {
                return Ok(members);
            }
            members.push(*route.owner());
            key = route.arc.upto.advance(1);
        }
        Err(RouteError::Endless)
    }

    async fn look_up(&self, key: RingId) -> Result<Arc<Route>, RouteError> {
        let from = self.next_node()?;
        let (address, neighbours) = self.storage_node(from, key).await?;
        let neighbours =
            ring_wire::neighbours(&neighbours).map_err(|reason| RouteError::Answer { from: address, reason })?;
        self.learn(&neighbours);
        let known = self.table.lock().route(key).cloned();
        known.ok_or_else(|| RouteError::Answer {
            from: address,
            reason: format!("key {key} is not in the arc that it reported"),
        })
    }

    /// Finds the storage node that holds a key. Foreign Chord nodes are skipped, which do not know chordfs's own calls
    /// and in a ring with identities speak no TLS: the next storage node holds their keys. A node of the ring that has
    /// just died is skipped as well; the next one says whether the key is its own already.
    async fn storage_node(&self, from: SocketAddr, key: RingId) -> Result<(SocketAddr, Value), RouteError> {
        let mut owner = self.owner(from, key).await?;
        for _ in 0..FOREIGN_IN_A_ROW {
            let address = owner.ring_address();
            match self.call(address, calls::STORAGE_NODES, vec![]).await {
                Ok(neighbours) => return Ok((address, neighbours)),
                Err(RouteError::Call(RpcError::Remote { .. } | RpcError::Connect { .. })) => {
                    owner = self.owner(from, owner.id.advance(1)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(RouteError::Foreign(owner))
    }

    async fn owner(&self, from: SocketAddr, key: RingId) -> Result<NodeRef, RouteError> {
        let owner = self.call(from, "find_successor", vec![Value::from(key.0)]).await?;
        ring_wire::optional_node(&owner)
            .map_err(|reason| RouteError::Answer { from, reason })?
            .ok_or_else(|| RouteError::Answer { from, reason: "it knows no owner of the key".into() })
    }

    /// Selects a node to ask: one of those given at the start, which may all be dead, or of the members known since.
    /// Unresponsive nodes are selected only if all are unresponsive.
    fn next_node(&self) -> Result<SocketAddr, RouteError> {
        let members = self.table.lock().members();
        let member = self.member.get().and_then(|member| member());
        let learnt = members.iter().map(NodeRef::ring_address);
        let all: Vec<_> = self.nodes.iter().copied().chain(member).chain(learnt).collect();
        let (unresponsive, now) = (self.unresponsive.lock(), Instant::now());
        let responsive: Vec<_> = all.iter().copied().filter(|node| !unresponsive.contains(*node, now)).collect();
        let known = if responsive.is_empty() { all } else { responsive };
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        known.get(index % known.len().max(1)).copied().ok_or(RouteError::NoNode)
    }

    async fn call(&self, address: SocketAddr, method: &str, params: Vec<Value>) -> Result<Value, RouteError> {
        let known = self.connections.lock().get(&address).filter(|client| !client.is_closed()).cloned();
        let client = match known {
            Some(client) => client,
            None => {
                let client = RpcClient::dial(&*self.dialer, address, self.deadline).await;
                let client = client.inspect_err(|_| self.unresponsive.lock().insert(address, Instant::now()))?;
                self.connections.lock().insert(address, client.clone());
                client
            }
        };
        let answer = client.call(method, params, self.deadline).await;
        if matches!(answer, Err(RpcError::Deadline { .. } | RpcError::Closed { .. })) {
            self.connections.lock().remove(&address);
            self.unresponsive.lock().insert(address, Instant::now());
        }
        Ok(answer?)
    }
}
