//! How much room there is. What files take is the namespace's knowledge, what the nodes' disks have left is theirs; the
//! latter comes from a source given at the start, for asking the nodes is not this room's business.

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

/// `None` while no node has told yet.
pub type SpaceSource = Arc<dyn Fn() -> Option<SpaceTotals> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

/// Shown as free while the nodes have not said: programs refuse to write where there is no room.
const UNKNOWN_FREE_BYTES: u64 = 1 << 40;
/// The namespace has no limit; what is shown leaves room for any count.
const FREE_INODES: u64 = u32::MAX as u64;

impl FileSystem {
    pub async fn statistics(&self) -> Result<Statistics, FsError> {
        match self.namespace.query(Query::StatFs).await? {
            Answer::StatFs { inodes, bytes } => Ok(statistics(inodes, bytes, (self.space)())),
            other => Err(unexpected("asking for the space", &other)),
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
        let shown = statistics(5, 600, Some(space));
        assert_eq!((shown.total_bytes, shown.free_bytes), (1000, 300));
    }

    #[test]
    fn used_and_free_never_exceed_the_total() {
        let shown = statistics(5, 900, Some(SpaceTotals { total_bytes: 1000, free_bytes: 300 }));
        assert_eq!((shown.total_bytes, shown.free_bytes), (1200, 300));
        assert!(statistics(5, u64::MAX, None).free_bytes > 0);
    }
}
