//! A node on Amazon EC2, in an Auto Scaling group: it finds out who and where it is, founds or joins the group's ring,
//! sees to it that policy and alarm are there, publishes how full its disk is, and leaves in good order.
//!
//! This is the only room of the node that knows AWS (`chordfs_asg`, shared with the mount, is the other place). When
//! to grow and shrink is for `pool`, how to leave for `drain`.
//!
//! | file | what |
//! |---|---|
//! | `args.rs` | the command line |
//! | `start.rs`, `around.rs` | what has to be known before the node serves; what goes on beside it |
//! | `cloud.rs` | what is asked of AWS, as a trait of plain values; `sdk.rs` behind it, `fake.rs` in tests |
//! | `identity.rs` | instance, zone, addresses |
//! | `founding/` | exactly one ring, whoever starts when |
//! | `scaling.rs`, `metric.rs` | policies and alarms; the metric that they watch |
//! | `leave.rs` | termination, spot notices: turn, drain, heartbeats, `CONTINUE` |
//! | `board.rs` | what is wrong at the moment, for `/healthz` |
//! | `plan.rs` | `storage-node aws plan` |

pub mod args;
mod around;
mod board;
pub mod cloud;
#[cfg(test)]
mod fake;
mod founding;
mod identity;
mod leave;
mod metric;
mod plan;
mod scaling;
mod sdk;
mod start;

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    path::PathBuf,
    sync::Arc,
};

use chordfs_types::ring_id::{NodeRef, RingId};

use self::{
    args::{Advertise, AwsSettings},
    board::Board,
    cloud::{Member, SharedCloud},
    founding::Standing,
};
pub use self::{identity::Identity, plan::of_this_machine as plan, start::run};

/// Everything that the parts of this room share. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

pub struct Shared {
    cloud: SharedCloud,
    board: Arc<Board>,
    standing: Arc<Standing>,
    identity: Identity,
    group: String,
    settings: AwsSettings,
    /// Of this node's ring, as others know it.
    address: SocketAddr,
    data: PathBuf,
}

impl Context {
    fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    #[cfg(test)]
    fn into_inner(self) -> Arc<Shared> {
        self.0
    }
}

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    pub fn node(&self) -> NodeRef {
        NodeRef { ip: self.address.ip(), port: self.address.port(), id: RingId(0) }
    }

    /// Where another member is reached: all advertise the same way. One with an address of its own choice is reached
    /// by its private one.
    pub fn address_of(&self, member: &Member) -> Option<IpAddr> {
        match self.settings.advertise {
            Advertise::Public => member.public,
            Advertise::Private | Advertise::Address(_) => member.private,
        }
    }
}
