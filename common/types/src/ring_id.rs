//! The circle: ids, nodes and arcs, and all arithmetic on them.
//!
//! Ids are 32-bit and wrap. `RingId` has no `Ord`: on a circle "smaller" means nothing, so one asks a [`RingArc`].
//! Every formula about positions lives here, so that there is one definition of where an arc ends.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha1::Sha1;

/// A position on the circle of 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RingId(pub u32);

impl RingId {
    /// The key of a chunk: the low 32 bits of MD5 over `NAME_chunk_I`, big-endian (the last four digest bytes).
    /// The old scripts compute the same.
    pub fn of_chunk_name(name: &[u8]) -> Self {
        Self(last_four_bytes(&Md5::digest(name)))
    }

    /// The id of a ring's first node: the low 32 bits of SHA-1 over "ip:port".
    pub fn of_address(address: SocketAddr) -> Self {
        Self(last_four_bytes(&Sha1::digest(address.to_string().as_bytes())))
    }

    /// Steps clockwise from `self` to `other`; 0 when equal.
    pub fn steps_to(self, other: RingId) -> u32 {
        other.0.wrapping_sub(self.0)
    }

    /// The position `steps` further clockwise.
    pub fn advance(self, steps: u32) -> Self {
        Self(self.0.wrapping_add(steps))
    }
}

fn last_four_bytes(digest: &[u8]) -> u32 {
    let tail = digest.last_chunk::<4>().expect("a digest is longer than four bytes");
    u32::from_be_bytes(*tail)
}

impl fmt::Debug for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A storage node as the ring knows it: its address for ring calls, and its position.
///
/// The three planes of a node use consecutive ports, so that a node found on the ring can be reached on all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeRef {
    /// The address that other nodes and mounts connect to.
    pub ip: IpAddr,
    /// Port of MessagePack-RPC, at most [`Self::MAX_PORT`]; the next two are those of the other planes.
    pub port: u16,
    /// Carries the node's zone in its low bits (see [`crate::placement`]).
    pub id: RingId,
}

impl NodeRef {
    /// A node cannot have a port above this: its other two planes need the next two ports.
    pub const MAX_PORT: u16 = u16::MAX - 2;

    /// Ring address; the node's position is left out.
    pub fn address(&self) -> NodeAddress {
        NodeAddress(SocketAddr::new(self.ip, self.port))
    }

    /// See [`NodeAddress::ring`].
    pub fn ring_address(&self) -> SocketAddr {
        self.address().ring()
    }

    /// See [`NodeAddress::files`].
    pub fn files_address(&self) -> SocketAddr {
        self.address().files()
    }

    /// See [`NodeAddress::admin`].
    pub fn admin_address(&self) -> SocketAddr {
        self.address().admin()
    }
}

/// A node's ring address, by which operators, configurations and the namespace name the node. The addresses of its
/// other two planes follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeAddress(pub SocketAddr);

impl NodeAddress {
    /// The address for MessagePack-RPC (5057).
    pub fn ring(self) -> SocketAddr {
        self.0
    }

    /// The address for chunks and files (5058).
    pub fn files(self) -> SocketAddr {
        self.plane(1)
    }

    /// The address for hand-over and administration (5059).
    pub fn admin(self) -> SocketAddr {
        self.plane(2)
    }

    fn plane(self, offset: u16) -> SocketAddr {
        SocketAddr::new(self.0.ip(), self.0.port().saturating_add(offset))
    }
}

impl From<SocketAddr> for NodeAddress {
    fn from(ring: SocketAddr) -> Self {
        Self(ring)
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.ring_address())
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.ring_address())
    }
}

/// The arc `(after, upto]`, clockwise. Equal ends are the whole circle: a ring of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingArc {
    /// Does not belong to the arc, unless the arc is the whole circle.
    pub after: RingId,
    /// Belongs to the arc.
    pub upto: RingId,
}

impl RingArc {
    /// Equal ends make the whole circle, never an empty arc.
    pub fn new(after: RingId, upto: RingId) -> Self {
        Self { after, upto }
    }

    /// `after` itself belongs only to the whole circle.
    pub fn contains(self, id: RingId) -> bool {
        self.after == self.upto || (1..=self.after.steps_to(self.upto)).contains(&self.after.steps_to(id))
    }

    /// The open arc `(after, upto)`: the ends do not belong. Chord's "strictly between".
    pub fn strictly_contains(self, id: RingId) -> bool {
        id != self.upto && id != self.after && self.contains(id)
    }

    /// The number of its positions, 1..=2^32.
    pub fn len(self) -> u64 {
        match self.after.steps_to(self.upto) {
            0 => 1 << 32,
            steps => u64::from(steps),
        }
    }

    /// Always false: an arc with equal ends is the whole circle.
    pub fn is_empty(self) -> bool {
        false
    }
}

/// The neighbours that one node knows, from which a caller can route to it and to the nodes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbours {
    /// `None` in a ring of one, and while the node does not know its predecessor.
    pub predecessor: Option<NodeRef>,
    /// The node that reports.
    pub node: NodeRef,
    /// The next nodes clockwise, nearest first, without `node` itself and without repetition.
    pub successors: Vec<NodeRef>,
}

impl Neighbours {
    /// The arc whose keys the node owns, as far as it knows: without a predecessor only its own id, unless it is alone.
    pub fn arc(&self) -> RingArc {
        match self.predecessor {
            Some(predecessor) => RingArc::new(predecessor.id, self.node.id),
            None if self.successors.is_empty() => RingArc::new(self.node.id, self.node.id),
            None => RingArc::new(self.node.id.advance(u32::MAX), self.node.id),
        }
    }

    /// The node and those after it, in the order of the ring.
    pub fn onwards(&self) -> Vec<NodeRef> {
        std::iter::once(self.node).chain(self.successors.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_keys_are_those_of_the_scripts() {
        for (name, key) in [
            ("a.txt", 607204990),
            ("a.txt_chunk_1", 2756827572),
            ("a.txt_chunk_2", 1370087605),
            ("b.txt_chunk_1", 3239240481),
            ("c.txt_chunk_1", 415054527),
            ("d.txt_chunk_1", 4055362934),
        ] {
            assert_eq!(RingId::of_chunk_name(name.as_bytes()), RingId(key), "{name}");
        }
    }

    #[test]
    fn an_arc_wraps_past_zero() {
        let arc = RingArc::new(RingId(u32::MAX - 1), RingId(2));
        assert!([u32::MAX, 0, 1, 2].into_iter().all(|id| arc.contains(RingId(id))));
        assert!(![u32::MAX - 1, 3].into_iter().any(|id| arc.contains(RingId(id))));
        assert_eq!(arc.len(), 4);
    }

    #[test]
    fn equal_ends_are_the_whole_circle() {
        let arc = RingArc::new(RingId(7), RingId(7));
        assert!(arc.contains(RingId(7)) && arc.contains(RingId(0)));
        assert!(!arc.strictly_contains(RingId(7)) && arc.strictly_contains(RingId(8)));
        assert_eq!(arc.len(), 1 << 32);
    }
}
