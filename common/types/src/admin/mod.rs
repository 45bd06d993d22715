//! What nodes report of themselves on the plane of administration (5059), as JSON: fields are added, never renamed, and
//! may be missing in what an older node sends.

mod drain;
mod node;
mod repair;
mod ring;
mod scrub;
mod work;

pub use self::{
    drain::{DrainPhase, DrainStatus},
    node::{NamespaceStatus, NodeState, NodeStatus, StoreStatus},
    repair::{Flow, RepairStatus},
    ring::{NodeLine, RingStatus, State},
    scrub::{PassReport, ScrubStatus},
    work::{Moving, ScrubWork, Work},
};
