//! The status of the whole ring: its members from the ring, then the status of every node, all asked at the same time,
//! each with a deadline.
//!
//! An unresponsive node is a line of the answer, not an error: an operator asks for the status when something is wrong.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract, routing::get};
use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_types::{
    admin::{
        Health, HealthFacts, NamespaceStatus, NodeLine, NodeState, NodeStatus, RingNodeState, RingStatus,
        lacking_copies,
    },
    disk_space::{RingSpace, Space},
    ring_id::{RingArc, RingId},
};
use futures_util::{StreamExt, stream};
use tracing::debug;

use crate::{
    driver::{NodeKind, RingHandle, SurveyedNode},
    http::admin::NodeAdmin,
};

/// The deadline for one node's status. A node answers from memory, so one that takes longer is shown as unreachable.
const DEADLINE: Duration = Duration::from_millis(1200);
/// The deadline of the survey. The nodes that it has found by then are asked for their status.
const SURVEY_DEADLINE: Duration = Duration::from_millis(1200);
const ASKED_AT_ONCE: usize = 64;

/// Gathers the status of the ring. Cheap to clone.
#[derive(Clone)]
pub struct RingSurvey {
    ring: RingHandle,
    own: Arc<dyn NodeAdmin>,
    client: AdminClient,
}

/// `GET /ring`: JSON of [`RingStatus`].
pub fn routes(survey: RingSurvey) -> Router {
    Router::new().route("/ring", get(ring_status)).with_state(survey)
}

async fn ring_status(extract::State(survey): extract::State<RingSurvey>) -> Json<RingStatus> {
    Json(survey.gather().await)
}

impl RingSurvey {
    pub fn new(ring: RingHandle, own: Arc<dyn NodeAdmin>, pool: Arc<HttpPool>) -> Self {
        Self { ring, own, client: AdminClient::new(pool, DEADLINE) }
    }

    /// Asks all nodes at once. Takes no longer than the two deadlines, whoever does not answer.
    pub async fn gather(&self) -> RingStatus {
        let asked = self.ring.me().ring_address();
        let own = self.own.status();
        let surveyed = self.ring.survey(SURVEY_DEADLINE).await;
        let storing =
            surveyed.iter().filter(|seen| seen.kind == NodeKind::Storage).map(|seen| seen.node.ring_address());
        let absent = own.namespace.voters.iter().copied().filter(|voter| !is_in(&surveyed, *voter));
        let addresses: Vec<SocketAddr> = storing.chain(absent).filter(|address| *address != asked).collect();
        let mut answers: HashMap<SocketAddr, NodeStatus> = stream::iter(addresses)
            .map(|address| async move { Some((address, self.status_of(address).await?)) })
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let insecure = own.insecure;
        answers.insert(asked, own);
        RingStatus { insecure, ..assemble(asked, &surveyed, &answers) }
    }

    async fn status_of(&self, address: SocketAddr) -> Option<NodeStatus> {
        let status = self.client.status(address.into()).await;
        status.inspect_err(|error| debug!(peer = %address, %error, "no status")).ok()
    }
}

fn is_in(surveyed: &[SurveyedNode], address: SocketAddr) -> bool {
    surveyed.iter().any(|seen| seen.node.ring_address() == address)
}

/// Puts the answers together. `surveyed` is in the order of the ids.
fn assemble(asked: SocketAddr, surveyed: &[SurveyedNode], answers: &HashMap<SocketAddr, NodeStatus>) -> RingStatus {
    let namespace = namespace(asked, answers);
    let count = surveyed.len();
    let arc = |at: usize| RingArc::new(surveyed[(at + count - 1) % count].node.id, surveyed[at].node.id);
    let in_ring = surveyed.iter().enumerate().map(|(at, seen)| {
        let address = seen.node.ring_address();
        line(address, Some((seen.node.id, arc(at))), Some(seen.kind), answers.get(&address), &namespace)
    });
    let absent = namespace.voters.iter().filter(|voter| !is_in(surveyed, **voter));
    let absent = absent.map(|&address| line(address, None, None, answers.get(&address), &namespace));
    let nodes: Vec<NodeLine> = in_ring.chain(absent).collect();
    let compared = nodes.iter().filter_map(|node| node.work.under_replicated).reduce(u64::saturating_add);
    let members = nodes.iter().filter(|node| node.state != RingNodeState::Foreign && node.arc.is_some());
    let chunks: Vec<Option<u64>> = members.map(|node| node.chunks).collect();
    let under_replicated = lacking_copies(&chunks, compared);
    let space = space(&nodes);
    let health = Health::default();
    let mut status = RingStatus { asked, nodes, under_replicated, space, namespace, insecure: false, health };
    status.health = Health::judge(&HealthFacts::of_ring(&status));
    status
}

/// The space of the nodes that reported theirs, in a ring of all that have an arc and store chunks.
fn space(nodes: &[NodeLine]) -> Option<RingSpace> {
    let members = nodes.iter().filter(|node| node.state != RingNodeState::Foreign && node.arc.is_some());
    let reported: Vec<Space> = members.clone().filter_map(space_of).collect();
    (!reported.is_empty()).then(|| RingSpace::total(&reported, members.count()))
}

fn space_of(node: &NodeLine) -> Option<Space> {
    let (data, free_bytes) = (node.data_bytes?, node.free_bytes?);
    Some(Space { capacity_bytes: data.saturating_add(free_bytes), free_bytes, disk: node.disk })
}

