//! This node's identity, and the certificates that it issues to others.
//!
//! | file | its idea |
//! |---|---|
//! | `folder` | the ring's authority and this node's certificate, in the data folder |
//! | `admission` | where a node that starts has its identity from: its folder, itself, or its ring |
//! | `issue` | the call by which others get certificates |
//! | `routes` | inviting, listing and revoking, for operators |
//! | `revoked` | the identities that this node lets in no longer |
//!
//! Every node has the key of the ring's authority, so every node can let others in, with no leader and after any
//! restart. A node could read and change all data without that key, too.

mod admission;
mod folder;
mod issue;
mod revoked;
mod routes;

pub use self::{admission::SecurityConfig, folder::take_authority};
pub(crate) use self::{
    admission::{Newcomer, identity_of},
    folder::NodeIdentity,
    issue::routes,
    revoked::RevokedIdentities,
    routes::operator_routes,
};
