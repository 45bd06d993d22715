//! Giving positions to nodes that want to join: the ring's map with each node's load, and `ring::position` over it.
//!
//! One member gives all of them: the owner of id 0, among those that keep chunks. It remembers what it has promised
//! until the node is in, so nodes that come at the same moment do not all choose the same gap. Were two to believe that
//! they own id 0, each node still gets an id of its own: its address is the salt.
//!
//! Counted is the ring as it will be: without foreign members, which keep nothing, and without members that drain.
//! Their ids are taken all the same.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chordfs_net::rpc::{RpcError, Value};
use chordfs_ring::position::{Joiner, Member, RingMap};
use chordfs_types::{
    placement::Zone,
    ring_id::{NodeRef, RingId},
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tracing::debug;

use super::{
    handle::{RingError, RingHandle},
    wire::{self, Load, own},
};

/// How long a promised position is kept for a node that has not come.
const PROMISE: Duration = Duration::from_secs(20);
/// The giver walks the ring and asks every member for its load, and joiners wait in line.
const PATIENCE: Duration = Duration::from_secs(10);
const PROMISES_MAX: usize = 256;
/// Loads are asked for from that many nodes at a time.
const ASKED_AT_ONCE: usize = 64;

#[derive(Default)]
pub(super) struct Places {
    promises: Mutex<Vec<Promise>>,
    /// One place at a time, so that each is computed with all earlier ones in view.
    giving: tokio::sync::Mutex<()>,
}

struct Promise {
    /// The joiner, at its future position.
    node: NodeRef,
    until: Instant,
}

/// The members as they count for a position.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    storing: Vec<Member>,
    /// Ids of those that do not count.
    taken: Vec<RingId>,
}

impl Places {
    /// The promises that still count; not those to members.
    fn standing(&self, members: &[NodeRef]) -> Vec<NodeRef> {
        let is_in = |node: &NodeRef| members.iter().any(|member| member.ring_address() == node.ring_address());
        let mut promises = self.promises.lock();
        promises.retain(|promise| promise.until > Instant::now() && !is_in(&promise.node));
        promises.iter().map(|promise| promise.node).collect()
    }

    fn promise(&self, node: NodeRef) {
        let mut promises = self.promises.lock();
        promises.retain(|promise| promise.node.ring_address() != node.ring_address());
        if promises.len() >= PROMISES_MAX {
            promises.remove(0);
        }
        promises.push(Promise { node, until: Instant::now() + PROMISE });
    }
}

impl RingHandle {
    /// The position for a joining node: given by the first keeper from id 0 on, here or there.
    pub(super) async fn give_place(&self, joiner: Joiner) -> Result<RingId, RingError> {
        let giver = self.giver().await?;
        if giver.ring_address() == self.me().ring_address() {
            self.compute_place(joiner).await
        } else {
            self.ask_for_place(giver.ring_address(), joiner).await
        }
    }

    /// Asks a member of the ring for a position for this node. A foreign member knows no such call; then the position
    /// is the hash of our address, and of `tried` where that was taken. A storage node that gives none at the moment is
    /// asked again by the caller: a position is kept for life.
    pub(super) async fn place_through(&self, member: NodeRef, tried: u32) -> Result<RingId, RingError> {
        let me = joiner_at(self.me().ring_address(), self.settings().zone);
        match self.ask_for_place(member.ring_address(), me).await {
            Err(RingError::Peer(RpcError::Remote { error, .. })) if self.is_foreign(&member).await => {
                debug!(peer = %member, %error, "no position is given; taking the address's");
                Ok(RingId::of_address(me.address).advance(tried.wrapping_mul(0x9e37_79b9)))
            }
            outcome => outcome,
        }
    }

    async fn is_foreign(&self, member: &NodeRef) -> bool {
        self.probe(std::iter::once(member)).await;
        self.peers().is_foreign(member.ring_address())
    }

    async fn ask_for_place(&self, giver: SocketAddr, joiner: Joiner) -> Result<RingId, RingError> {
        let value = self.call(giver, own::PLACE, joiner_params(&joiner), PATIENCE).await?;
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).map(RingId);
        id.ok_or_else(|| RingError::Unreadable { address: giver, reason: wire::shortened(&value) })
    }

    /// A foreign owner of id 0 knows of no positions.
    async fn giver(&self) -> Result<NodeRef, RingError> {
        let owner = self.find_successor(RingId(0)).await?;
        if !self.is_foreign(&owner).await {
            return Ok(owner);
        }
        let storage_nodes = self.storage_members().await?;
        Ok(storage_nodes.into_iter().min_by_key(|node| RingId(0).steps_to(node.id)).unwrap_or(self.me()))
    }

    async fn compute_place(&self, joiner: Joiner) -> Result<RingId, RingError> {
        let _turn = self.places().giving.lock().await;
        let members = self.members().await?;
        let mut loads = Vec::with_capacity(members.len());
        for some in members.chunks(ASKED_AT_ONCE) {
            loads.extend(join_all(some.iter().map(|&node| self.load_of(node))).await);
        }
        let Census { storing, mut taken } = census(&members, loads, joiner.address);
        // A joiner that asks again, because its first id was taken, is still one node.
        let is_joiner = |node: &NodeRef| node.ring_address() == joiner.address;
        let (earlier, promised): (Vec<_>, Vec<_>) = self.places().standing(&members).into_iter().partition(is_joiner);
        taken.extend(earlier.iter().map(|node| node.id));
        let map = RingMap { members: &storing, promised: &promised, taken: &taken, copies: self.settings().copies };
        let id = map.place_for(&joiner);
        self.places().promise(joiner.at(id));
        Ok(id)
    }
}

