//! The ring of storage nodes: the view of the ring by which chunks are placed.
//!
//! Members may be foreign Chord nodes. They take part in look-ups and store nothing, so chunks are placed as if they
//! were absent: a key that a foreign node owns is kept by the next storage node, whose arc therefore begins after the
//! nearest storage node before it. This view has the form of the ring's own view. Placement, writes, repair, reads and
//! the choice of voters use it, and need not know about foreign nodes. In a ring without foreign nodes the two views
//! are equal, and no further node is asked.
//!
//! A node counts as a storage node until it has refused a call that no storage node refuses.

use std::{future::Future, time::Duration};

use chordfs_log::info_limited;
use chordfs_ring::{RingAnswer, RingRequest};
use chordfs_types::{
    placement,
    ring_id::{Neighbours, NodeRef, RingArc},
};
use futures_util::future::join_all;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::handle::{RingError, RingHandle};

/// Behind foreign nodes the ring may change without a message to this node.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many storage nodes after this one are looked for: the other two holders, and two to take their place.
const LIST_LEN: usize = 4;
/// The most nodes that are asked in each direction.
const MAX_STEPS: usize = 16;

/// Keeps `storage_nodes` up to date until `stop`.
pub(super) async fn follow(handle: RingHandle, storage_nodes: watch::Sender<Neighbours>, stop: CancellationToken) {
    let mut views = handle.watch();
    loop {
        let view = views.borrow_and_update().clone();
        let work = async {
            publish(&storage_nodes, storage_neighbours(&handle, &view).await);
            handle.probe(view.successors.iter().chain(&view.predecessor)).await;
            publish(&storage_nodes, storage_neighbours(&handle, &view).await);
            sleep(LOOK_EVERY).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = views.changed() => if changed.is_err() { return },
            () = work => {}
        }
    }
}

fn publish(storage_nodes: &watch::Sender<Neighbours>, view: Neighbours) {
    storage_nodes.send_if_modified(|present| {
        let changed = *present != view;
        if changed {
            *present = view;
        }
        changed
    });
}

impl RingHandle {
    /// Whether the node is known to be a foreign one.
    pub fn is_foreign(&self, node: &NodeRef) -> bool {
        self.peers().is_foreign(node.ring_address())
    }

    /// All storage nodes of the ring in ring order, beginning with this node.
    pub async fn storage_members(&self) -> Result<Vec<NodeRef>, RingError> {
        let mut members = self.members().await?;
        self.probe(members.iter()).await;
        members.retain(|node| !self.is_foreign(node));
        Ok(members)
    }

    /// Asks the nodes of an unknown kind, and so learns which of them are storage nodes.
    pub(super) async fn probe(&self, nodes: impl Iterator<Item = &NodeRef>) {
        let me = self.me().ring_address();
        let unknown = nodes.filter(|node| node.ring_address() != me && !self.peers().is_known(node.ring_address()));
        let asked = unknown.map(|&node| async move {
            self.peers().ask(node, RingRequest::Neighbours).await.ok();
            if self.is_foreign(&node) {
                info_limited!(peer = %node, "this member of the ring is a foreign Chord node and keeps no chunks");
            }
        });
        join_all(asked.collect::<Vec<_>>()).await;
    }
}

/// How the neighbours of other nodes are looked up: through the ring, or from a list in tests.
trait NeighbourLookup {
    fn is_foreign(&self, node: &NodeRef) -> bool;
    fn look_up(&self, node: NodeRef) -> impl Future<Output = Option<Neighbours>> + Send;
}

impl NeighbourLookup for RingHandle {
    fn is_foreign(&self, node: &NodeRef) -> bool {
        self.is_foreign(node)
    }

    async fn look_up(&self, node: NodeRef) -> Option<Neighbours> {
        match self.peers().ask(node, RingRequest::Neighbours).await {
            Ok(RingAnswer::Neighbours(theirs)) => Some(theirs),
            _ => None,
        }
    }
}

async fn storage_neighbours(lookup: &impl NeighbourLookup, view: &Neighbours) -> Neighbours {
    Neighbours {
        predecessor: storage_predecessor(lookup, view).await,
        node: view.node,
        successors: storage_successors(lookup, view).await,
    }
}

/// The nearest storage node before this one. If the search breaks off, the last node found is returned: then the arc of
/// this node is too short, and no other node's is too long.
async fn storage_predecessor(lookup: &impl NeighbourLookup, view: &Neighbours) -> Option<NodeRef> {
    let mut at = view.predecessor?;
    for _ in 0..MAX_STEPS {
        if at.id == view.node.id {
            return None; // The search went round the circle and found no other storage node.
        }
        if !lookup.is_foreign(&at) {
            break;
        }
        let Some(next) = lookup.look_up(at).await.and_then(|theirs| theirs.predecessor) else { break };
        let goes_back = next.id == view.node.id || RingArc::new(view.node.id, at.id).strictly_contains(next.id);
        if !goes_back {
            break;
        }
        at = next;
    }
    Some(at)
}

