//! The grace for a neighbour that may only be restarting: for about a minute no other node is filled in its place.
//!
//! A node that restarts is away for seconds. Without a grace its neighbours would begin at once to copy all that it
//! holds to the next node, and drop it again when the node is back. Chunks that are written meanwhile get three copies.
//! If a second neighbour is away, some chunks may have one copy only, and nothing waits.
#![deny(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use chordfs_types::{
    placement,
    ring_id::{Neighbours, NodeRef, RingArc},
};

/// What one node knows of the neighbours that it has lost.
pub struct RestartGrace {
    grace: Duration,
    view: Option<Neighbours>,
    /// The last predecessor. The view has none for a moment after it has died.
    predecessor: Option<NodeRef>,
    /// The neighbours that went away less than a grace ago, and when.
    away: Vec<(NodeRef, Instant)>,
}

impl RestartGrace {
    pub fn new(grace: Duration) -> Self {
        Self { grace, view: None, predecessor: None, away: Vec::new() }
    }

    /// Records how the ring looks from this node.
    pub fn observe(&mut self, view: &Neighbours, now: Instant) {
        let former = self.view.replace(view.clone()).filter(|former| former.node == view.node);
        let Some(former) = former else {
            (self.predecessor, self.away) = (view.predecessor, Vec::new());
            return;
        };
        self.away.retain(|(node, since)| now.saturating_duration_since(*since) < self.grace && !contains(view, node));
        let lost = lost_predecessor(self.predecessor, view).into_iter().chain(lost_holders(&former, view));
        for node in lost.collect::<Vec<_>>() {
            if !self.away.iter().any(|(other, _)| *other == node) {
                self.away.push((node, now));
            }
        }
        self.predecessor = view.predecessor.or(self.predecessor);
    }

    /// Drops the lost neighbours that never held a chunk: a member of the ring counts as a storage node until it is
    /// known to be a foreign one, and leaves the view then.
    pub fn dismiss(&mut self, stores_nothing: impl Fn(&NodeRef) -> bool) {
        self.away.retain(|(node, _)| !stores_nothing(node));
        self.predecessor = self.predecessor.filter(|node| !stores_nothing(node));
    }

    /// The holders, in the observed view, that only take the place of a neighbour that may come back. They are not to
    /// be filled now.
    pub fn stand_ins(&self, now: Instant) -> Vec<NodeRef> {
        let (Some(view), [(node, since)]) = (&self.view, &self.away[..]) else { return Vec::new() };
        if now.saturating_duration_since(*since) >= self.grace {
            return Vec::new();
        }
        let before = placement::holders(&with(view, *node));
        placement::holders(&view.onwards()).split_off(1).into_iter().filter(|holder| !before.contains(holder)).collect()
    }
}

fn contains(view: &Neighbours, node: &NodeRef) -> bool {
    view.predecessor.as_ref() == Some(node) || view.successors.contains(node)
}

/// The former predecessor, if this node owns its arc now. A newcomer between the two takes none of its duties.
fn lost_predecessor(former: Option<NodeRef>, view: &Neighbours) -> Option<NodeRef> {
    let (former, now) = (former?, view.predecessor?);
    let owns = RingArc::new(now.id, view.node.id).strictly_contains(former.id);
    (owns && !contains(view, &former)).then_some(former)
}

/// The former holders that are missing among the successors, and not only because newcomers are nearer.
fn lost_holders(former: &Neighbours, view: &Neighbours) -> Vec<NodeRef> {
    let Some(last) = view.successors.last() else { return Vec::new() };
    let reach = RingArc::new(view.node.id, last.id);
    let lost = |node: &NodeRef| reach.strictly_contains(node.id) && !contains(view, node);
    placement::holders(&former.onwards()).split_off(1).into_iter().filter(lost).collect()
}