/// The namespace as its leader reports it. Without a leader that a majority follows, as the asked node knows it, or
/// another node if that knows none.
fn namespace(asked: SocketAddr, answers: &HashMap<SocketAddr, NodeStatus>) -> NamespaceStatus {
    if let Some((leader, status)) = answers.iter().find(|(_, status)| status.namespace.leads) {
        return NamespaceStatus { leader: Some(*leader), leader_confirmed: true, ..status.namespace.clone() };
    }
    let own = answers.get(&asked).map(|status| &status.namespace).filter(|namespace| namespace.known);
    let any = || answers.values().map(|status| &status.namespace).find(|namespace| namespace.known);
    let known = own.or_else(any).cloned().unwrap_or_default();
    NamespaceStatus { leader: None, leader_confirmed: false, ..known }
}

fn line(
    address: SocketAddr,
    place: Option<(RingId, RingArc)>,
    kind: Option<NodeKind>,
    status: Option<&NodeStatus>,
    namespace: &NamespaceStatus,
) -> NodeLine {
    let arc = place.map(|(_, arc)| arc);
    let line = NodeLine {
        id: place.map(|(id, _)| id),
        arc,
        share: arc.map(|arc| arc.len() as f64 / (1_u64 << 32) as f64),
        voter: namespace.voters.contains(&address),
        leader: namespace.leader == Some(address),
        ..NodeLine::without_status(address, state(kind, status))
    };
    let Some(NodeStatus { store, work, cache, zone, .. }) = status else { return line };
    NodeLine {
        chunks: Some(store.chunks),
        data_bytes: Some(store.data_bytes),
        free_bytes: Some(store.free_bytes),
        capacity_bytes: Some(store.capacity_bytes),
        disk: store.disk,
        problem: store.problem.clone(),
        work: work.clone(),
        cache: Some(*cache),
        zone: zone.clone(),
        ..line
    }
}

fn state(kind: Option<NodeKind>, status: Option<&NodeStatus>) -> RingNodeState {
    match (kind, status) {
        (Some(NodeKind::Foreign), _) => RingNodeState::Foreign,
        (_, None) => RingNodeState::Unreachable,
        (_, Some(status)) => match status.state {
            NodeState::Serving if status.work.filling.is_some() => RingNodeState::Joining,
            NodeState::Serving => RingNodeState::Up,
            NodeState::Starting | NodeState::Joining => RingNodeState::Joining,
            NodeState::Draining | NodeState::Gone => RingNodeState::Draining,
        },
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::{
        admin::{HealthLevel, StoreStatus, TransferWork, Work},
        ring_id::NodeRef,
    };

    use super::*;

    fn node(port: u16, id: u32) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port, id: RingId(id) }
    }

    fn status(work: Work) -> NodeStatus {
        let leader = Some(node(1, 0).ring_address());
        let voters = vec![node(1, 0).ring_address(), node(9, 0).ring_address()];
        NodeStatus {
            state: NodeState::Serving,
            neighbours: None,
            store: StoreStatus { chunks: 5, ..StoreStatus::default() },
            namespace: NamespaceStatus { voter: true, leader, voters, known: true, ..NamespaceStatus::default() },
            work,
            repair: Default::default(),
            drain: None,
            cache: Default::default(),
            zone: None,
            requests: 0,
            insecure: false,
        }
    }

    #[test]
    fn every_kind_of_node_has_its_line() {
        let seen = |port, id, kind| SurveyedNode { node: node(port, id), kind };
        let surveyed = [
            seen(1, 1 << 30, NodeKind::Storage),
            seen(2, 1 << 31, NodeKind::Foreign),
            seen(3, 3 << 30, NodeKind::Unresponsive),
            seen(4, u32::MAX, NodeKind::Storage),
        ];
        let filling = Work { filling: Some(TransferWork::default()), under_replicated: Some(4), ..Work::default() };
        let compared = Work { under_replicated: Some(3), ..Work::default() };
        let answers =
            [(1, compared), (4, filling)].map(|(port, work)| (node(port, 0).ring_address(), status(work))).into();
        let ring = assemble(node(1, 0).ring_address(), &surveyed, &answers);
        let states: Vec<RingNodeState> = ring.nodes.iter().map(|node| node.state).collect();
        let wanted = [
            RingNodeState::Up,
            RingNodeState::Foreign,
            RingNodeState::Unreachable,
            RingNodeState::Joining,
            RingNodeState::Unreachable,
        ];
        assert_eq!(states, wanted, "the last one is a voter outside the ring");
        assert_eq!(ring.nodes[0].arc, Some(RingArc::new(RingId(u32::MAX), RingId(1 << 30))));
        assert_eq!(ring.nodes[1].share, Some(0.25));
        assert_eq!((ring.nodes[0].chunks, ring.nodes[2].chunks), (Some(5), None));
        assert!(!ring.nodes[0].leader, "it names itself, and no majority has confirmed it");
        assert_eq!(ring.health.level, HealthLevel::Error, "{:?}", ring.health);
        assert!(ring.nodes[4].voter && ring.nodes[4].arc.is_none());
        assert_eq!(ring.under_replicated, Some(7 + 5), "two nodes keep five chunks each");
    }
}
