//! placeholder

pub mod chunks;
