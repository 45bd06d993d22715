//! The calls on 5057: the ring's, and the namespace's.

use std::{net::IpAddr, sync::Arc};

use chordfs_namespace::Namespace;
use chordfs_net::rpc::{RpcPeer, RpcService, Value};
use chordfs_types::namespace::calls;

use crate::{
    access::may_call,
    driver::{RingHandle, own, ring_call},
    identity::RevokedIdentities,
    replica::departure::Departure,
};

/// Answers the calls with the ring and the namespace.
pub struct RingPort {
    pub ring: RingHandle,
    pub namespace: Namespace,
    pub departure: Arc<Departure>,
    pub(crate) revoked: RevokedIdentities,
}

impl RingPort {
    /// A node that has left no longer knows the ring, so its former successor answers which node owns a key.
    async fn call_after_leaving(&self, method: &str, params: &[Value]) -> Option<Result<Value, Value>> {
        let successor = self.departure.successor()?.node;
        match method {
            "find_successor" => Some(self.ring.ask_successor_after_leaving(successor, method, params.to_vec()).await),
            own::ROUTE => Some(Err("this node has left the ring".into())),
            _ => None,
        }
    }
}

impl RpcService for RingPort {
    async fn call(&self, peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        if let Err(refusal) = may_call(peer.caller(), &method, &self.revoked) {
            if self.revoked.contain(peer.caller()) {
                peer.close(); // It would go on receiving what the namespace tells its session.
            }
            return Err(refusal.into());
        }
        if method == calls::NAMESPACE {
            let [Value::Binary(request)] = &params[..] else {
                return Err(format!("{method} takes one binary").into());
            };
            return Ok(Value::Binary(self.namespace.handle(peer, request).await));
        }
        if let Some(answer) = self.call_after_leaving(&method, &params).await {
            return answer;
        }
        match ring_call(&self.ring, &method, &params).await {
            Some(answer) => answer,
            None => Err(format!("there is no call {method:?} here").into()),
        }
    }

    fn is_neighbour(&self, address: IpAddr) -> bool {
        self.ring.is_neighbour(address)
    }
}
