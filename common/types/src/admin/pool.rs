//! The size of the pool for operators, pools and scalers: `GET /pool` and the calls beside it.

use serde::{Deserialize, Serialize};

use super::{NodeLine, RingNodeState, RingStatus};
use crate::{
    namespace::{PoolDecider, PoolDecision, PoolSize, Time},
    ring_config::{PoolConfig, PoolMode},
};

/// The size that the pool shall have: `GET /pool/wanted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTarget {
    /// The one that decides.
    pub mode: PoolMode,
    /// [`PoolConfig::smallest`].
    pub smallest: u32,
    /// [`PoolConfig::largest`].
    pub largest: u32,
    /// `None` while nobody has chosen a size: each pool follows its own settings.
    pub wanted: Option<u32>,
    /// The serial of the last decision, 0 before the first one. The next decision names it.
    pub serial: u64,
    /// The reason of the last decision.
    pub reason: Option<String>,
    /// Since the last decision, on the clocks of the ring.
    pub seconds_since_decision: Option<u64>,
}

impl PoolTarget {
    /// As the namespace has it at `now`.
    pub fn new(config: &PoolConfig, size: &PoolSize, now: Time) -> Self {
        let last = size.decisions.last();
        let since = |decision: &PoolDecision| u64::try_from(now.secs.saturating_sub(decision.at.secs)).unwrap_or(0);
        Self {
            mode: config.mode,
            smallest: config.smallest,
            largest: config.largest,
            wanted: size.wanted,
            serial: size.serial,
            reason: last.map(|decision| decision.step.reason.clone()),
            seconds_since_decision: last.map(since),
        }
    }

    /// The number of nodes that a pool strives for: the wanted one, within the limits as they are now. `None`: its own
    /// settings decide.
    pub fn nodes(&self) -> Option<u32> {
        let largest = self.largest.max(self.smallest);
        self.wanted.map(|wanted| wanted.clamp(self.smallest, largest))
    }
}

/// The storage nodes of a ring, counted by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNodes {
    /// They are in the ring and serve, some of them while they are being filled.
    pub serving: u32,
    /// They are starting or joining.
    pub arriving: u32,
    /// The serving nodes that still fetch the chunks of their arcs.
    pub filling: u32,
    /// They hand over their chunks, to leave then.
    pub draining: u32,
    /// They are in the ring and do not answer.
    pub silent: u32,
    /// Copies that serving nodes still have to make on other nodes; `None` while one of them has not looked yet.
    pub missing_copies: Option<u64>,
}

impl PoolNodes {
    /// Counts the storage nodes of a ring.
    pub fn of(ring: &RingStatus) -> Self {
        let mut nodes = Self { missing_copies: Some(0), ..Self::default() };
        ring.nodes.iter().for_each(|node| nodes.count(node));
        nodes
    }

    fn count(&mut self, node: &NodeLine) {
        match node.state {
            RingNodeState::Foreign => {}
            // A voter that has left the ring keeps no chunk that others still count on.
            RingNodeState::Unreachable => self.silent += u32::from(node.arc.is_some()),
            RingNodeState::Draining => self.draining += 1,
            RingNodeState::Joining if node.arc.is_none() || node.work.filling.is_none() => self.arriving += 1,
            RingNodeState::Joining | RingNodeState::Up => {
                self.serving += 1;
                self.filling += u32::from(node.work.filling.is_some());
                let copies = node.work.under_replicated;
                self.missing_copies = self.missing_copies.zip(copies).map(|(all, own)| all.saturating_add(own));
            }
        }
    }

    /// The nodes that stay: all but those that drain, whether they answer or not.
    pub fn staying(&self) -> u32 {
        self.serving + self.arriving + self.silent
    }

    /// Why no node may leave now, for people; `None` if one may.
    pub fn obstacle_to_shrinking(&self) -> Option<String> {
        let nodes = |count: u32| if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        let obstacles = [
            (self.draining, "still draining"),
            (self.arriving, "still arriving"),
            (self.filling, "still being filled"),
            (self.silent, "not answering, so some chunks lack copies"),
        ];
        let (count, what) = obstacles.into_iter().find(|(count, _)| *count > 0)?;
        Some(format!("{} {} {what}", nodes(count), if count == 1 { "is" } else { "are" }))
    }
}

/// All that is known of the pool: `GET /pool`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// What is wanted.
    #[serde(flatten)]
    pub target: PoolTarget,
    /// What there is.
    #[serde(flatten)]
    pub nodes: PoolNodes,
    /// The decisions that the namespace remembers, newest first.
    pub decisions: Vec<PoolDecisionLine>,
}

