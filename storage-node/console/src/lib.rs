//! The console: from what a node knows of its ring to the page that people see. Values go in, HTML comes out; nothing
//! here reads a clock, waits or opens a socket.
//!
//! The page is complete as it is sent. The script only replaces its [`Fragment`]s by newer ones, sorts the table
//! without loading the page again, and shows a chart's values below it.
//!
//! | file | what |
//! |---|---|
//! | `view`, `order` | what is shown, and what of it was asked for |
//! | `page` | the skeleton: head, navigation, sections; further sections plug in here |
//! | `health`, `ring_picture`, `node_table`, `pool`, `sessions` | a section each |
//! | `charts/` | which charts there are, their values, and how they are drawn |
//! | `operator/` | the forms by which operators change something |
//! | `console.css`, `console.js` | style and script, which the node serves beside the page |
//! | `base.css` | what all pages of a node look like, the one of files on 5058 included |
#![deny(clippy::disallowed_methods)]

mod charts;
mod health;
mod node_table;
mod operator;
mod order;
mod page;
mod pool;
mod ring_picture;
mod sessions;
#[cfg(test)]
mod tests;
mod time;
mod view;

pub use self::{
    operator::{OperatorView, log_in_section, operator_sections, outcome_page},
    page::{Fragment, Section, fragments, page, section},
    view::{ConsoleQuery, RingView},
};

/// The look that all pages of a node share.
pub const BASE_STYLE: &str = include_str!("base.css");
/// The style of the console.
pub const STYLE: &str = concat!(include_str!("base.css"), include_str!("console.css"));
/// The script of the page.
pub const SCRIPT: &str = include_str!("console.js");
