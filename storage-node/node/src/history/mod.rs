//! The last half hour of this node, and of the whole ring, at one point a minute.
//!
//! | file | its idea |
//! |---|---|
//! | `sampler` | reads the node's counters and the clocks, for the pure recorder of `chordfs-history` |
//! | `gather` | asks all nodes for their points |
//! | `routes` | `GET /history`, `GET /ring/history` |

mod gather;
mod routes;
mod sampler;

pub use self::{
    gather::RingHistories,
    routes::routes,
    sampler::{HistorySampler, OwnHistory},
};
