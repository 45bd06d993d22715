//! Prints a counterexample as sentences. Nodes are named by their ids; each step is followed by the changed neighbours,
//! as `predecessor < node > successors`.

use chordfs_ring::{Message, RingAnswer, RingRequest, RingRoute};
use chordfs_types::ring_id::{Neighbours, NodeRef};
use stateright::Path;

use super::{
    properties::end_of_quiescence,
    scope::{Network, Scope, node_at},
    state::{Fault, InFlight, Maintenance, MessageContent, State},
    steps::Transition,
};

pub(super) fn describe_counterexample(scope: &Scope, property: &str, path: Path<State, Transition>) -> String {
    let states = path.into_vec();
    let mut lines = vec![format!("{}: violated: {property}", scope.name())];
    lines.push(format!("    begins with {}", views(&states[0].0)));
    for (number, pair) in states.windows(2).enumerate() {
        let (before, after) = (&pair[0].0, &pair[1].0);
        let Some(step) = pair[0].1 else { break };
        lines.push(format!("{:3} {}{}", number + 1, describe_step(scope, before, step), changes(before, after)));
    }
    let last = &states[states.len() - 1].0;
    lines.push(format!("    ends with {}", views(last)));
    lines.push(format!("    {}", outcome(scope, last)));
    lines.join("\n")
}

fn outcome(scope: &Scope, last: &State) -> String {
    match last.fault.as_deref() {
        Some(Fault::Ring(fault)) => fault.clone(),
        Some(Fault::Skipped(who)) => format!("skipped, although established: {who}"),
        Some(Fault::FewPrincipals(who)) => format!("the only remaining principals: {who}"),
        None => end_of_quiescence(scope, last),
    }
}

fn describe_step(scope: &Scope, state: &State, step: Transition) -> String {
    let id = |place: usize| node_at(place).id;
    match step {
        Transition::Deliver(index) => delivery(scope, state, &state.in_flight[index]),
        Transition::Lose(index) => format!("lost: {}", delivery(scope, state, &state.in_flight[index])),
        Transition::Double(index) => {
            format!("{}, and a copy stays in flight", delivery(scope, state, &state.in_flight[index]))
        }
        Transition::SuspectFalsely(index) => {
            let message = &state.in_flight[index];
            format!("{} takes {} for dead, which is alive", id(message.from), id(message.to))
        }
        Transition::Join { node, through } => format!("{} joins through {}", id(node), id(through)),
        Transition::Crash(place) => format!("{} crashes", id(place)),
        Transition::Restart(place) => format!("{} restarts", id(place)),
        Transition::Leave(place) => format!("{} leaves", id(place)),
        Transition::Maintain(place, Maintenance::Stabilize) => format!("{} stabilizes", id(place)),
        Transition::Maintain(place, Maintenance::CheckPredecessor) => format!("{} checks its predecessor", id(place)),
        Transition::Maintain(place, Maintenance::Tick) => format!("{} ticks", id(place)),
    }
}

fn delivery(scope: &Scope, state: &State, message: &InFlight) -> String {
    let (from, to) = (node_at(message.from).id, node_at(message.to).id);
    match &message.content {
        MessageContent::Request { request, .. } => {
            let about = match request {
                RingRequest::Neighbours => "for its neighbours".to_owned(),
                RingRequest::Info => "for its id".to_owned(),
                RingRequest::Route(target) => format!("for the route to {target}"),
            };
            match state.nodes[message.to].is_up() {
                true => format!("{to} answers {from}, which asked {about}"),
                false if scope.network == Network::DeadNodesAnswer => {
                    format!("dead {to} answers {from}, which asked {about}")
                }
                false => format!("the call of {from} to {to} {about} fails"),
            }
        }
        MessageContent::Answer { answer, .. } => format!("{to} receives from {from}: {}", describe_answer(answer)),
        MessageContent::Message(Message::Notify(_)) => format!("{to} is notified by {from}"),
        MessageContent::Message(Message::Leave(_)) => format!("{to} is notified that {from} leaves"),
    }
}

fn describe_answer(answer: &RingAnswer) -> String {
    match answer {
        RingAnswer::Neighbours(theirs) => view(theirs),
        RingAnswer::Info(node) => format!("my id is {}", node.id),
        RingAnswer::Route(RingRoute::Owner(nodes)) => format!("the owner is {}", list(nodes)),
        RingAnswer::Route(RingRoute::NextHops { nodes, .. }) => format!("ask {}", list(nodes)),
    }
}

fn changes(before: &State, after: &State) -> String {
    let pairs = before.nodes.iter().zip(&after.nodes);
    let changed = pairs.filter(|(old, new)| old.view != new.view && new.is_up());
    changed.map(|(_, new)| format!("; now {}", view(&new.view))).collect()
}

fn views(state: &State) -> String {
    let up = state.nodes.iter().filter(|node| node.is_up());
    up.map(|node| view(&node.view)).collect::<Vec<_>>().join(" | ")
}

fn view(view: &Neighbours) -> String {
    let before = view.predecessor.map_or("-".to_owned(), |node| node.id.to_string());
    format!("{before} < {} > {}", view.node.id, list(&view.successors))
}

fn list(nodes: &[NodeRef]) -> String {
    if nodes.is_empty() {
        "-".to_owned()
    } else {
        nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(" ")
    }
}
