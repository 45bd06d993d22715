//! The authority to change the ring through port 5059: an operator's token.
//!
//! | file | its idea |
//! |---|---|
//! | `token_file` | this node's token, in its data folder |
//! | `accepted` | the tokens that this node accepts: its own, and those that the namespace lists |
//! | `guard` | the check of every request that changes something |
//! | `login` | the cookie by which a browser sends the token |
//! | `routes` | listing and revoking tokens |
//!
//! Reading is open, as `/status` is. So are the calls between nodes and the old scripts' `POST /notify_join_system`;
//! port 5057, which nodes and mounts use, knows no token. So a token protects against mistakes and web pages, and
//! against programs that reach 5059 alone.

mod accepted;
mod guard;
mod login;
mod routes;
mod token_file;

pub(crate) use self::{
    accepted::AcceptedTokens,
    guard::{guarded, is_operator, request_token},
    login::routes as login_routes,
    routes::routes,
};
