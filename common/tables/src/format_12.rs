//! The tables as snapshots of format 12 hold them: the ring had no identities.

use serde::Deserialize;

use super::{LoggedChunks, Tables, format_9::FormerTables, sessions::SessionRecord};

/// Read whole, and then turned into [`Tables`].
#[derive(Deserialize)]
pub struct TablesOfFormat12 {
    former: FormerTables<SessionRecord>,
    logged_chunks: LoggedChunks,
}

impl From<TablesOfFormat12> for Tables {
    fn from(TablesOfFormat12 { former, logged_chunks }: TablesOfFormat12) -> Self {
        Self { logged_chunks, ..former.into() }
    }
}
