//! The properties that must hold in every state.

use std::sync::Arc;

use stateright::Property;

use super::{
    quiescent::QuiescentRing,
    scope::{Scope, node_at},
    state::{Fault, Places, State},
    steps::NOW,
};
use crate::invariants::{GlobalView, NodeView};

pub const ONE_RING: &str = "one ordered ring, and a live successor for each member";
pub const NOT_SKIPPED: &str = "no established member is skipped";
pub const BASE: &str = "enough principals stay";
pub const CONVERGES: &str = "without events the ring becomes ideal";

pub(super) fn all() -> Vec<Property<Scope>> {
    vec![
        Property::always(ONE_RING, |_, state: &State| !matches!(state.fault.as_deref(), Some(Fault::Ring(_)))),
        Property::always(NOT_SKIPPED, |_, state: &State| !matches!(state.fault.as_deref(), Some(Fault::Skipped(_)))),
        Property::always(BASE, |_, state: &State| !matches!(state.fault.as_deref(), Some(Fault::FewPrincipals(_)))),
        Property::always(CONVERGES, converges),
    ]
}

/// Updates `established` and looks for a fault. `changed`: some node's neighbours may have changed.
pub(super) fn judge(scope: &Scope, state: &mut State, changed: bool) {
    let members = state.members();
    let skipped = state.nodes.iter().filter(|node| node.is_member).fold(0, |set, node| set | node.skips);
    let principals = members & !skipped;
    let enough = principals.count_ones() as usize > scope.successor_list_len;
    let unskipped = principals & !skipped_on_the_way(state);
    let is_base = unskipped.count_ones() as usize > scope.successor_list_len;
    let lost = state.established & members & !unskipped;
    let had_base = state.has_base;
    state.has_base |= is_base;
    if state.fault.is_none() {
        state.fault = fault_of_ring(state, changed)
            .map(Fault::Ring)
            .or_else(|| (lost != 0).then(|| Fault::Skipped(ids(lost))))
            .or_else(|| (had_base && !enough).then(|| Fault::FewPrincipals(ids(principals))))
            .map(Arc::new);
    }
    state.established = state.established & members | if state.has_base { unskipped } else { 0 };
}

/// The members skipped by a list in flight that will be taken when it arrives.
fn skipped_on_the_way(state: &State) -> Places {
    let joining = |asker: usize| state.nodes[asker].is_alone();
    state.in_flight.iter().fold(0, |set, message| {
        let asker = if message.is_request() { message.from } else { message.to };
        set | message.skips | if joining(asker) { message.skips_joining } else { 0 }
    })
}

fn fault_of_ring(state: &State, changed: bool) -> Option<String> {
    if !changed {
        return None;
    }
    let seen = |node: &super::state::Node| NodeView { neighbours: node.view.clone(), is_member: node.is_member };
    let nodes: Vec<NodeView> = state.nodes.iter().map(|node| seen(node)).collect();
    GlobalView::new(&nodes).fault()
}

/// Checked in states without messages in flight; every other state leads to such a state.
fn converges(scope: &Scope, state: &State) -> bool {
    let is_quiet = state.in_flight.is_empty() && state.fault.is_none();
    !is_quiet || quiescent_after(scope, state).periods_until_ideal(scope.periods_max).is_some()
}

/// Describes the ring after the allowed quiet periods, for a report.
pub(super) fn end_of_quiescence(scope: &Scope, state: &State) -> String {
    let mut ring = quiescent_after(scope, state);
    match ring.periods_until_ideal(scope.periods_max) {
        Some(periods) => format!("ideal after {periods} periods"),
        None => format!("after {} periods still not ideal:\n{}", scope.periods_max, ring.describe()),
    }
}

fn quiescent_after(scope: &Scope, state: &State) -> QuiescentRing {
    let ring = |node: &super::state::Node| node.ring.clone().filter(|_| node.is_up());
    QuiescentRing::new(state.nodes.iter().map(|node| ring(node)).collect(), NOW, scope.settings())
}

fn ids(places: Places) -> String {
    let ids = (0..16).filter(|place| places & (1 << place) != 0).map(|place| node_at(place).id.to_string());
    ids.collect::<Vec<_>>().join(", ")
}