/// A decision as one row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolDecisionLine {
    /// Counts all decisions from 1.
    pub serial: u64,
    /// In seconds since 1970.
    pub time: i64,
    /// The nodes that served when it was made.
    pub from: u32,
    /// `None`: the pool was released.
    pub to: Option<u32>,
    /// The one that decided.
    pub by: PoolDecider,
    /// For people.
    pub reason: String,
    /// The miss rate on which the decision rests, 0 to 1.
    pub miss_rate: Option<f64>,
    /// The used share of the fullest disk on which the decision rests, 0 to 1.
    pub fullest_disk: Option<f64>,
}

impl From<&PoolDecision> for PoolDecisionLine {
    fn from(decision: &PoolDecision) -> Self {
        let step = &decision.step;
        Self {
            serial: decision.serial,
            time: decision.at.secs,
            from: step.from,
            to: step.to,
            by: step.by,
            reason: step.reason.clone(),
            miss_rate: step.miss_rate.map(|rate| rate.as_f64()),
            fullest_disk: step.fullest_disk.map(|share| share.as_f64()),
        }
    }
}

/// What a scaler decides: the body of `POST /pool/decision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalerDecision {
    /// The serial that the scaler saw.
    pub expected: u64,
    /// The nodes that serve now.
    pub from: u32,
    /// The wanted size.
    pub to: u32,
    /// For people, at most [`MAX_POOL_REASON_BYTES`](crate::namespace::MAX_POOL_REASON_BYTES).
    pub reason: String,
    /// 0 to 1.
    #[serde(default)]
    pub miss_rate: Option<f64>,
    /// 0 to 1.
    #[serde(default)]
    pub fullest_disk: Option<f64>,
}

/// The answer to a decision that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolDecided {
    /// What was done, for people.
    pub text: String,
    /// The serial of the decision.
    pub serial: u64,
    /// The size that is wanted from now on.
    pub wanted: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{Health, NamespaceStatus, TransferWork, Work},
        ring_config::RingConfig,
        ring_id::{RingArc, RingId},
    };

    fn line(state: RingNodeState, in_ring: bool, work: Work) -> NodeLine {
        NodeLine {
            arc: in_ring.then(|| RingArc::new(RingId(1), RingId(2))),
            work,
            ..NodeLine::without_status(([10, 0, 0, 1], 5057).into(), state)
        }
    }

    fn ring(nodes: Vec<NodeLine>) -> RingStatus {
        RingStatus {
            asked: ([10, 0, 0, 1], 5057).into(),
            nodes,
            under_replicated: None,
            space: None,
            namespace: NamespaceStatus::default(),
            insecure: false,
            health: Health::default(),
        }
    }

    #[test]
    fn nodes_are_counted_by_what_they_do() {
        let filling = Work { filling: Some(TransferWork::default()), under_replicated: Some(2), ..Work::default() };
        let compared = Work { under_replicated: Some(3), ..Work::default() };
        let idle = Work::default;
        let mut nodes = vec![
            line(RingNodeState::Up, true, compared),
            line(RingNodeState::Joining, true, filling),
            line(RingNodeState::Joining, true, idle()),
            line(RingNodeState::Joining, false, idle()),
            line(RingNodeState::Draining, true, idle()),
            line(RingNodeState::Unreachable, true, idle()),
            line(RingNodeState::Unreachable, false, idle()),
            line(RingNodeState::Foreign, true, idle()),
        ];
        let counted = PoolNodes::of(&ring(nodes.clone()));
        let expected =
            PoolNodes { serving: 2, arriving: 2, filling: 1, draining: 1, silent: 1, missing_copies: Some(5) };
        assert_eq!((counted, counted.staying()), (expected, 5));
        nodes.push(line(RingNodeState::Up, true, idle()));
        assert_eq!(PoolNodes::of(&ring(nodes)).missing_copies, None, "one node has not looked yet");
    }

    #[test]
    fn a_pool_strives_for_the_wanted_size_within_the_limits_of_the_moment() {
        let config = RingConfig::default().with([("pool.smallest", "2"), ("pool.largest", "5")]).unwrap().pool;
        let target = |wanted| PoolTarget::new(&config, &PoolSize { wanted, ..PoolSize::default() }, Time::default());
        assert_eq!(
            [None, Some(1), Some(4), Some(9)].map(|wanted| target(wanted).nodes()),
            [None, Some(2), Some(4), Some(5)]
        );
    }

    #[test]
    fn the_json_is_flat_and_reads_back() {
        let size = PoolSize { serial: 2, wanted: Some(3), ..PoolSize::default() };
        let target = PoolTarget::new(&RingConfig::default().pool, &size, Time::default());
        let nodes = PoolNodes { serving: 2, ..PoolNodes::default() };
        let status = PoolStatus { target, nodes, decisions: Vec::new() };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((&json["mode"], &json["wanted"], &json["serving"]), (&"manual".into(), &3.into(), &2.into()));
        assert_eq!(serde_json::from_value::<PoolStatus>(json).unwrap(), status);
    }
}
