//! Status values that nodes report on the plane of administration (5059), as JSON: fields are added, never renamed, and
//! may be missing in what an older node sends.

mod cache;
mod drain;
mod health;
mod health_facts;
mod history;
mod node;
mod pool;
mod repair;
mod ring;
mod scrub;
mod sessions;
mod text;
mod work;

pub use self::{
    cache::CacheStatus,
    drain::{DrainPhase, DrainStatus},
    health::{Health, HealthCode, HealthLevel, HealthReason},
    health_facts::{DiskFacts, HealthFacts, NodeFacts, VoterFacts, lacking_copies},
    history::{
        BacklogMinute, CacheMinute, DiskMinute, HISTORY_POINTS, HistoryPoint, HistorySource, LatencySummary,
        NodeHistory, RingHistory, RingNodeHistory,
    },
    node::{LeaseStatus, LoggedStatus, NamespaceStatus, NodeState, NodeStatus, StoreStatus, VoterLag},
    pool::{PoolDecided, PoolDecisionLine, PoolNodes, PoolStatus, PoolTarget, ScalerDecision},
    repair::{RepairStatus, TransferProgress},
    ring::{NodeLine, RingNodeState, RingStatus},
    scrub::{PassReport, ScrubStatus},
    sessions::SessionStatus,
    text::INSECURE,
    work::{ScrubWork, TransferWork, Work},
};
