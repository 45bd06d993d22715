//! A node on Amazon EC2, in an Auto Scaling group: it discovers its identity and address, founds or joins the group's
//! ring, maintains scaling policies and alarms, publishes its disk usage, and drains before its instance terminates.
//!
//! The program `storage-node` contains this crate only when it is built with its feature `aws`, which is off by
//! default. The only other crate that calls AWS is `chordfs_asg`, which the mount shares. `chordfs_pool` defines when
//! to grow and shrink, `chordfs_node::drain` how to leave.
//!
//! | file | what |
//! |---|---|
//! | `args.rs` | the command line |
//! | `start.rs`, `environment.rs` | what must be known before the node serves; the tasks that run beside it |
//! | `cloud.rs` | the calls to AWS as a trait of plain values, implemented by `sdk.rs` and, in tests, `fake_cloud.rs` |
//! | `identity.rs` | instance, zone, addresses |
//! | `founding/` | exactly one ring for the group, however its nodes start |
//! | `scaling.rs`, `metric.rs` | policies and alarms; the metric that they watch |
//! | `capacity.rs` | the size that somebody has chosen, which the group follows instead of its alarms |
//! | `statistics.rs` | what a manager watches, every few seconds |
//! | `miss_rate.rs`, `group_nodes.rs` | what `storage-node autoscaler` takes from AWS |
//! | `termination.rs` | termination and spot notices: drain in turn, heartbeats, `CONTINUE` |
//! | `health.rs` | the current problems, for `/healthz` |
//! | `operator.rs` | `storage-node aws accept` |
//! | `ring_authority.rs` | the ring's certificate authority, in Secrets Manager |
//! | `plan.rs` | `storage-node aws plan` |

pub mod args;
mod capacity;
pub mod cloud;
mod environment;
#[cfg(test)]
mod fake_cloud;
mod founding;
mod group_nodes;
mod health;
mod identity;
mod metric;
mod miss_rate;
mod operator;
mod plan;
mod ring_authority;
mod scaling;
mod sdk;
mod start;
mod statistics;
mod termination;

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    path::PathBuf,
    sync::Arc,
};

use chordfs_types::ring_id::NodeAddress;
use parking_lot::Mutex;

use self::{
    args::{Advertise, AwsSettings},
    cloud::{GroupMember, SharedCloud},
    founding::FoundingState,
    health::AwsHealth,
};
pub use self::{
    group_nodes::nodes_of_group, identity::InstanceIdentity, miss_rate::CloudWatchMisses, operator::accept,
    plan::of_this_machine as plan, start::run,
};

/// The state that all modules of this crate share. Cheap to clone.
#[derive(Clone)]
pub struct AwsContext(Arc<AwsContextInner>);

pub struct AwsContextInner {
    cloud: SharedCloud,
    health: Arc<AwsHealth>,
    founding: Arc<FoundingState>,
    identity: InstanceIdentity,
    group: String,
    settings: AwsSettings,
    /// The ring address that this node advertises.
    address: SocketAddr,
    data: PathBuf,
    /// The number of nodes that somebody has chosen, as far as this node knows.
    chosen_size: Mutex<Option<u32>>,
}

impl AwsContext {
    fn new(shared: AwsContextInner) -> Self {
        Self(Arc::new(shared))
    }

    #[cfg(test)]
    fn into_inner(self) -> Arc<AwsContextInner> {
        self.0
    }
}

impl Deref for AwsContext {
    type Target = AwsContextInner;

    fn deref(&self) -> &AwsContextInner {
        &self.0
    }
}

impl AwsContextInner {
    pub fn node(&self) -> NodeAddress {
        self.address.into()
    }

    /// The address of another member, which is assumed to advertise like this node. If this node advertises a
    /// configured address, other members are reached at their private addresses.
    pub fn address_of(&self, member: &GroupMember) -> Option<IpAddr> {
        match self.settings.advertise {
            Advertise::Public => member.public,
            Advertise::Private | Advertise::Address(_) => member.private,
        }
    }
}
