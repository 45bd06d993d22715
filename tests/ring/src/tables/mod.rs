//! The tables, one file for each, and their common layout.
pub mod churn;
pub mod exhaustive;
pub mod failures;
pub mod invariants;
pub mod load;
pub mod mixed;
pub mod path;
pub mod zones;

/// A table as text. Every row has as many cells as the header.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub title: String,
    /// Full lines under the title: setting, published figures.
    pub notes: Vec<String>,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Title, notes, header and rows, one line each; columns right-aligned and as wide as their widest cell.
    pub fn lines(&self) -> Vec<String> {
        let notes = self.notes.iter().map(|note| format!("  {note}"));
        let cells = std::iter::once(&self.header).chain(&self.rows).map(|row| self.aligned(row));
        std::iter::once(self.title.clone()).chain(notes).chain(cells).collect()
    }

    fn aligned(&self, row: &[String]) -> String {
        row.iter().enumerate().map(|(column, cell)| format!("  {cell:>width$}", width = self.width(column))).collect()
    }

    fn width(&self, column: usize) -> usize {
        let cells = std::iter::once(&self.header).chain(&self.rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}
