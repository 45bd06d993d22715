//! Converts nodes to MessagePack values and back. The shape of every value from a peer is checked.
//!
//! Node = `[ip: str, port: uint, id: uint]`; "no such node" has ip `""`. Neighbours = `[predecessor, self, [successor,
//! ...]]`.

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use crate::rpc::Value;

/// Nodes read from a list that a peer sends; the rest is ignored.
const MAX_NODES: usize = 256;
const NODE_FORM: &str = "a Node is [ip: str, port: uint 1..=65533, id: uint below 2^32]";

pub fn node_value(node: NodeRef) -> Value {
    Value::Array(vec![node.ip.to_string().into(), node.port.into(), node.id.0.into()])
}

pub fn no_node() -> Value {
    Value::Array(vec!["".into(), 0.into(), 0.into()])
}

pub fn optional_value(node: Option<NodeRef>) -> Value {
    node.map_or_else(no_node, node_value)
}

pub fn nodes_value(nodes: &[NodeRef]) -> Value {
    Value::Array(nodes.iter().copied().map(node_value).collect())
}

pub fn neighbours_value(view: &Neighbours) -> Value {
    Value::Array(vec![optional_value(view.predecessor), node_value(view.node), nodes_value(&view.successors)])
}

/// Reads a Node or "no such node".
pub fn optional_node(value: &Value) -> Result<Option<NodeRef>, String> {
    let wrong = || format!("{NODE_FORM}, got {}", shortened(value));
    let [ip, port, id] = value.as_array().map(Vec::as_slice).ok_or_else(wrong)? else { return Err(wrong()) };
    let ip = text(ip).ok_or_else(wrong)?;
    if ip.is_empty() {
        return Ok(None);
    }
    let ip = ip.parse().map_err(|_| format!("{NODE_FORM}, and {ip:?} is no IP address"))?;
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| PORTS.contains(port));
    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(Some(NodeRef { ip, port: port.ok_or_else(wrong)?, id: RingId(id.ok_or_else(wrong)?) }))
}

const PORTS: std::ops::RangeInclusive<u16> = 1..=NodeRef::MAX_PORT;

pub fn node(value: &Value) -> Result<NodeRef, String> {
    optional_node(value)?.ok_or_else(|| format!("{NODE_FORM}, and the ip must not be empty"))
}

pub fn nodes(value: &Value) -> Result<Vec<NodeRef>, String> {
    let list = value.as_array().ok_or_else(|| format!("expected an array of Nodes, got {}", shortened(value)))?;
    list.iter().take(MAX_NODES).map(node).collect()
}

pub fn neighbours(value: &Value) -> Result<Neighbours, String> {
    match value.as_array().map(Vec::as_slice) {
        Some([predecessor, this, successors]) => {
            let (predecessor, successors) = (optional_node(predecessor)?, nodes(successors)?);
            Ok(Neighbours { predecessor, node: node(this)?, successors })
        }
        _ => Err(format!("expected [predecessor, self, [successor, ...]], got {}", shortened(value))),
    }
}

/// Reads text. Old peers send it as raw bytes, which arrive as str or bin.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.as_str(),
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// A short form of a value, for error messages.
pub fn shortened(value: &Value) -> String {
    let kind = match value {
        Value::Array(items) => return format!("an array of {}", items.len()),
        Value::Map(_) => "a map",
        Value::Binary(_) => "a binary",
        Value::Ext(..) => "an extension value",
        Value::String(text) if text.as_bytes().len() > 60 => "a long string",
        short => return short.to_string(),
    };
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(port: u16, id: u32) -> NodeRef {
        NodeRef { ip: [10, 0, 0, 7].into(), port, id: RingId(id) }
    }

    #[test]
    fn encoded_neighbours_decode_to_the_same_value() {
        let view = Neighbours {
            predecessor: None,
            node: sample(5057, u32::MAX),
            successors: vec![sample(1, 0), sample(65533, 9)],
        };
        assert_eq!(neighbours(&neighbours_value(&view)), Ok(view));
    }

    #[test]
    fn an_ip_address_may_be_binary() {
        let bin = Value::Array(vec![Value::Binary(b"10.0.0.7".to_vec()), 5057.into(), 3.into()]);
        assert_eq!(node(&bin), Ok(sample(5057, 3)));
    }

    #[test]
    fn wrong_shapes_are_reported() {
        let part = |ip: Value, port: Value, id: Value| Value::Array(vec![ip, port, id]);
        for wrong in [
            Value::Nil,
            Value::Array(vec![]),
            part(7.into(), 5057.into(), 1.into()),
            part("example.org".into(), 5057.into(), 1.into()),
            part("10.0.0.7".into(), 0.into(), 1.into()),
            part("10.0.0.7".into(), 65534.into(), 1.into()),
            part("10.0.0.7".into(), (-1).into(), 1.into()),
            part("10.0.0.7".into(), 5057.into(), (1_u64 << 32).into()),
            part("10.0.0.7".into(), 5057.into(), "1".into()),
            part(Value::String(String::from_utf8(vec![b'x'; 500]).expect("ascii").into()), 1.into(), 1.into()),
        ] {
            let error = optional_node(&wrong).expect_err("not a Node");
            assert!(error.contains("a Node is") && error.len() < 800, "{error}");
        }
        assert!(node(&no_node()).is_err() && optional_node(&no_node()) == Ok(None));
        assert!(neighbours(&Value::Array(vec![no_node(), no_node(), Value::Array(vec![])])).is_err());
    }
}
