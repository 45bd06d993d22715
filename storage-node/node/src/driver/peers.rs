//! Calls to other nodes: one connection to each, opened when first needed and again after it broke, and the calls that
//! the node there understands.
//!
//! A foreign Chord node knows only the ten calls of the ring. It answers the additional calls of storage nodes with an
//! error; from then on, as long as that connection lasts, it is sent only the ten. A storage node may refuse a call
//! too, so only the refusal of a call that no storage node refuses makes a node foreign.
//!
//! In a ring with identities storage nodes speak TLS. A peer that does not is a foreign node, if it is in a network
//! from which the operator allows plain connections: whoever sits there may take part in look-ups, and is never sent a
//! call of storage nodes.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chordfs_net::{
    rpc::{RpcClient, RpcError, Value},
    transport::{Connector, PlainNetworks},
};
use chordfs_ring::{
    CallFailure, Event, Message, RingAnswer, RingRequest,
    foreign::{self, ForeignCall, ForeignConversation, ForeignOutcome, ForeignReply},
};
use chordfs_types::ring_id::NodeRef;
use parking_lot::Mutex;
use tokio::{
    sync::{OnceCell, mpsc},
    time::timeout,
};
use tracing::{debug, trace};

use super::wire::{self, own};

#[derive(Clone)]
pub(super) struct RingPeers(Arc<RingPeersInner>);

struct RingPeersInner {
    connector: Connector,
    /// Where foreign nodes may be in a ring with identities.
    plain: PlainNetworks,
    peers: Mutex<HashMap<SocketAddr, Arc<RingPeer>>>,
    /// Whether each peer proved to be foreign when it was last sent a call that only storage nodes know.
    foreign: Mutex<HashMap<SocketAddr, bool>>,
    call_deadline: Duration,
    /// Where a broken connection is reported.
    events: mpsc::UnboundedSender<Event>,
    closed: AtomicBool,
}

struct RingPeer {
    address: SocketAddr,
    /// Further callers wait for the same attempt to connect.
    client: OnceCell<RpcClient>,
    is_foreign: AtomicBool,
    /// Its connection is not encrypted, although the ring has identities.
    plain: AtomicBool,
    deadline: Duration,
}

impl RingPeers {
    /// `plain`: where foreign nodes may be, if `connector` makes encrypted connections.
    pub(super) fn new(
        (connector, plain): (Connector, PlainNetworks),
        call_deadline: Duration,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let closed = AtomicBool::new(false);
        Self(Arc::new(RingPeersInner {
            connector,
            plain,
            peers: Mutex::default(),
            foreign: Mutex::default(),
            call_deadline,
            events,
            closed,
        }))
    }

    /// Returns the answer or the reason for its absence within the call deadline, which includes connecting and finding
    /// out the kind of the node.
    pub(super) async fn ask(&self, to: NodeRef, request: RingRequest) -> Result<RingAnswer, CallFailure> {
        trace!(peer = %to, ?request, "asking");
        let address = to.ring_address();
        let peer = self.peer(address);
        let result = timeout(self.0.call_deadline, self.ask_peer(&peer, &request))
            .await
            .unwrap_or_else(|_| Err(RpcError::Deadline { address, deadline: self.0.call_deadline }));
        result.map_err(|error| {
            debug!(peer = %to, %error, "no answer");
            let why = failure(&error, &request, &peer);
            if why != CallFailure::Refused {
                self.drop_peer(&peer);
            }
            why
        })
    }

    /// Makes one call of any kind. The deadline includes connecting.
    pub(super) async fn call(
        &self,
        address: SocketAddr,
        method: &str,
        params: Vec<Value>,
        deadline: Duration,
    ) -> Result<Value, RpcError> {
        let peer = self.peer(address);
        let call = async {
            let client = self.client(&peer).await?;
            if peer.is_plain() && own::is_own(method) {
                return Err(RpcError::Remote { address, error: "it is a foreign Chord node".into() });
            }
            client.call(method, params, deadline).await
        };
        timeout(deadline, call).await.unwrap_or(Err(RpcError::Deadline { address, deadline }))
    }

    /// Whether the node there proved to be a foreign Chord node in its last answer.
    pub(super) fn is_foreign(&self, address: SocketAddr) -> bool {
        self.0.foreign.lock().get(&address).is_some_and(|foreign| *foreign)
    }

    /// Whether the kind of the node there is known from a connection that still exists.
    pub(super) fn is_known(&self, address: SocketAddr) -> bool {
        let connected = self.0.peers.lock().contains_key(&address);
        connected && self.0.foreign.lock().contains_key(&address)
    }

    fn note(&self, address: SocketAddr, is_foreign: bool) {
        let before = self.0.foreign.lock().insert(address, is_foreign);
        if is_foreign || before == Some(true) {
            self.report_kind(address, is_foreign);
        }
    }

