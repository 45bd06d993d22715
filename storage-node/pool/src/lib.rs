//! When a pool of nodes grows and shrinks, and the pool of processes on this machine that follows these rules.
//!
//! | file | what |
//! |---|---|
//! | `policy.rs` | the rules, pure: thresholds, steps, limits, and what holds a step back |
//! | `alarm.rs` | a threshold watched over several periods, pure |
//! | `scaler.rs` | both over time, pure: takes measurements, returns steps |
//! | `autoscaler/` | `storage-node autoscaler`: chooses the size of a whole ring by miss rates and disks, in automatic mode |
//! | `local/` | `storage-node pool --local`: processes that follow the size chosen for the ring, or else these rules |
//!
//! An Auto Scaling group follows the same [`Policy`]: there CloudWatch watches the thresholds and the group takes the
//! steps; `aws/` translates the policy for both.

pub mod alarm;
pub mod args;
pub mod autoscaler;
pub mod local;
pub mod policy;
pub mod scaler;

pub use self::{
    policy::{Policy, ScaleOn},
    scaler::{Scaler, ScalingStep},
};
