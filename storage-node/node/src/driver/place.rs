//! Giving positions to joining nodes: `ring::position` chooses them from the members and their loads.
//!
//! One member gives all positions: the storage node that owns id 0. It remembers a promised position until the node has
//! joined, so that nodes which join at the same time do not all choose the same gap. Even if two members believe that
//! they own id 0, every node gets an id of its own, because its address is the salt.
//!
//! Positions are chosen for the future ring: without foreign members, which keep no chunks, and without draining
//! members. Their ids still count as taken.

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

/// How long a promised position is reserved for a node that has not joined.
const PROMISE_LIFETIME: Duration = Duration::from_secs(20);
/// The deadline of a request for a position. The giver asks every member for its load, and serves one joiner at a time.
const PLACE_DEADLINE: Duration = Duration::from_secs(10);
const PROMISES_MAX: usize = 256;
/// How many nodes are asked for their load at a time.
const ASKED_AT_ONCE: usize = 64;

#[derive(Default)]
pub(super) struct Places {
    promises: Mutex<Vec<Promise>>,
    /// Locked while a place is computed, so that each computation sees all earlier promises.
    giving: tokio::sync::Mutex<()>,
}

struct Promise {
    /// The joiner, at its future position.
    node: NodeRef,
    until: Instant,
}

/// The members, divided by whether they count for the choice of a position.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    storing: Vec<Member>,
    /// The ids of the members that do not count.
    taken: Vec<RingId>,
}

impl Places {
    /// The promises that are still valid and whose nodes have not joined yet.
    fn pending(&self, members: &[NodeRef]) -> Vec<NodeRef> {
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
        promises.push(Promise { node, until: Instant::now() + PROMISE_LIFETIME });
    }
}

impl RingHandle {
    /// Gives a joining node its position, or forwards the request to the storage node that gives positions.
    pub(super) async fn give_place(&self, joiner: Joiner) -> Result<RingId, RingError> {
        let giver = self.giver().await?;
        if giver.ring_address() == self.me().ring_address() {
            self.compute_place(joiner).await
        } else {
            self.ask_for_place(giver.ring_address(), joiner).await
        }
    }

    /// Asks a member of the ring for a position for this node. A foreign member does not know the call; then the
    /// position is the hash of this node's address, varied by `tried` if it is taken. If a storage node fails to give a
    /// position, this is an error and the caller asks again: a position is kept for life.
    pub(super) async fn place_through(&self, member: NodeRef, tried: u32) -> Result<RingId, RingError> {
        let me = joiner_at(self.me().ring_address(), self.settings().zone);
        match self.ask_for_place(member.ring_address(), me).await {
            Err(RingError::Peer(RpcError::Remote { error, .. })) if self.turns_out_foreign(&member).await => {
                debug!(peer = %member, %error, "this member gives no positions; using the hash of the address");
                Ok(RingId::of_address(me.address).advance(tried.wrapping_mul(0x9e37_79b9)))
            }
            outcome => outcome,
        }
    }

    async fn turns_out_foreign(&self, member: &NodeRef) -> bool {
        self.probe(std::iter::once(member)).await;
        self.is_foreign(member)
    }

    async fn ask_for_place(&self, giver: SocketAddr, joiner: Joiner) -> Result<RingId, RingError> {
        let value = self.call(giver, own::PLACE, joiner_params(&joiner), PLACE_DEADLINE).await?;
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).map(RingId);
        id.ok_or_else(|| RingError::Unreadable { address: giver, reason: wire::shortened(&value) })
    }

    /// The storage node that gives positions. A foreign owner of id 0 cannot, so the next storage node does.
    async fn giver(&self) -> Result<NodeRef, RingError> {
        let owner = self.find_successor(RingId(0)).await?;
        if !self.turns_out_foreign(&owner).await {
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
        // A joiner may ask again because its first id was taken; its earlier promise must not count as another node.
        let is_joiner = |node: &NodeRef| node.ring_address() == joiner.address;
        let (earlier, promised): (Vec<_>, Vec<_>) = self.places().pending(&members).into_iter().partition(is_joiner);
        taken.extend(earlier.iter().map(|node| node.id));
        let map = RingMap { members: &storing, promised: &promised, taken: &taken, copies: self.settings().copies };
        let id = map.place_for(&joiner);
        self.places().promise(joiner.at(id));
        Ok(id)
    }
}

/// Divides the members, with the loads that they reported. A member that does not answer counts as empty. A member at
/// the address of `joiner` is left over from the joiner's last run and does not count.
///
/// While chunks are moving, the present loads do not predict the future ones. Then all members count as empty, and the
/// arcs alone decide: keys are hashes, so in the end the loads are proportional to the arcs.
fn census(members: &[NodeRef], loads: Vec<Result<Load, RingError>>, joiner: SocketAddr) -> Census {
    let (mut census, mut all_rest) = (Census::default(), true);
    for (&node, load) in members.iter().zip(loads) {
        all_rest &= !matches!(load, Ok(Load::Moving | Load::Leaving));
        let load_bytes = match load {
            // No storage node refuses this call, so this member is foreign.
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

/// Parses the arguments of the call: the address of the joining node, and if it has a zone, an id that contains it.
pub(super) fn joiner(params: &[Value]) -> Result<Joiner, String> {
    let wrong = || {
        let given: Vec<String> = params.iter().map(wire::shortened).collect();
        format!(
            "{} expects the joining node's address as \"ip:port\", and optionally an id that contains its zone, got [{}]",
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
    fn foreign_members_do_not_count_and_unresponsive_members_count_as_empty() {
        let answers = vec![Ok(Load::Holds(7)), Err(refusal()), Err(RingError::Stopped), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 9), (vec![(1, 7), (3, 0), (4, 9)], vec![2]));
    }

    #[test]
    fn while_chunks_move_the_arcs_decide() {
        let answers = vec![Ok(Load::Holds(7)), Ok(Load::Moving), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 9), (vec![(1, 0), (2, 0), (3, 0)], vec![]));
    }

    /// Draining members were counted as if they stayed, so a newcomer took a share of chunks that they hand over
    /// anyway.
    #[test]
    fn draining_members_do_not_count() {
        let answers = vec![Ok(Load::Holds(7)), Ok(Load::Leaving), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 9), (vec![(1, 0), (3, 0)], vec![2]));
    }

    #[test]
    fn a_remnant_of_the_joiners_last_run_does_not_count() {
        let answers = vec![Ok(Load::Holds(7)), Ok(Load::Holds(0)), Ok(Load::Holds(9))];
        assert_eq!(counted(answers, 2), (vec![(1, 7), (3, 9)], vec![2]));
    }

    #[test]
    fn a_joiner_is_sent_with_its_zone() {
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
