//! The calls that other nodes make to this node's ring: the ten calls of any Chord node and the additional calls of
//! storage nodes. Arguments are checked strictly; a wrong argument changes nothing, and the error states what was
//! expected.

use chordfs_net::rpc::Value;
use chordfs_types::ring_id::{NodeRef, RingId};
use tracing::warn;

use super::{
    handle::{RingError, RingHandle},
    place,
    wire::{self, own},
};

/// Answers `method` if it is a call of the ring; `None` if it is not.
pub async fn ring_call(handle: &RingHandle, method: &str, params: &[Value]) -> Option<Result<Value, Value>> {
    let result = match method {
        "get_info" => none(method, params).map(|()| wire::node_value(handle.me())),
        // Every node is in a ring, if only of one; old scripts call this before each look-up.
        "create" => none(method, params).map(|()| Value::Nil),
        "join" => join(handle, params).await,
        "find_successor" => find_successor(handle, params).await,
        "get_predecessor" => none(method, params).map(|()| wire::optional_value(handle.predecessor())),
        "get_successor" => get_successor(handle, params),
        "notify" => notify(handle, params).await,
        "stabilize" => act(none(method, params), handle.stabilize()).await,
        "check_predecessor" => act(none(method, params), handle.check_predecessor()).await,
        "kill" => kill(handle, params),
        own::NEIGHBOURS => none(method, params).map(|()| wire::neighbours_value(&handle.neighbours())),
        own::STORAGE_NODES => none(method, params).map(|()| wire::neighbours_value(&handle.storage_nodes())),
        own::ROUTE => route(handle, params).await,
        own::LEAVE => leave(handle, params).await,
        own::FOLLOWED => followed(handle, params).await,
        own::LOAD => none(method, params).map(|()| wire::load_value((handle.settings().load)())),
        own::PLACE => place(handle, params).await,
        _ => return None,
    };
    Some(result.map_err(Value::from))
}

async fn join(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let member = wire::node(one("join", "any member", params)?)?;
    nil(handle.join(member).await)
}

async fn find_successor(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let target = id(one("find_successor", "id: uint", params)?)?;
    handle.find_successor(target).await.map(wire::node_value).map_err(|error| error.to_string())
}

fn get_successor(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let value = one("get_successor", "index: int", params)?;
    if !value.is_i64() && !value.is_u64() {
        return Err(format!("get_successor expects an index into the successor list, got {}", wire::shortened(value)));
    }
    let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
    Ok(wire::optional_value(index.and_then(|index| handle.successor(index))))
}

async fn notify(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let peer = wire::node(one("notify", "a Node", params)?)?;
    nil(handle.notify(peer).await)
}

fn kill(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    none("kill", params)?;
    let token = handle.kill_token().ok_or("kill is not allowed here; it has to be allowed when the node is started")?;
    warn!(node = %handle.me(), "stopping, as requested by the call kill");
    token.cancel();
    Ok(Value::Nil)
}

async fn route(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let target = id(one(own::ROUTE, "id: uint", params)?)?;
    let is_foreign = |node: &NodeRef| handle.is_foreign(node);
    handle.route(target).await.map(|route| wire::route_value(&route, is_foreign)).map_err(|error| error.to_string())
}

async fn leave(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let view = wire::neighbours(one(own::LEAVE, "the neighbours of the leaving node", params)?)?;
    nil(handle.peer_left(view).await)
}

async fn followed(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let newcomer = wire::node(one(own::FOLLOWED, "a Node", params)?)?;
    nil(handle.followed(newcomer).await)
}

async fn place(handle: &RingHandle, params: &[Value]) -> Result<Value, String> {
    let joiner = place::joiner(params)?;
    handle.give_place(joiner).await.map(|id| id.0.into()).map_err(|error| error.to_string())
}

async fn act(checked: Result<(), String>, step: impl Future<Output = Result<(), RingError>>) -> Result<Value, String> {
    checked?;
    nil(step.await)
}

fn nil(result: Result<(), RingError>) -> Result<Value, String> {
    result.map(|()| Value::Nil).map_err(|error| error.to_string())
}

/// Larger values are taken mod 2^32: old scripts send keys of any width.
fn id(value: &Value) -> Result<RingId, String> {
    let number =
        value.as_u64().ok_or_else(|| format!("an id is an unsigned integer, got {}", wire::shortened(value)))?;
    Ok(RingId(number as u32))
}

fn none(method: &str, params: &[Value]) -> Result<(), String> {
    match params {
        [] => Ok(()),
        more => Err(format!("{method} takes no argument, got {}", more.len())),
    }
}

fn one<'a>(method: &str, what: &str, params: &'a [Value]) -> Result<&'a Value, String> {
    match params {
        [only] => Ok(only),
        other => Err(format!("{method} takes one argument ({what}), got {}", other.len())),
    }
}
