//! Work under way on a node, as its parts report it and `storage-node status` shows it.
//!
//! Every part says what it knows and nothing else: all fields may be missing, here and in what another node sends, so
//! that nodes of different age read each other. The board holds the present state only; nobody waits for anybody.

use std::{collections::HashMap, net::SocketAddr};

use common::ring_id::NodeRef;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Copies that the holders of this node's arc still lack, counted once for each holder; `None` before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under_replicated: Option<u64>,
    /// Bringing those copies to the holders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Moving>,
    /// This node has joined and is given the chunks of its arcs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filling: Option<Moving>,
    /// This node hands over all it has, and leaves then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Moving>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrub>,
}

/// Chunks on their way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moving {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Why it does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Reading all that is stored against its checksums, again and again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrub {
    /// Of the present pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Since the node started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_since_last_pass: Option<u64>,
}

/// Where the parts of a node write what they do.
#[derive(Debug, Default)]
pub struct WorkBoard {
    work: Mutex<Work>,
    /// Chunks that each holder lacked when repair last compared with it.
    lacking: Mutex<Option<HashMap<SocketAddr, u64>>>,
}

impl WorkBoard {
    pub fn change(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.work.lock());
    }

    pub fn get(&self) -> Work {
        let under_replicated = self.lacking.lock().as_ref().map(|lacking| lacking.values().sum());
        let mut work = self.work.lock().clone();
        work.under_replicated = under_replicated.or(work.under_replicated);
        work
    }

    /// Repair compares with these from now on, and with nobody else.
    pub fn holders_are(&self, holders: &[NodeRef]) {
        let mut lacking = self.lacking.lock();
        let is_holder = |address: &SocketAddr| holders.iter().any(|holder| holder.ring_address() == *address);
        lacking.get_or_insert_default().retain(|address, _| is_holder(address));
    }

    pub fn holder_lacks(&self, holder: &NodeRef, chunks: usize) {
        self.lacking.lock().get_or_insert_default().insert(holder.ring_address(), chunks as u64);
    }
}

#[cfg(test)]
mod tests {
    use common::ring_id::RingId;

    use super::*;

    fn node(port: u16) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port, id: RingId(0) }
    }

    #[test]
    fn what_a_former_holder_lacked_does_not_count() {
        let board = WorkBoard::default();
        assert_eq!(board.get().under_replicated, None, "nobody has looked yet");
        board.holders_are(&[node(1), node(2)]);
        board.holder_lacks(&node(1), 5);
        board.holder_lacks(&node(2), 7);
        assert_eq!(board.get().under_replicated, Some(12));
        board.holders_are(&[node(2), node(3)]);
        assert_eq!(board.get().under_replicated, Some(7));
        board.holder_lacks(&node(2), 0);
        assert_eq!(board.get().under_replicated, Some(0));
    }

    #[test]
    fn missing_and_unknown_fields_are_no_error() {
        let text = r#"{"drain": {"bytes_left": 7, "new": 1}, "dreaming": true}"#;
        let work: Work = serde_json::from_str(text).expect("it reads");
        assert_eq!(work.drain, Some(Moving { bytes_left: Some(7), ..Moving::default() }));
        assert_eq!(work.scrub, None);
    }
}
