//! The node's HTTP planes: files on 5058, administration on 5059.
//!
//! Nothing here decides anything about files or nodes: requests are checked and translated for [`crate::files`] and for
//! [`admin::NodeAdmin`], answers are put into headers, pages and JSON. Every error is one line of text. Both planes are
//! plain axum routers, to be merged with whatever else is served on the same port.

pub mod admin;
mod body;
pub mod chunks;
mod compare;
mod conditions;
mod disposition;
mod download;
pub mod error;
pub mod files;
mod listing;
pub mod metrics;
pub mod open_files;
pub mod server;
#[cfg(test)]
mod tests;
mod upload;
mod uri;
