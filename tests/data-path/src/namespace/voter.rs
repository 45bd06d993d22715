//! One voter as mounts meet it: the leader carries requests out, the others name the leader.

use std::{sync::Arc, time::Duration};

use chordfs_net::rpc::{RpcPeer, RpcService, Value};
use chordfs_types::{
    fs_error::FsError,
    namespace::{
        Change, Granted, NamespaceOp, Query, Reply, Request, Response, SessionId, SessionRequests, decode, encode,
    },
};
use tokio::time::{Instant, sleep};

use super::{Connection, Leader, Lease, Namespace, voter_address};
use crate::network::Link;

/// Longer than a mount waits before it sends an operation again; in milliseconds.
const LATEST: u64 = 8000;

pub(crate) struct Voter {
    pub number: usize,
    /// To the mount at the other end of its connections.
    pub(crate) link: Arc<Link>,
    pub namespace: Arc<Namespace>,
}

impl RpcService for Voter {
    async fn call(&self, peer: &RpcPeer, _: String, params: Vec<Value>) -> Result<Value, Value> {
        let [Value::Binary(request)] = &params[..] else { return Err("one binary is expected".into()) };
        let request: Request = decode(request).map_err(|error| Value::from(error.to_string()))?;
        let response = match request {
            Request::Leader => self.not_leader(),
            Request::Attach { session, .. } => self.attach(session, peer),
            Request::KeepAlive { answered, .. } => self.keep_alive(peer, answered),
            Request::Report(_) => self.as_leader(peer, |_| Response::Reported).unwrap_or_else(|| self.not_leader()),
            Request::Acknowledge { .. } => Response::Acknowledged,
            Request::Apply(op) => self.apply_one(peer, op).await,
            Request::ApplyList(ops) => match self.apply(peer, &ops).await {
                Ok(replies) => Response::AppliedList(replies, remembered()),
                Err(response) => response,
            },
            Request::Query(query) => self.query(peer, &query).await,
        };
        Ok(Value::Binary(encode(&response).to_vec()))
    }
}

impl Voter {
    fn not_leader(&self) -> Response {
        let leader = self.namespace.leader.lock().voter.filter(|leader| *leader != self.number);
        Response::NotLeader { leader: leader.map(voter_address) }
    }

    /// Runs `act` if this voter leads, and renews the lease of the connection's session.
    fn as_leader<T>(&self, peer: &RpcPeer, act: impl FnOnce(&mut Leader) -> T) -> Option<T> {
        let mut leader = self.namespace.leader.lock();
        if leader.voter != Some(self.number) {
            return None;
        }
        leader.renew(peer.connection_id());
        Some(act(&mut leader))
    }

    fn attach(&self, session: SessionId, peer: &RpcPeer) -> Response {
        let id = peer.connection_id();
        let attached = self.as_leader(peer, |leader| {
            if !leader.has_session(session) {
                return Response::refused(FsError::NoSession);
            }
            leader.connections.insert(id, Connection { session, mount: self.link.mount, peer: peer.clone() });
            leader.renew(id);
            self.namespace.oracle.attached(self.link.mount, id);
            Response::Attached
        });
        attached.unwrap_or_else(|| self.not_leader())
    }

    fn keep_alive(&self, peer: &RpcPeer, answered: u64) -> Response {
        let answered = self.as_leader(peer, |leader| match leader.connections.get(&peer.connection_id()) {
            Some(connection) if leader.has_session(connection.session) => {
                if let Some(lease) = leader.sessions.get_mut(&connection.session) {
                    lease.answered = lease.answered.max(answered);
                }
                Response::Alive { applied: leader.index, requests: SessionRequests::default() }
            }
            Some(_) => Response::refused(FsError::NoSession),
            None => Response::Unavailable { reason: "this connection is not attached to a session".into() },
        });
        answered.unwrap_or_else(|| self.not_leader())
    }

    async fn apply_one(&self, peer: &RpcPeer, op: NamespaceOp) -> Response {
        match self.apply(peer, &[op]).await {
            Ok(mut replies) => Response::Applied(replies.remove(0), remembered()),
            Err(response) => response,
        }
    }

    /// Time passes before operations are logged, and before they are answered. A leader that is lost in between has
    /// logged them all or none.
    async fn apply(&self, peer: &RpcPeer, ops: &[NamespaceOp]) -> Result<Vec<Result<Reply, FsError>>, Response> {
        if self.as_leader(peer, |_| ()).is_none() {
            return Err(self.not_leader());
        }
        self.wait(4).await;
        let replies: Option<Vec<_>> = {
            let mut leader = self.namespace.leader.lock();
            let is_logged =
                leader.voter == Some(self.number) || self.namespace.world.random(|random| random.chance(50));
            is_logged.then(|| ops.iter().map(|op| self.apply_now(&mut leader, op)).collect())
        };
        let stores = |op: &NamespaceOp| op.change.as_commit().is_some() || matches!(op.change, Change::SetAttr { .. });
        if ops.iter().zip(replies.iter().flatten()).any(|(op, reply)| stores(op) && reply.is_ok()) {
            self.link.spring_trap();
        }
        self.wait(4).await;
        match replies {
            Some(replies) if self.as_leader(peer, |_| ()).is_some() => Ok(replies),
            _ => Err(Response::Unavailable { reason: "the leader was lost".into() }),
        }
    }

    fn apply_now(&self, leader: &mut Leader, op: &NamespaceOp) -> Result<Reply, FsError> {
        if matches!(op.change, Change::PurgeOrphans { .. } | Change::ForgetDead { .. } | Change::ForgetLogged { .. }) {
            return Err(FsError::Invalid { reason: "only the namespace itself may do this".into() });
        }
        self.namespace.apply(leader, op).reply
    }

    /// The answer is as of now and is sent later: news may overtake it.
    async fn query(&self, peer: &RpcPeer, query: &Query) -> Response {
        let Some(answer) = self.as_leader(peer, |leader| leader.tables.query(query)) else { return self.not_leader() };
        self.wait(6).await;
        Response::Answered(answer, remembered())
    }

    /// Waits for up to `most_millis`; in some runs now and then for much longer.
    async fn wait(&self, most_millis: u64) {
        let late_percent = self.namespace.leader.lock().late_percent;
        let is_late = self.namespace.world.random(|random| random.chance(late_percent));
        self.pause(if is_late { LATEST } else { most_millis }).await;
    }

    async fn pause(&self, most_millis: u64) {
        let micros = self.namespace.world.random(|random| random.below(most_millis * 1000));
        sleep(Duration::from_micros(micros)).await;
    }
}

impl Leader {
    fn renew(&mut self, connection: u64) {
        let Some(session) = self.connections.get(&connection).map(|connection| connection.session) else { return };
        let lease = self.sessions.entry(session).or_insert(Lease { last_heard: Instant::now(), answered: 0 });
        lease.last_heard = Instant::now();
    }
}

/// Every mount hears of every change, so it may remember everything.
fn remembered() -> Granted {
    Granted { remember: true, sole: Vec::new() }
}
