//! Nodes and neighbours as MessagePack values: `Node` is `[ip: str, port: uint, id: uint]`, and "no such node" has ip "".

use std::net::IpAddr;

use crate::{
    ring_id::{Neighbours, NodeRef, RingId},
    rpc::Value,
};

pub fn node_to_value(node: Option<&NodeRef>) -> Value {
    match node {
        Some(node) => Value::Array(vec![node.ip.to_string().into(), node.port.into(), node.id.0.into()]),
        None => Value::Array(vec!["".into(), 0.into(), 0.into()]),
    }
}

/// `Ok(None)` for "no such node". Old peers send the ip as raw bytes, which may arrive as str or bin.
pub fn node_from_value(value: &Value) -> Result<Option<NodeRef>, String> {
    let Value::Array(items) = value else { return Err(format!("expected a node [ip, port, id], got {value}")) };
    let [ip, port, id] = &items[..] else {
        return Err(format!("expected a node of three items [ip, port, id], got {}", items.len()));
    };
    let ip = text(ip).ok_or_else(|| format!("expected the node's ip as a string, got {ip}"))?;
    if ip.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = ip.parse().map_err(|_| format!("{ip:?} is no ip address"))?;
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let port = port.ok_or("expected the node's port as 1..=65535")?;
    let id = id.as_u64().ok_or("expected the node's id as an unsigned integer")?;
    Ok(Some(NodeRef { ip, port, id: RingId(id as u32) }))
}

pub fn neighbours_to_value(neighbours: &Neighbours) -> Value {
    Value::Array(vec![
        node_to_value(neighbours.predecessor.as_ref()),
        node_to_value(Some(&neighbours.node)),
        Value::Array(neighbours.successors.iter().map(|node| node_to_value(Some(node))).collect()),
    ])
}

pub fn neighbours_from_value(value: &Value) -> Result<Neighbours, String> {
    let Value::Array(items) = value else { return Err("expected [predecessor, self, [successor, ...]]".into()) };
    let [predecessor, node, Value::Array(successors)] = &items[..] else {
        return Err("expected [predecessor, self, [successor, ...]]".into());
    };
    let node = node_from_value(node)?.ok_or("the node does not name itself")?;
    let successors: Result<Vec<_>, _> = successors.iter().map(node_from_value).collect();
    Ok(Neighbours {
        predecessor: node_from_value(predecessor)?,
        node,
        successors: successors?.into_iter().flatten().collect(),
    })
}

/// Text that came as str or bin.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.as_str(),
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}
