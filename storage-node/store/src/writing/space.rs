//! The space for puts: the free space of the disk, the reserve, and the configured limit of the store.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use chordfs_types::disk_space::{Disk, DiskId};
use nix::sys::statvfs::statvfs;

use crate::{error::StoreError, segment::set::SegmentSet};

#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceLimits {
    /// Kept free on the disk.
    pub reserve_bytes: u64,
    /// The most bytes that all segments may take together.
    pub capacity_bytes: Option<u64>,
    /// The file system of the segments, read at the open: a folder does not move to another one while it is in use.
    pub disk: Option<DiskId>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskUsage {
    pub used_percent: u64,
    /// How many bytes can be written, the reserve included.
    pub free_bytes: u64,
}

impl SpaceLimits {
    /// Returns how many bytes puts may still take, and the file system of the segments. Asks the file system once.
    pub(crate) fn free_bytes_and_disk(&self, segments: &SegmentSet) -> (u64, Option<Disk>) {
        let beyond_reserve = disk_free_bytes(segments).ok().map(|free| free.saturating_sub(self.reserve_bytes));
        let left = self.capacity_bytes.map(|limit| limit.saturating_sub(segments.used_bytes()));
        let disk = self.disk.zip(beyond_reserve).map(|(id, free_bytes)| Disk { id, free_bytes });
        (beyond_reserve.unwrap_or(0).min(left.unwrap_or(u64::MAX)), disk)
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

/// Device numbers are unique on one machine, so the kernel's boot id goes into the name.
pub(crate) fn disk_id(folder: &Path) -> Option<DiskId> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let device = fs::metadata(folder).ok()?.dev();
    let half = |bytes: &[u8]| u64::from(crc32c::crc32c(bytes));
    let (machine, disk) = (half(boot_id.trim().as_bytes()), half(format!("{} {device}", boot_id.trim()).as_bytes()));
    Some(DiskId(machine << 32 | disk))
}

fn disk_free_bytes(segments: &SegmentSet) -> std::io::Result<u64> {
    let disk = statvfs(segments.folder.as_path())?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}