/// The nodes from the owner of the lost node's chunks on, as if it were still there: from this node on, or from the
/// lost node on if it was the predecessor.
fn with(view: &Neighbours, lost: NodeRef) -> Vec<NodeRef> {
    let mut nodes = view.onwards();
    let after = |node: &NodeRef| RingArc::new(view.node.id, node.id).strictly_contains(lost.id);
    let place = nodes.iter().skip(1).position(after);
    nodes.insert(place.map_or(0, |place| place + 1), lost);
    nodes
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use chordfs_types::ring_id::RingId;

    const GRACE: Duration = Duration::from_secs(60);
    const NONE: [u32; 0] = [];

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [10, 0, 0, id as u8].into(), port: 5057, id: RingId(id) }
    }

    fn view(predecessor: Option<u32>, me: u32, successors: &[u32]) -> Neighbours {
        let successors = successors.iter().copied().map(node).collect();
        Neighbours { predecessor: predecessor.map(node), node: node(me), successors }
    }

    /// Observes one view a second; returns the stand-ins of the last one.
    fn after(views: &[Neighbours]) -> Vec<u32> {
        let (mut grace, mut now) = (RestartGrace::new(GRACE), Instant::now());
        for view in views {
            now += Duration::from_secs(1);
            grace.observe(view, now);
        }
        grace.stand_ins(now).into_iter().map(|node| node.id.0).collect()
    }

    /// A restart of a node used to make its neighbours copy all that it held to the next node.
    #[test]
    fn the_node_in_the_place_of_a_lost_holder_is_not_filled() {
        let whole = view(Some(10), 20, &[30, 40, 50, 60, 10]);
        assert_eq!(after(std::slice::from_ref(&whole)), NONE);
        assert_eq!(after(&[whole.clone(), view(Some(10), 20, &[40, 50, 60, 10])]), [50]);
        assert_eq!(after(&[whole.clone(), view(Some(10), 20, &[30, 50, 60, 10])]), [50]);
        assert_eq!(after(&[whole.clone(), view(Some(10), 20, &[40, 50, 60, 10]), whole.clone()]), NONE, "it is back");
        assert_eq!(after(&[whole, view(Some(10), 20, &[30, 40, 60, 10])]), NONE, "50 held nothing of this node's");
    }

    /// The successor of a lost node owns its arc, of which its second holder has nothing.
    #[test]
    fn the_last_holder_of_a_lost_predecessors_arc_is_not_filled() {
        let whole = view(Some(10), 20, &[30, 40, 50, 5]);
        let without = [view(None, 20, &[30, 40, 50, 5]), view(Some(5), 20, &[30, 40, 50, 5])];
        let [unknown, known] = without;
        assert_eq!(after(&[whole.clone(), unknown.clone()]), NONE, "it may have left the view for a moment");
        assert_eq!(after(&[whole.clone(), unknown, known.clone()]), [40]);
        assert_eq!(after(&[whole, known]), [40]);
    }

    /// Bug: chunks that were written while a foreign node counted as a holder had two copies for a minute.
    #[test]
    fn nobody_waits_for_a_foreign_node_that_was_taken_for_a_holder() {
        let (mut grace, now) = (RestartGrace::new(GRACE), Instant::now());
        let (with_foreign, without) = (view(Some(35), 10, &[15, 20, 30, 40]), view(Some(40), 10, &[20, 30, 40]));
        grace.observe(&with_foreign, now);
        grace.observe(&without, now);
        assert_eq!(grace.stand_ins(now), [node(30)]);
        grace.dismiss(|node| [15, 35].contains(&node.id.0));
        assert_eq!(grace.stand_ins(now), []);
        grace.observe(&without, now);
        assert_eq!(grace.stand_ins(now), [], "nor does the lost predecessor count");
    }

    #[test]
    fn newcomers_are_filled_at_once() {
        let whole = view(Some(10), 20, &[30, 40, 50]);
        assert_eq!(after(&[whole.clone(), view(Some(10), 20, &[25, 30, 40])]), NONE);
        assert_eq!(after(&[whole.clone(), view(Some(15), 20, &[30, 40, 50])]), NONE, "one before this node");
        assert_eq!(after(&[whole, view(Some(10), 20, &[25, 27, 29])]), NONE, "the former holders are out of sight");
    }

    #[test]
    fn nothing_waits_when_two_neighbours_are_away() {
        let whole = view(Some(10), 20, &[30, 40, 50, 60, 5]);
        assert_eq!(after(&[whole.clone(), view(Some(10), 20, &[50, 60, 5])]), NONE);
        assert_eq!(after(&[whole, view(Some(5), 20, &[40, 50, 60, 5])]), NONE);
    }

    #[test]
    fn a_small_ring_has_no_stand_ins() {
        assert_eq!(after(&[view(Some(40), 20, &[30, 40]), view(Some(30), 20, &[30])]), NONE);
        assert_eq!(after(&[view(Some(30), 20, &[30]), view(None, 20, &[])]), NONE);
    }

    #[test]
    fn the_grace_ends() {
        let (mut grace, start) = (RestartGrace::new(GRACE), Instant::now());
        let without = view(Some(10), 20, &[40, 50, 60]);
        grace.observe(&view(Some(10), 20, &[30, 40, 50, 60]), start);
        grace.observe(&without, start);
        grace.observe(&without, start + GRACE / 2);
        assert_eq!(grace.stand_ins(start + GRACE / 2), [node(50)]);
        grace.observe(&without, start + GRACE);
        assert_eq!(grace.stand_ins(start + GRACE), []);
    }
}
