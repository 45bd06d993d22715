//! Fuzz targets: the decoders of what peers send, and what acts on the result at once.
//!
//! Each [`Target`] has good messages of its own making, from which both ways of running it begin: `tests/checks.rs` damages
//! them with a seeded generator in every check, and `tests/fuzz.sh` lets libFuzzer follow the coverage for as long as one
//! likes. A target fails by a panic. One target is a whole node; rings with identities are attacked by
//! `tests/it/identities/hostile.rs`.

mod damage;
mod targets;
mod whole_node;

pub use self::{
    damage::damage,
    targets::{TARGETS, Target},
};