/// The members that count, with the loads that they reported. A member that does not answer counts as empty; a member
/// at the address of `joiner` is left over from its last run.
///
/// While chunks are moving, what the nodes have says nothing of what they will have. Then all count as empty, and the
/// arcs alone decide: keys are hashes, so in the end the loads are as the arcs.
fn census(members: &[NodeRef], loads: Vec<Result<Load, RingError>>, joiner: SocketAddr) -> Census {
    let (mut census, mut all_rest) = (Census::default(), true);
    for (&node, load) in members.iter().zip(loads) {
        all_rest &= !matches!(load, Ok(Load::Moving | Load::Leaving));
        let load_bytes = match load {
            // None of ours refuses to tell its load.
            Err(RingError::Peer(RpcError::Remote { .. })) | Ok(Load::Leaving) => None,
            _ if node.ring_address() == joiner => None,
            Ok(Load::Holds(bytes)) => Some(bytes),
            Ok(Load::Moving) | Err(_) => Some(0),
        };
        match load_bytes {
            Some(load_bytes) => census.storing.push(Member { node, load_bytes }),
            None => census.taken.push(node.id),
        }
    }
    if !all_rest {
        census.storing.iter_mut().for_each(|member| member.load_bytes = 0);
    }
    census
}

fn joiner_at(address: SocketAddr, zone: Option<Zone>) -> Joiner {
    Joiner { address, zone, salt: u64::from(RingId::of_address(address).0) }
}

fn joiner_params(joiner: &Joiner) -> Vec<Value> {
    let zone = joiner.zone.map(|zone| zone.mark(RingId(0)).0.into());
    std::iter::once(joiner.address.to_string().into()).chain(zone).collect()
}

/// The arguments of the call: where the joining node listens, and if it has a zone, an id that says which.
pub(super) fn joiner(params: &[Value]) -> Result<Joiner, String> {
    let wrong = || {
        let given: Vec<String> = params.iter().map(wire::shortened).collect();
        format!(
            "{} expects the joining node's address as \"ip:port\", and perhaps an id that says its zone, got [{}]",
            own::PLACE,
            given.join(", ")
        )
    };
    let (address, zone) = match params {
        [address] => (address, None),
        [address, id] => {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).map(RingId);
            (address, Some(id.and_then(Zone::of_id).ok_or_else(wrong)?))
        }
        _ => return Err(wrong()),
    };
    let address = wire::text(address).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    Ok(joiner_at(address, zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [10, 0, 0, id as u8].into(), port: 5057, id: RingId(id) }
    }

    fn counted(answers: Vec<Result<Load, RingError>>, joiner: u32) -> (Vec<(u32, u64)>, Vec<u32>) {
        let members: Vec<NodeRef> = (1..=answers.len() as u32).map(node).collect();
        let census = census(&members, answers, node(joiner).ring_address());
        let storing = census.storing.iter().map(|member| (member.node.id.0, member.load_bytes)).collect();
        (storing, census.taken.iter().map(|id| id.0).collect())
    }

    fn refusal() -> RingError {
        let error = RpcError::Remote { address: node(9).ring_address(), error: "no such call".into() };
        RingError::Peer(error)
    }

    #[test]
    fn foreign_members_do_not_count_and_who_is_silent_counts_as_empty() {
        let answers = vec![Ok(Load::Holds(7)), Err(refusal()), Err(RingError::Stopped), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 9), (vec![(1, 7), (3, 0), (4, 9)], vec![2]));
    }

    #[test]
    fn while_chunks_move_the_arcs_decide() {
        let answers = vec![Ok(Load::Holds(7)), Ok(Load::Moving), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 9), (vec![(1, 0), (2, 0), (3, 0)], vec![]));
    }

    /// They were counted as if they stayed, so a newcomer took its part of what they are about to hand over.
    #[test]
    fn who_drains_is_not_there_any_more() {
        let answers = vec![Ok(Load::Holds(7)), Ok(Load::Leaving), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 9), (vec![(1, 0), (3, 0)], vec![2]));
    }

    #[test]
    fn what_is_left_of_the_joiners_last_life_does_not_count() {
        let answers = vec![Ok(Load::Holds(7)), Ok(Load::Holds(0)), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 2), (vec![(1, 7), (3, 9)], vec![2]));
    }

    #[test]
    fn a_joiner_travels_with_its_zone() {
        for zone in [None, Some(Zone::of_name("rack 7"))] {
            let sent = joiner_at(node(5).ring_address(), zone);
            assert_eq!(joiner(&joiner_params(&sent)), Ok(sent));
        }
        let address = || Value::from("10.0.0.5:5057");
        for wrong in [
            vec![],
            vec![7.into()],
            vec![address(), 7.into()],
            vec![address(), Value::Nil],
            vec![address(), 0xb40.into(), 1.into()],
        ] {
            assert!(joiner(&wrong).is_err_and(|why| why.contains("ip:port")), "{wrong:?}");
        }
    }
}