    /// Reports to the ring, before any answer that is delivered later.
    fn report_kind(&self, peer: SocketAddr, is_foreign: bool) {
        let _ = self.0.events.send(Event::KindKnown { peer, is_foreign }); // Fails only when the driver has ended.
    }

    /// Reports to the ring which nodes of a route are foreign, as far as the node that sent it knows. Which calls this
    /// node sends to them depends only on what it finds out itself.
    fn note_route(&self, foreign: Vec<NodeRef>) {
        foreign.iter().for_each(|node| self.report_kind(node.ring_address(), true));
    }

    pub(super) async fn send(&self, to: NodeRef, message: Message) {
        let (method, value) = match &message {
            Message::Notify(me) => ("notify", wire::node_value(*me)),
            Message::Leave(view) => (own::LEAVE, wire::neighbours_value(view)),
        };
        if let Err(error) = self.call(to.ring_address(), method, vec![value], self.0.call_deadline).await {
            debug!(peer = %to, %error, method, "cannot send a message");
        }
    }

    /// Asks a node to stabilize now, because `newcomer` has joined after it. A storage node is also told which node
    /// that is: if it found the newcomer dead a moment ago, it would otherwise ignore it for seconds. A foreign node is
    /// only asked to stabilize. A notification would be wrong: a node without a predecessor would adopt the newcomer as
    /// one.
    pub(super) async fn send_followed(&self, node: NodeRef, newcomer: NodeRef) {
        let (address, deadline) = (node.ring_address(), self.0.call_deadline);
        let sent = if !self.is_foreign(address) {
            self.call(address, own::FOLLOWED, vec![wire::node_value(newcomer)], deadline).await.is_ok()
        } else {
            false
        };
        if !sent && let Err(error) = self.call(address, "stabilize", vec![], deadline).await {
            debug!(peer = %node, %error, "cannot ask a node to stabilize now; it does so at its next turn");
        }
    }

    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let peers = std::mem::take(&mut *self.0.peers.lock());
        peers.values().for_each(|peer| peer.hang_up());
    }

    fn peer(&self, address: SocketAddr) -> Arc<RingPeer> {
        let new = || {
            let deadline = self.0.call_deadline;
            let (is_foreign, plain) = (AtomicBool::new(false), AtomicBool::new(false));
            Arc::new(RingPeer { address, client: OnceCell::new(), is_foreign, plain, deadline })
        };
        self.0.peers.lock().entry(address).or_insert_with(new).clone()
    }

    async fn client(&self, peer: &Arc<RingPeer>) -> Result<RpcClient, RpcError> {
        let connect = || async {
            let client = self.dial(peer).await?;
            self.watch(peer.clone(), client.clone());
            Ok(client)
        };
        match peer.client.get_or_try_init(connect).await {
            Ok(client) => Ok(client.clone()),
            Err(error) => {
                self.drop_peer(peer);
                Err(error)
            }
        }
    }

    async fn dial(&self, peer: &RingPeer) -> Result<RpcClient, RpcError> {
        let RingPeersInner { connector, plain, call_deadline, .. } = &*self.0;
        if !connector.is_encrypted() || !plain.contain(peer.address.ip()) {
            return RpcClient::dial(connector, peer.address, *call_deadline).await;
        }
        // A foreign node may not answer at all what it does not understand.
        match RpcClient::dial(connector, peer.address, *call_deadline / 2).await {
            Err(RpcError::Connect { kind, reason, .. }) if kind != ErrorKind::ConnectionRefused => {
                debug!(peer = %peer.address, reason, "it does not speak TLS; asking whether it is a foreign node");
                let client = RpcClient::dial(&Connector::Plain, peer.address, *call_deadline).await?;
                if !peer.refuses_own_calls(&client).await? {
                    // A node of ours that is slow; to be called over TLS only.
                    let address = peer.address;
                    return Err(RpcError::Connect { address, kind: ErrorKind::TimedOut, reason });
                }
                peer.plain.store(true, Ordering::Relaxed);
                peer.is_foreign.store(true, Ordering::Relaxed);
                Ok(client)
            }
            dialed => dialed,
        }
    }

    /// Reports the end of the connection at once: this is usually the first sign that a neighbour is dead.
    fn watch(&self, peer: Arc<RingPeer>, client: RpcClient) {
        let peers = self.clone();
        tokio::spawn(async move {
            client.closed().await;
            peers.drop_peer(&peer);
            if !peers.0.closed.load(Ordering::Relaxed) {
                let _ = peers.0.events.send(Event::ConnectionLost { peer: peer.address });
            }
        });
    }

    /// The next call to this address connects anew.
    fn drop_peer(&self, peer: &Arc<RingPeer>) {
        let mut peers = self.0.peers.lock();
        if peers.get(&peer.address).is_some_and(|present| Arc::ptr_eq(present, peer)) {
            peers.remove(&peer.address);
        }
        drop(peers);
        peer.hang_up();
    }

    async fn ask_peer(&self, peer: &Arc<RingPeer>, request: &RingRequest) -> Result<RingAnswer, RpcError> {
        let client = self.client(peer).await?;
        if !peer.is_foreign.load(Ordering::Relaxed) {
            match self.ask_own(peer, &client, request).await {
                Err(error @ RpcError::Remote { .. }) if *request != RingRequest::Info => {
                    if !peer.refuses_own_calls(&client).await? {
                        return Err(error);
                    }
                    debug!(peer = %peer.address, %error, "a foreign Chord node; using only the ten calls");
                    peer.is_foreign.store(true, Ordering::Relaxed);
                    self.note(peer.address, true);
                }
                outcome => {
                    if outcome.is_ok() && *request != RingRequest::Info {
                        self.note(peer.address, false);
                    }
                    return outcome;
                }
            }
        }
        self.note(peer.address, true);
        peer.ask_foreign(&client, request).await
    }

    async fn ask_own(
        &self,
        peer: &RingPeer,
        client: &RpcClient,
        request: &RingRequest,
    ) -> Result<RingAnswer, RpcError> {
        match request {
            RingRequest::Info => Ok(RingAnswer::Info(peer.info(client).await?)),
            RingRequest::Neighbours => {
                let value = peer.call(client, own::NEIGHBOURS, vec![]).await?;
                Ok(RingAnswer::Neighbours(peer.read(wire::neighbours(&value))?))
            }
            RingRequest::Route(target) => {
                let value = peer.call(client, own::ROUTE, vec![target.0.into()]).await?;
                let (route, foreign) = peer.read(wire::route(&value))?;
                self.note_route(foreign);
                Ok(RingAnswer::Route(route))
            }
        }
    }
}

