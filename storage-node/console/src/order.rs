//! The order of the table of nodes, as the address of the page names it.

/// The columns from left to right.
pub(crate) const COLUMN_NAMES: [&str; 11] =
    ["number", "node", "zone", "id", "state", "share", "chunks", "data", "free", "votes", "work"];

/// The order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeOrder {
    /// The number of a column.
    pub(crate) column: usize,
    pub(crate) descending: bool,
}

impl NodeOrder {
    /// The first column for a name that is none.
    pub(crate) fn column_of(name: &str) -> usize {
        COLUMN_NAMES.iter().position(|known| *known == name).unwrap_or_default()
    }

    pub(crate) fn name(self) -> &'static str {
        COLUMN_NAMES[self.column]
    }
}
