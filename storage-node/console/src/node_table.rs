//! The table of the nodes: what `storage-node status` shows of each, in any order.

use std::cmp::Ordering;

use chordfs_types::{
    admin::{NodeLine, RingStatus},
    byte_size::human,
};
use maud::{Markup, html};

use crate::{
    order::{COLUMN_NAMES, NodeOrder},
    view::ConsoleQuery,
};

/// A cell: what is shown, and what it is sorted by.
struct NodeCell {
    text: String,
    key: SortKey,
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum SortKey {
    Number(f64),
    Text(String),
    /// Last, in either direction.
    Unknown,
}

struct NodeColumn {
    title: &'static str,
    is_number: bool,
    cell: fn(usize, &NodeLine) -> NodeCell,
}

/// The number of a node is its number in the picture of the ring.
const COLUMNS: [NodeColumn; COLUMN_NAMES.len()] = [
    NodeColumn { title: "No.", is_number: true, cell: |at, _| number(Some(at + 1), |at| at.to_string()) },
    NodeColumn { title: "Node", is_number: false, cell: |_, node| text(Some(node.address.to_string())) },
    NodeColumn { title: "Zone", is_number: false, cell: |_, node| text(node.zone.clone()) },
    NodeColumn { title: "Id", is_number: true, cell: |_, node| number(node.id.map(|id| id.0), |id| id.to_string()) },
    NodeColumn { title: "State", is_number: false, cell: |_, node| text(Some(node.state.label().into())) },
    NodeColumn {
        title: "Share",
        is_number: true,
        cell: |_, node| number(node.share, |share| format!("{:.1}%", share * 100.0)),
    },
    NodeColumn { title: "Chunks", is_number: true, cell: |_, node| number(node.chunks, |it| it.to_string()) },
    NodeColumn { title: "Data", is_number: true, cell: |_, node| number(node.data_bytes, human) },
    NodeColumn { title: "Free", is_number: true, cell: |_, node| number(node.free_bytes, human) },
    NodeColumn { title: "Votes", is_number: false, cell: |_, node| text(Some(votes(node).into())) },
    NodeColumn { title: "Work", is_number: false, cell: |_, node| text(node.work.text()) },
];

pub(crate) fn body(status: &RingStatus, query: &ConsoleQuery) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Table of the nodes" {
            table #node-table {
                caption { "Every node of the ring, and every voter outside it. The name of a column sorts by it." }
                thead { tr { @for (at, column) in COLUMNS.iter().enumerate() { (head(at, column, query)) } } }
                tbody { @for (at, node) in sorted(&status.nodes, query.order) { (row(at, node, query)) } }
            }
        }
    }
}

fn head(at: usize, column: &NodeColumn, query: &ConsoleQuery) -> Markup {
    let is_current = query.order.column == at;
    let (direction, mark) = match (is_current, query.order.descending) {
        (false, _) => (None, ""),
        (true, false) => (Some("ascending"), " ▲"),
        (true, true) => (Some("descending"), " ▼"),
    };
    let next = NodeOrder { column: at, descending: is_current && !query.order.descending };
    html! {
        th.number[column.is_number] scope="col" aria-sort=[direction] data-column=(COLUMN_NAMES[at]) {
            a href={ (query.href_sorted(next)) "#nodes" } { (column.title) }
            span aria-hidden="true" { (mark) }
        }
    }
}

fn row(at: usize, node: &NodeLine, query: &ConsoleQuery) -> Markup {
    html! {
        tr data-state=(node.state.label()) {
            @for (name, column) in COLUMN_NAMES.into_iter().zip(&COLUMNS) {
                @let cell = (column.cell)(at, node);
                @if name == "node" {
                    th scope="row" data-key=[cell.key.attribute()] {
                        a href={ (query.href_of(Some(node.address))) "#charts" } { (cell.text) }
                    }
                } @else {
                    td.number[column.is_number] data-key=[cell.key.attribute()] { (cell.text) }
                }
            }
        }
    }
}

/// The nodes with their numbers.
fn sorted(nodes: &[NodeLine], order: NodeOrder) -> Vec<(usize, &NodeLine)> {
    let key = |(at, node): &(usize, &NodeLine)| (COLUMNS[order.column].cell)(*at, node).key;
    let mut rows: Vec<(usize, &NodeLine)> = nodes.iter().enumerate().collect();
    rows.sort_by(|one, other| key(one).compare(&key(other), order.descending));
    rows
}

impl SortKey {
    fn compare(&self, other: &Self, descending: bool) -> Ordering {
        match (self, other) {
            (Self::Unknown, Self::Unknown) => Ordering::Equal,
            (Self::Unknown, _) => Ordering::Greater,
            (_, Self::Unknown) => Ordering::Less,
            _ => {
                let ascending = self.partial_cmp(other).unwrap_or(Ordering::Equal);
                if descending { ascending.reverse() } else { ascending }
            }
        }
    }

    /// For the script, which sorts likewise.
    fn attribute(&self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Unknown => None,
        }
    }
}

const UNKNOWN: &str = "-";

fn text(value: Option<String>) -> NodeCell {
    match value {
        Some(text) => NodeCell { key: SortKey::Text(text.clone()), text },
        None => NodeCell { text: UNKNOWN.into(), key: SortKey::Unknown },
    }
}

fn number<N: AsNumber>(value: Option<N>, shown: impl Fn(N) -> String) -> NodeCell {
    match value {
        Some(number) => NodeCell { key: SortKey::Number(number.as_number()), text: shown(number) },
        None => NodeCell { text: UNKNOWN.into(), key: SortKey::Unknown },
    }
}

trait AsNumber: Copy {
    fn as_number(self) -> f64;
}

impl AsNumber for usize {
    fn as_number(self) -> f64 {
        self as f64
    }
}

impl AsNumber for u32 {
    fn as_number(self) -> f64 {
        self.into()
    }
}

impl AsNumber for u64 {
    fn as_number(self) -> f64 {
        self as f64
    }
}

impl AsNumber for f64 {
    fn as_number(self) -> f64 {
        self
    }
}

pub(crate) fn votes(node: &NodeLine) -> &'static str {
    match (node.leader, node.voter) {
        (true, _) => "leader",
        (false, true) => "yes",
        (false, false) => "no",
    }
}
