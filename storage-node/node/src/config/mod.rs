//! The ring's configuration on this node: it is followed, applied to the cache, kept on the disk and served on 5059.
//!
//! | file | its idea |
//! |---|---|
//! | `follower` | asks the namespace every two seconds, and applies what is new |
//! | `memory` | the memory of this machine, and how much of it the cache may take |
//! | `routes` | the calls on the administration plane |

mod editor;
mod follower;
mod memory;
mod routes;

pub use self::follower::ConfigFollower;
pub(crate) use self::{editor::ConfigEditor, routes::routes};
