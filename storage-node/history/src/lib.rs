//! The last half hour of a node at one point a minute, for the charts of the console.
//!
//! Counters and gauges go in with the time, points come out: nothing here reads a clock, waits or opens a socket. A
//! driver in `chordfs-node` samples the node, and other nodes' points are gathered there.
//!
//! | file | what |
//! |---|---|
//! | `recorder` | samples become points: whole minutes of the clock, counter resets, clocks that jump, missed minutes |
//! | `latency` | how long operations took: recorded one by one, summed up for each minute, put together over nodes |
//! | `recent` | how long calls took lately, as one number that decides where the next one runs |
//! | `known` | the points that one node knows of the others |
#![deny(clippy::disallowed_methods)]

pub mod known;
pub mod latency;
pub mod recent;
pub mod recorder;
