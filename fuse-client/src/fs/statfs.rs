//! Space statistics. The namespace knows how much space files use, the nodes how much is free. The latter comes from a
//! [`SpaceSource`] passed in at the start, so that this module does not query nodes.

use std::sync::Arc;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Query},
};
use futures_util::future::{BoxFuture, join};

use super::{FileSystem, unexpected};

/// Space for file contents, copies counted once, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceTotals {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// Returns what the nodes report now, or have reported last if they do not answer soon; `None` until one has reported.
pub type SpaceSource = Arc<dyn Fn() -> BoxFuture<'static, Option<SpaceTotals>> + Send + Sync>;

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
        let (answer, space) = join(self.namespace.query(Query::StatFs), (self.space)()).await;
        match answer? {
            Answer::StatFs { inodes, bytes } => Ok(statistics(inodes, bytes, self.transfer.unstored_bytes(), space)),
            other => Err(unexpected("querying the used space", &other)),
        }
    }

    /// The bytes that can still be written, if the nodes have reported their space.
    pub(super) async fn free_bytes(&self) -> Option<u64> {
        let space = (self.space)().await?;
        Some(space.free_bytes.saturating_sub(self.transfer.unstored_bytes()))
    }
}

/// `used_bytes` is what the files have at the namespace, `unstored_bytes` what this mount has written and not stored.
/// What was stored and not committed, or deleted a moment ago, is neither free nor part of a file.
fn statistics(inodes: u64, used_bytes: u64, unstored_bytes: u64, space: Option<SpaceTotals>) -> Statistics {
    let used_bytes = used_bytes.saturating_add(unstored_bytes);
    let (total_bytes, free_bytes) = match space {
        Some(space) => {
            let total_bytes = space.total_bytes.max(used_bytes);
            (total_bytes, space.free_bytes.saturating_sub(unstored_bytes).min(total_bytes - used_bytes))
        }
        None => (used_bytes.saturating_add(UNKNOWN_FREE_BYTES), UNKNOWN_FREE_BYTES),
    };
    Statistics { total_bytes, free_bytes, inodes: inodes.saturating_add(FREE_INODES), free_inodes: FREE_INODES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_come_from_the_nodes() {
        let space = SpaceTotals { total_bytes: 1000, free_bytes: 300 };
        let totals = statistics(5, 600, 50, Some(space));
        assert_eq!((totals.total_bytes, totals.free_bytes), (1000, 250));
    }

    #[test]
    fn used_and_free_never_exceed_the_total() {
        // Just after 300 MB were written, `df` showed twice the total.
        let space = Some(SpaceTotals { total_bytes: 1000, free_bytes: 300 });
        let totals = statistics(5, 900, 0, space);
        assert_eq!((totals.total_bytes, totals.free_bytes), (1000, 100));
        let totals = statistics(5, 900, 400, space);
        assert_eq!((totals.total_bytes, totals.free_bytes), (1300, 0));
        assert!(statistics(5, u64::MAX, 0, None).free_bytes > 0);
    }
}
