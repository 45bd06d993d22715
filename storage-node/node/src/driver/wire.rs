//! The form of the calls that only storage nodes know, and of routes and loads.
//!
//! Route = `[is_final, [node, ...], [node beyond, ...], [node of these that is foreign, ...]]`. Load = bytes: uint;
//! nil: moving; `"leaving"`.

pub(super) use chordfs_net::ring_wire::{
    neighbours, neighbours_value, node, node_value, nodes, nodes_value, optional_node, optional_value, shortened, text,
};
use chordfs_net::rpc::Value;
use chordfs_ring::RingRoute;
use chordfs_types::ring_id::NodeRef;

/// The calls that only storage nodes know. A foreign node answers them with an error and is then sent only the ten
/// calls.
pub mod own {
    pub use chordfs_types::namespace::calls::{NEIGHBOURS, STORAGE_NODES};
    /// `[id]`, returns a Route: the next hops of this node towards the successor of that id.
    pub const ROUTE: &str = "chordfs_route";
    /// `[neighbours]` of a node that leaves the ring; returns nil.
    pub const LEAVE: &str = "chordfs_leave";
    /// `[Node]` that has joined between the receiver and its successor, the sender: the receiver stabilizes; returns
    /// nil.
    pub const FOLLOWED: &str = "chordfs_followed";
    /// Returns a Load.
    pub const LOAD: &str = "chordfs_load";
    /// `[address: str]` or `[address: str, id: uint]`, returns the id at which the node there should join. The argument
    /// `id` only transports the node's zone.
    pub const PLACE: &str = "chordfs_place";

    /// Whether only storage nodes know the call.
    pub fn is_own(method: &str) -> bool {
        method.starts_with("chordfs_")
    }
}

/// The load that a node reports, as far as it predicts what the node will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The node holds this many bytes: exactly the chunks that it should hold.
    Holds(u64),
    /// Chunks are moving to or from the node, or it has not yet dropped copies that other nodes hold now.
    Moving,
    /// The node drains.
    Leaving,
}

const LEAVING: &str = "leaving";

pub(super) fn load_value(load: Load) -> Value {
    match load {
        Load::Holds(bytes) => bytes.into(),
        Load::Moving => Value::Nil,
        Load::Leaving => LEAVING.into(),
    }
}

pub(super) fn load(value: &Value) -> Result<Load, String> {
    match value.as_u64() {
        Some(bytes) => Ok(Load::Holds(bytes)),
        None if value.is_nil() => Ok(Load::Moving),
        None if text(value) == Some(LEAVING) => Ok(Load::Leaving),
        None => Err(format!("expected bytes: uint, nil or {LEAVING:?}, got {}", shortened(value))),
    }
}

pub(super) fn route_value(route: &RingRoute, is_foreign: impl Fn(&NodeRef) -> bool) -> Value {
    let (is_final, nodes, beyond) = match route {
        RingRoute::Owner(nodes) => (true, nodes, &[][..]),
        RingRoute::NextHops { nodes, beyond } => (false, nodes, &beyond[..]),
    };
    let foreign: Vec<NodeRef> = nodes.iter().chain(beyond).filter(|node| is_foreign(node)).copied().collect();
    Value::Array(vec![is_final.into(), nodes_value(nodes), nodes_value(beyond), nodes_value(&foreign)])
}

/// The route, and those of its nodes that are foreign.
pub(super) fn route(value: &Value) -> Result<(RingRoute, Vec<NodeRef>), String> {
    let wrong =
        || format!("expected [is_final: bool, [node, ...], [node, ...], [node, ...]], got {}", shortened(value));
    let Some([is_final, list, beyond, foreign]) = value.as_array().map(Vec::as_slice) else { return Err(wrong()) };
    let route = match (is_final.as_bool().ok_or_else(wrong)?, nodes(list)?) {
        (true, list) if list.is_empty() => return Err(wrong()),
        (true, list) => RingRoute::Owner(list),
        (false, list) => RingRoute::NextHops { nodes: list, beyond: nodes(beyond)? },
    };
    Ok((route, nodes(foreign)?))
}

#[cfg(test)]
mod tests {
    use chordfs_types::ring_id::RingId;

    use super::*;

    #[test]
    fn routes_and_loads_read_back() {
        let node = NodeRef { ip: [10, 0, 0, 7].into(), port: 5057, id: RingId(9) };
        let ask = |nodes, beyond| RingRoute::NextHops { nodes, beyond };
        for way in [RingRoute::Owner(vec![node, node]), ask(vec![node], vec![node, node]), ask(vec![], vec![])] {
            assert_eq!(route(&route_value(&way, |_| false)), Ok((way, vec![])));
        }
        let way = ask(vec![node], vec![node]);
        assert_eq!(route(&route_value(&way, |_| true)), Ok((way, vec![node, node])));
        for held in [Load::Holds(0), Load::Holds(u64::MAX), Load::Moving, Load::Leaving] {
            assert_eq!(load(&load_value(held)), Ok(held));
        }
    }

    #[test]
    fn malformed_values_are_errors() {
        for wrong in [Value::Nil, Value::Array(vec![true.into(), Value::Array(vec![])]), Value::Array(vec![7.into()])] {
            assert!(route(&wrong).is_err(), "{wrong}");
        }
        for wrong in [Value::from("gone"), Value::from(-1), Value::Array(vec![])] {
            assert!(load(&wrong).is_err(), "{wrong}");
        }
    }
}
