//! What the console shows, and what of it was asked for.

use std::net::SocketAddr;

use chordfs_types::{
    admin::{PoolStatus, RingHistory, RingStatus, SessionStatus},
    ring_config::RingConfig,
};

use crate::order::NodeOrder;

/// All that one node knows of its ring at one moment.
#[derive(Clone, Debug)]
pub struct RingView {
    pub status: RingStatus,
    pub history: RingHistory,
    /// The error says why they are not known.
    pub sessions: Result<Vec<SessionStatus>, String>,
    /// The error says why it is not known.
    pub pool: Result<PoolStatus, String>,
    /// The configuration that the node follows.
    pub config: RingConfig,
}

/// The query of the page's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConsoleQuery {
    /// The node whose charts are shown; `None` for those of the whole ring.
    pub node: Option<SocketAddr>,
    pub order: NodeOrder,
}

impl ConsoleQuery {
    /// Takes what it understands, and the default for the rest.
    pub fn of<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut query = Self::default();
        for (name, value) in fields {
            match name {
                "node" => query.node = value.parse().ok(),
                "sort" => query.order.column = NodeOrder::column_of(value),
                "dir" => query.order.descending = value == "desc",
                _ => {}
            }
        }
        query
    }

    /// A link to the page with another node's charts.
    pub(crate) fn href_of(&self, node: Option<SocketAddr>) -> String {
        Self { node, ..self.clone() }.href()
    }

    /// A link to the page with another order of the table.
    pub(crate) fn href_sorted(&self, order: NodeOrder) -> String {
        Self { order, ..self.clone() }.href()
    }

    fn href(&self) -> String {
        let node = self.node.map(|node| format!("node={node}"));
        let is_sorted = self.order != NodeOrder::default();
        let direction = if self.order.descending { "desc" } else { "asc" };
        let sort = is_sorted.then(|| format!("sort={}&dir={direction}", self.order.name()));
        let fields: Vec<String> = node.into_iter().chain(sort).collect();
        format!("/?{}", fields.join("&"))
    }
}
