//! The space for puts: the free space of the disk, the reserve, and the configured limit of the store.

use nix::sys::statvfs::statvfs;

use crate::{error::StoreError, segment::set::SegmentSet};

#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceLimits {
    /// Kept free on the disk.
    pub reserve_bytes: u64,
    /// The most bytes that all segments may take together.
    pub capacity_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskUsage {
    pub used_percent: u64,
    /// How many bytes can be written, the reserve included.
    pub free_bytes: u64,
}

impl SpaceLimits {
    /// Bytes that puts may still take.
    pub(crate) fn free_bytes(&self, segments: &SegmentSet) -> u64 {
        let left = self.capacity_bytes.map(|limit| limit.saturating_sub(segments.used_bytes()));
        let disk = disk_free_bytes(segments).map(|free| free.saturating_sub(self.reserve_bytes));
        disk.unwrap_or(0).min(left.unwrap_or(u64::MAX))
    }

    /// Counts `bytes` as used. Errors: `NoSpace` if there is not enough space for them.
    pub(crate) fn take(&self, segments: &SegmentSet, bytes: u64) -> Result<(), StoreError> {
        let path = || segments.folder.clone();
        let reserve = self.reserve_bytes;
        let free = disk_free_bytes(segments).map_err(|source| StoreError::io("ask free space of", &path(), source))?;
        if free < bytes.saturating_add(reserve) {
            let why = format!("{free} bytes are free, {bytes} are needed and {reserve} are kept in reserve");
            return Err(StoreError::NoSpace { path: path(), why });
        }
        let limit = self.capacity_bytes.unwrap_or(u64::MAX);
        if !segments.take_space(bytes, limit) {
            let why = format!("{bytes} more bytes would exceed the limit of {limit}");
            return Err(StoreError::NoSpace { path: path(), why });
        }
        Ok(())
    }

    /// Returns the usage of the disk, or of the store's configured limit, whichever is fuller.
    pub(crate) fn disk_usage(&self, segments: &SegmentSet) -> Result<DiskUsage, StoreError> {
        let folder = &segments.folder;
        let disk = statvfs(folder.as_path())
            .map_err(|errno| StoreError::io("ask free space of", folder, std::io::Error::from(errno)))?;
        let percent = |used: u64, all: u64| (u128::from(used) * 100 / u128::from(all.max(1))) as u64;
        let used = disk.blocks().saturating_sub(disk.blocks_free());
        let of_disk = percent(used, used.saturating_add(disk.blocks_available()));
        let of_limit = self.capacity_bytes.map_or(0, |limit| percent(segments.used_bytes(), limit));
        Ok(DiskUsage {
            used_percent: of_disk.max(of_limit),
            free_bytes: disk.blocks_available().saturating_mul(disk.fragment_size()),
        })
    }
}

fn disk_free_bytes(segments: &SegmentSet) -> std::io::Result<u64> {
    let disk = statvfs(segments.folder.as_path())?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}
