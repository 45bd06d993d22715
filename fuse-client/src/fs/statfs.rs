//! Space statistics. The namespace knows how much space files use, the nodes how much is free. The latter comes from a
//! [`SpaceSource`] passed in at the start, so that this module does not query nodes.

use std::sync::Arc;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Query},
};

use super::{FileSystem, unexpected};

/// Space for file contents, copies counted once, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceTotals {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// Returns `None` until a node has reported.
pub type SpaceSource = Arc<dyn Fn() -> Option<SpaceTotals> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

/// Reported as free until the nodes have reported, because programs refuse to write to a full file system.
const UNKNOWN_FREE_BYTES: u64 = 1 << 40;
/// Reported as free inodes. The namespace has no limit on their number.
const FREE_INODES: u64 = u32::MAX as u64;

impl FileSystem {
    pub async fn statistics(&self) -> Result<Statistics, FsError> {
        match self.namespace.query(Query::StatFs).await? {
            Answer::StatFs { inodes, bytes } => Ok(statistics(inodes, bytes, (self.space)())),
            other => Err(unexpected("querying the used space", &other)),
        }
    }
}

fn statistics(inodes: u64, used_bytes: u64, space: Option<SpaceTotals>) -> Statistics {
    let free_bytes = space.map_or(UNKNOWN_FREE_BYTES, |space| space.free_bytes);
    let total_bytes = space.map_or(0, |space| space.total_bytes).max(used_bytes.saturating_add(free_bytes));
    Statistics { total_bytes, free_bytes, inodes: inodes.saturating_add(FREE_INODES), free_inodes: FREE_INODES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_come_from_the_nodes() {
        let space = SpaceTotals { total_bytes: 1000, free_bytes: 300 };
        let totals = statistics(5, 600, Some(space));
        assert_eq!((totals.total_bytes, totals.free_bytes), (1000, 300));
    }

    #[test]
    fn used_and_free_never_exceed_the_total() {
        let totals = statistics(5, 900, Some(SpaceTotals { total_bytes: 1000, free_bytes: 300 }));
        assert_eq!((totals.total_bytes, totals.free_bytes), (1200, 300));
        assert!(statistics(5, u64::MAX, None).free_bytes > 0);
    }
}
