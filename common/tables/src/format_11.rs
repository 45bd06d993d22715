//! The tables as snapshots of format 11 hold them: no chunk's data was logged.

use super::{format_9::FormerTables, sessions::SessionRecord};

/// Read whole, and then turned into [`Tables`](super::Tables).
pub type TablesOfFormat11 = FormerTables<SessionRecord>;
