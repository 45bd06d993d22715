//! Giving positions to nodes that want to join: the ring's map with each node's load, and `ring::position` over it.
//!
//! One member gives all of them: the owner of id 0. It remembers what it has promised until the node is in, so nodes that
//! come at the same moment do not all choose the same gap. Were two to believe that they own id 0, each node still gets
//! an id of its own: its address is the salt.

use std::{net::SocketAddr, time::Duration, time::Instant};

use common::{
    ring_id::{NodeRef, RingId},
    rpc::{RpcError, Value},
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tracing::debug;

use super::{
    handle::{RingError, RingHandle},
    wire::{self, own},
};
use crate::ring::position::{Member, choose};

/// How long a promised position is kept for a node that has not come.
const PROMISE: Duration = Duration::from_secs(20);
/// The giver walks the ring and asks every member for its load, and joiners wait in line.
const PATIENCE: Duration = Duration::from_secs(10);
const PROMISES_MAX: usize = 256;
/// Loads are asked for from that many nodes at a time.
const ASKED_AT_ONCE: usize = 64;

#[derive(Default)]
pub struct Places {
    promises: Mutex<Vec<Promise>>,
    /// One place at a time, so that each is computed with all earlier ones in view.
    giving: tokio::sync::Mutex<()>,
}

struct Promise {
    id: RingId,
    to: SocketAddr,
    until: Instant,
}

impl Places {
    /// The promises that still count; not those to `except`, who asks again because its place was taken, nor to members.
    fn standing(&self, members: &[NodeRef]) -> Vec<RingId> {
        let mut promises = self.promises.lock();
        promises.retain(|promise| {
            promise.until > Instant::now() && !members.iter().any(|node| node.ring_address() == promise.to)
        });
        promises.iter().map(|promise| promise.id).collect()
    }

    fn promise(&self, id: RingId, to: SocketAddr) {
        let mut promises = self.promises.lock();
        promises.retain(|promise| promise.to != to);
        if promises.len() >= PROMISES_MAX {
            promises.remove(0);
        }
        promises.push(Promise { id, to, until: Instant::now() + PROMISE });
    }
}

impl RingHandle {
    /// The position for the node at `joiner`: given by the owner of id 0, here or there.
    pub(super) async fn give_place(&self, joiner: SocketAddr) -> Result<RingId, RingError> {
        let giver = self.find_successor(RingId(0)).await?;
        match giver.ring_address() == self.me().ring_address() {
            true => self.compute_place(joiner).await,
            false => self.ask_for_place(giver.ring_address(), joiner).await,
        }
    }

    /// The same, for this node, from a member of the ring it wants to join. A foreign member knows no such call; then it
    /// is the hash of our address, and of `tried` where that was taken.
    pub(super) async fn place_through(&self, member: NodeRef, tried: u32) -> Result<RingId, RingError> {
        match self.ask_for_place(member.ring_address(), self.me().ring_address()).await {
            Err(RingError::Peer(RpcError::Remote { error, .. })) => {
                debug!(peer = %member, %error, "no position is given; taking the address's");
                Ok(RingId::of_address(self.me().ring_address()).advance(tried.wrapping_mul(0x9e37_79b9)))
            }
            outcome => outcome,
        }
    }

    async fn ask_for_place(&self, giver: SocketAddr, joiner: SocketAddr) -> Result<RingId, RingError> {
        let value = self.call(giver, own::PLACE, vec![joiner.to_string().into()], PATIENCE).await?;
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).map(RingId);
        id.ok_or_else(|| RingError::Unreadable { address: giver, reason: wire::shortened(&value) })
    }

    async fn compute_place(&self, joiner: SocketAddr) -> Result<RingId, RingError> {
        let _turn = self.places().giving.lock().await;
        let members = self.members().await?;
        let (loads, foreign) = self.loads(&members).await;
        let promised = self.places().standing(&members);
        let salt = RingId::of_address(joiner).0;
        let id = choose(&loads, &promised, self.settings().copies, u64::from(salt));
        let id = free_from(id, &foreign);
        self.places().promise(id, joiner);
        Ok(id)
    }

    /// Of those that keep chunks; one that does not answer counts as empty. And the positions of foreign members, which
    /// keep none: there is no load to take from them, but their ids are taken.
    ///
    /// While chunks are moving, what the nodes have says nothing of what they will have. Then all count as empty, and the
    /// arcs alone decide: keys are hashes, so in the end the loads are as the arcs.
    async fn loads(&self, members: &[NodeRef]) -> (Vec<Member>, Vec<RingId>) {
        let mut loads = Vec::with_capacity(members.len());
        for some in members.chunks(ASKED_AT_ONCE) {
            loads.extend(join_all(some.iter().map(|&node| self.load_of(node))).await);
        }
        let (mut keeping, mut foreign, mut all_rest) = (Vec::new(), Vec::new(), true);
        for (node, load) in members.iter().zip(loads) {
            match load {
                // None of ours refuses to tell its load.
                Err(RingError::Peer(RpcError::Remote { .. })) => foreign.push(node.id),
                load => {
                    all_rest &= !matches!(load, Ok(None));
                    keeping.push(Member { id: node.id, load_bytes: load.ok().flatten().unwrap_or(0) });
                }
            }
        }
        if !all_rest {
            keeping.iter_mut().for_each(|member| member.load_bytes = 0);
        }
        (keeping, foreign)
    }
}

fn free_from(id: RingId, taken: &[RingId]) -> RingId {
    let after = (0..=taken.len() as u32).map(|step| id.advance(step));
    after.into_iter().find(|id| !taken.contains(id)).unwrap_or(id)
}

/// The argument of the call: where the joining node listens.
pub(super) fn joiner(value: &Value) -> Result<SocketAddr, String> {
    let wrong =
        || format!("{} expects the joining node's address as \"ip:port\", got {}", own::PLACE, wire::shortened(value));
    wire::text(value).and_then(|text| text.parse().ok()).ok_or_else(wrong)
}