fn failure(error: &RpcError, request: &RingRequest, peer: &RingPeer) -> CallFailure {
    match error {
        RpcError::Remote { .. } => CallFailure::Refused,
        RpcError::Connect { kind: ErrorKind::ConnectionRefused, .. } => CallFailure::Unreachable,
        RpcError::Deadline { .. } if peer.is_foreign.load(Ordering::Relaxed) => foreign::timeout_failure(request),
        RpcError::Connect { .. } | RpcError::Deadline { .. } | RpcError::Closed { .. } => CallFailure::TimedOut,
    }
}

impl RingPeer {
    fn hang_up(&self) {
        if let Some(client) = self.client.get() {
            client.close();
        }
    }

    fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    async fn call(&self, client: &RpcClient, method: &str, params: Vec<Value>) -> Result<Value, RpcError> {
        client.call(method, params, self.deadline).await
    }

    /// An answer that cannot be read counts as a refusal.
    fn read<T>(&self, result: Result<T, String>) -> Result<T, RpcError> {
        result.map_err(|error| RpcError::Remote { address: self.address, error: error.into() })
    }

    /// Asks with the one call that a storage node answers in any state, even if the answer is unreadable here.
    async fn refuses_own_calls(&self, client: &RpcClient) -> Result<bool, RpcError> {
        match self.call(client, own::NEIGHBOURS, vec![]).await {
            Ok(_) => Ok(false),
            Err(RpcError::Remote { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn info(&self, client: &RpcClient) -> Result<NodeRef, RpcError> {
        let value = self.call(client, "get_info", vec![]).await?;
        self.read(wire::node(&value))
    }

    /// A refusal or an unreadable reply may be part of the answer, as the end of the node's list. A broken connection
    /// is an error.
    async fn ask_foreign(&self, client: &RpcClient, request: &RingRequest) -> Result<RingAnswer, RpcError> {
        let mut conversation = ForeignConversation::new(request);
        loop {
            let (method, params) = encode_call(conversation.call());
            let value = self.call(client, method, params).await;
            let node = value.and_then(|value| self.read(wire::optional_node(&value)));
            let (reply, error) = match node {
                Ok(Some(node)) => (ForeignReply::Node(node), None),
                Ok(None) => (ForeignReply::NoNode, None),
                Err(error @ RpcError::Remote { .. }) => (ForeignReply::Refused, Some(error)),
                Err(error) => return Err(error),
            };
            match conversation.on_reply(reply) {
                ForeignOutcome::Continue => {}
                ForeignOutcome::Answer(answer) => return Ok(answer),
                ForeignOutcome::Refused => return Err(error.unwrap_or_else(|| self.no_node(method))),
            }
        }
    }

    fn no_node(&self, method: &str) -> RpcError {
        RpcError::Remote { address: self.address, error: format!("{method} named no node").into() }
    }
}

fn encode_call(call: ForeignCall) -> (&'static str, Vec<Value>) {
    match call {
        ForeignCall::Info => ("get_info", vec![]),
        ForeignCall::Predecessor => ("get_predecessor", vec![]),
        ForeignCall::Successor { index } => ("get_successor", vec![index.into()]),
        ForeignCall::FindSuccessor { target } => ("find_successor", vec![target.0.into()]),
    }
}