/// The storage nodes after this one: those in the successor list, and some beyond it if foreign nodes fill the list or
/// if it does not reach the zones and hosts that the other holders are to be in.
async fn storage_successors(lookup: &impl NeighbourLookup, view: &Neighbours) -> Vec<NodeRef> {
    let mut list = view.successors.clone();
    let storage_nodes =
        |list: &[NodeRef]| list.iter().filter(|node| !lookup.is_foreign(node)).copied().collect::<Vec<_>>();
    for _ in 0..MAX_STEPS {
        let found = storage_nodes(&list);
        let is_enough = found.len() >= list.len().min(LIST_LEN) && names_holders(view, &list, &found);
        let Some(last) = list.last().copied().filter(|_| !is_enough) else { return found };
        let Some(theirs) = lookup.look_up(last).await else { return found };
        if !extend_list(&mut list, view.node, &theirs.successors) {
            return storage_nodes(&list);
        }
    }
    storage_nodes(&list)
}

/// True if the list goes round the whole circle, or if no node beyond it could be a holder.
fn names_holders(view: &Neighbours, list: &[NodeRef], found: &[NodeRef]) -> bool {
    let goes_round = view.predecessor.is_some_and(|before| list.contains(&before));
    goes_round || placement::is_certain(&[&[view.node], found].concat())
}

/// Adds the nodes that continue clockwise from the end of `list`. False if there are none.
fn extend_list(list: &mut Vec<NodeRef>, me: NodeRef, more: &[NodeRef]) -> bool {
    let before = list.len();
    for &node in more {
        let last = list[list.len() - 1];
        if node.id == me.id {
            return false;
        }
        if RingArc::new(last.id, me.id).strictly_contains(node.id) {
            list.push(node);
        }
    }
    list.len() > before
}

#[cfg(test)]
mod tests {
    use chordfs_types::{placement::Zone, ring_id::RingId};

    use super::*;

    /// A ring of these ids; nodes with odd ids are foreign, and name three successors.
    struct FakeRing(Vec<u32>);

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: std::net::Ipv4Addr::from(id).into(), port: 5057, id: RingId(id) }
    }

    impl FakeRing {
        fn view(&self, id: u32, list_len: usize) -> Neighbours {
            let at = self.0.iter().position(|other| *other == id).expect("a member");
            let count = self.0.len();
            let step = |step: usize| node(self.0[(at + step) % count]);
            let successors = (1..count).take(list_len).map(step).collect();
            Neighbours { predecessor: (count > 1).then(|| step(count - 1)), node: node(id), successors }
        }
    }

    impl NeighbourLookup for FakeRing {
        fn is_foreign(&self, node: &NodeRef) -> bool {
            node.id.0 % 2 == 1
        }

        async fn look_up(&self, node: NodeRef) -> Option<Neighbours> {
            Some(self.view(node.id.0, if self.is_foreign(&node) { 3 } else { 8 }))
        }
    }

    #[track_caller]
    fn check(ring: &[u32], id: u32, list_len: usize, predecessor: u32, successors: &[u32]) {
        let fake = FakeRing(ring.to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let found = runtime.block_on(storage_neighbours(&fake, &fake.view(id, list_len)));
        let ids: Vec<u32> = found.successors.iter().map(|node| node.id.0).collect();
        assert_eq!((found.predecessor.map_or(0, |node| node.id.0), &ids[..]), (predecessor, successors), "{ring:?}");
    }

    #[test]
    fn foreign_nodes_are_left_out() {
        check(&[20, 40, 60, 80], 40, 8, 20, &[60, 80, 20]);
        check(&[20, 31, 40, 51, 60, 80], 40, 8, 20, &[60, 80, 20]);
        check(&[20, 31, 33, 35, 40, 60], 40, 8, 20, &[60, 20]);
        check(&[31, 33, 35, 40], 40, 8, 0, &[]);
        check(&[40], 40, 8, 0, &[]);
    }

    #[test]
    fn the_list_continues_behind_foreign_nodes() {
        check(&[20, 40, 51, 53, 55, 57, 60, 80, 90, 100, 110], 40, 4, 20, &[60, 80, 90, 100, 110, 20]);
        check(&[20, 40, 51, 53, 55, 57, 60], 40, 4, 20, &[60, 20]);
    }

    /// Even ids are storage nodes.
    #[test]
    fn the_list_continues_until_it_reaches_the_other_zones() {
        let [a, b, c] = ["1a", "1b", "1c"].map(|name| Zone::of_name(name).mark(RingId(0)).0 & !1);
        let in_zone = |place: u32, zone: u32| place * 0x1_0000 + zone;
        let zones = [a, a, a, a, a, a, b, a, a, a, c, a, a, a];
        let ring: Vec<u32> = zones.iter().enumerate().map(|(at, zone)| in_zone(at as u32 + 1, *zone)).collect();
        let fake = FakeRing(ring.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let found = runtime.block_on(storage_neighbours(&fake, &fake.view(ring[0], 4)));
        let holders: Vec<u32> = placement::holders(&found.onwards()).iter().map(|node| node.id.0).collect();
        assert_eq!(holders, [ring[0], ring[6], ring[10]]);
    }
}
