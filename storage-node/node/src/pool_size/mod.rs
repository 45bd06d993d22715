//! How many nodes the pool shall have: the calls of 5059 by which operators and scalers decide it, and from which pools
//! and scalers learn it. The namespace keeps the decision and checks it; nothing here starts or drains a node.
//!
//! | file | its idea |
//! |---|---|
//! | `steps` | pure: what one more node, one node less, and a release mean at a moment |
//! | `editor` | takes such a step to the namespace; for calls and for forms |
//! | `routes` | the calls on the administration plane |

mod editor;
mod routes;
mod steps;

pub(crate) use self::{editor::PoolEditor, routes::routes};
