//! What travels between ring drivers beside nodes: the calls of our own, and routes.
//!
//! Route = `[is_final, [node, ...], [node beyond, ...]]`.

pub use common::ring_wire::{
    neighbours, neighbours_value, node, node_value, nodes, nodes_value, optional_node, optional_value, shortened, text,
};
use common::rpc::Value;

use crate::ring::Route;

/// Calls of our own; a foreign node answers them with an error and is then asked with the ten calls alone.
pub mod own {
    pub use common::namespace::calls::{KEEPERS, NEIGHBOURS};
    /// `[id]`, returns a Route: where this node would go for the successor of that id.
    pub const ROUTE: &str = "chordfs_route";
    /// `[neighbours]` of a node that leaves the ring; returns nil.
    pub const LEAVE: &str = "chordfs_leave";
    /// Returns the bytes this node holds.
    pub const LOAD: &str = "chordfs_load";
    /// `[address: str]`, returns the id at which the node there should join.
    pub const PLACE: &str = "chordfs_place";
}

pub fn route_value(route: &Route) -> Value {
    let (is_final, nodes, beyond) = match route {
        Route::Owner(nodes) => (true, nodes, &[][..]),
        Route::Ask { nodes, beyond } => (false, nodes, &beyond[..]),
    };
    Value::Array(vec![is_final.into(), nodes_value(nodes), nodes_value(beyond)])
}

pub fn route(value: &Value) -> Result<Route, String> {
    let wrong = || format!("expected [is_final: bool, [node, ...], [node, ...]], got {}", shortened(value));
    match value.as_array().map(Vec::as_slice) {
        Some([is_final, list, beyond]) => match (is_final.as_bool().ok_or_else(wrong)?, nodes(list)?) {
            (true, list) if list.is_empty() => Err(wrong()),
            (true, list) => Ok(Route::Owner(list)),
            (false, list) => Ok(Route::Ask { nodes: list, beyond: nodes(beyond)? }),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use common::ring_id::{NodeRef, RingId};

    use super::*;

    #[test]
    fn what_was_written_reads_back() {
        let node = NodeRef { ip: [10, 0, 0, 7].into(), port: 5057, id: RingId(9) };
        let ask = |nodes, beyond| Route::Ask { nodes, beyond };
        for way in [Route::Owner(vec![node, node]), ask(vec![node], vec![node, node]), ask(vec![], vec![])] {
            assert_eq!(route(&route_value(&way)), Ok(way));
        }
    }

    #[test]
    fn wrong_shapes_are_told() {
        for wrong in [Value::Nil, Value::Array(vec![true.into(), Value::Array(vec![])]), Value::Array(vec![7.into()])] {
            assert!(route(&wrong).is_err(), "{wrong}");
        }
    }
}
