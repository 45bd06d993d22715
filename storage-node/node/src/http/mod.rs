//! The node's HTTP planes: files on 5058, administration on 5059.
//!
//! No decision about files or nodes is taken here: requests are checked and translated for [`crate::files`] and
//! [`admin::NodeAdmin`], and answers are put into headers, pages and JSON. Every error is one line of text. Both planes
//! are plain axum routers, which can be merged with other routes of the same port.

pub mod admin;
pub mod admission;
pub mod answer_room;
mod api;
pub(crate) mod body;
pub mod chunks;
mod compare;
mod conditions;
pub(crate) mod confinement;
mod disposition;
mod download;
pub mod error;
pub mod files;
mod form;
mod head_limit;
mod lent_body;
mod listing;
pub mod measured;
pub mod metrics;
mod observed;
pub mod open_files;
mod origin;
mod page;
pub(crate) mod page_headers;
pub mod pool_events;
pub mod server;
mod stored_content;
#[cfg(test)]
pub(crate) mod tests;
mod tracked;
mod upload;
mod uri;
mod write;
