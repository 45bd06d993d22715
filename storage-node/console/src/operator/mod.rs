//! The part of the console that changes something: forms that work without a script, for those who are logged in.
//!
//! | file | its forms |
//! |---|---|
//! | `settings` | the configuration of the ring, a form for each group of settings |
//! | `pool_size` | grow and shrink by one node |
//! | `maintenance` | one node: drain, cancel, scrub. All: clear the caches, delete all data |
//! | `outcome` | the page that answers a form |

mod maintenance;
mod outcome;
mod pool_size;
mod settings;

use std::net::SocketAddr;

use chordfs_types::ring_config::RingConfig;
use maud::html;

pub use self::outcome::outcome_page;
use crate::page::Section;

/// What the forms show.
pub struct OperatorView {
    /// The configuration that the node follows.
    pub config: RingConfig,
    /// The storage nodes of the ring, by their addresses in it.
    pub nodes: Vec<SocketAddr>,
    /// How far the last deletion of all data is, in words; `None` if there was none.
    pub deletion: Option<String>,
}

/// The sections for those who are logged in.
pub fn operator_sections(view: &OperatorView) -> Vec<Section> {
    let settings = |id, title, group| Section { id, title, body: settings::form(&view.config, group) };
    vec![
        settings("cache-settings", "Cache of all nodes", "cache"),
        Section { id: "pool-settings", title: "Change the size of the pool", body: pool_size::body(view) },
        settings("ring-settings", "Name of the ring", "ring"),
        Section { id: "maintenance", title: "Maintenance", body: maintenance::body(view) },
    ]
}

/// The section for everybody else.
pub fn log_in_section() -> Section {
    let body = html! {
        p { a href="/login" { "Log in" } " to configure the cache and the size of the pool, to drain and scrub nodes, and to delete data." }
    };
    Section { id: "operate", title: "Operate", body }
}
