//! How much memory this node may use, and how much of it goes to the cache of chunks.
//!
//! By default a sixteenth: three nodes on one laptop take less than a fifth of it together, and the kernel's page
//! cache, which also serves chunks, keeps most. This default never exceeds a quarter of what is available when it is
//! applied, so that a node on a busy machine starts small.

use std::{fs, path::Path};

use chordfs_types::ring_config::{CacheCapacity, MIN_CACHE_BYTES};

/// The part of the memory that the cache takes by default, and the part of the available memory that it then leaves.
const DEFAULT_SHARE: u64 = 16;
const SHARE_OF_AVAILABLE: u64 = 4;

/// The memory of the machine, or of the control group in which the node runs if that is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeMemory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

impl NodeMemory {
    /// Reads the figures of the kernel; those that cannot be read count as no limit.
    pub(super) fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let own_group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = group_limit(&own_group, Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX);
        let field = |name| meminfo_bytes(&meminfo, name).unwrap_or(u64::MAX).min(limit);
        Self { total_bytes: field("MemTotal:"), available_bytes: field("MemAvailable:") }
    }

    /// The most that the cache may be given: three quarters of the memory.
    pub(super) fn largest_cache(&self) -> u64 {
        self.total_bytes / 4 * 3
    }

    /// The bytes for a configured capacity; never more than this machine can give.
    pub(super) fn cache_bytes(&self, capacity: CacheCapacity) -> u64 {
        match capacity {
            CacheCapacity::Off => 0,
            CacheCapacity::Bytes(bytes) => bytes.min(self.largest_cache()),
            CacheCapacity::DefaultShare => {
                let share = (self.total_bytes / DEFAULT_SHARE).min(self.available_bytes / SHARE_OF_AVAILABLE);
                share.max(MIN_CACHE_BYTES)
            }
        }
    }
}

fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit of the group and those above it; `None` without a limit. The first kind of groups has one file
/// for the process's own group.
fn group_limit(own_group: &str, mount: &Path) -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = own_group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = mount.join(group);
    let groups = own.ancestors().take_while(|path| path.starts_with(mount));
    let limits = groups.filter_map(|path| read(&path.join("memory.max")));
    limits.chain(read(&mount.join("memory/memory.limit_in_bytes"))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_share_depends_on_the_memory_and_on_what_is_available() {
        let bytes = |total, available| {
            NodeMemory { total_bytes: total, available_bytes: available }.cache_bytes(CacheCapacity::DefaultShare)
        };
        assert_eq!(bytes(16 * GIB, 12 * GIB), GIB);
        assert_eq!(bytes(16 * GIB, 2 * GIB), GIB / 2);
        assert_eq!(bytes(16 * GIB, 0), MIN_CACHE_BYTES);
    }

    #[test]
    fn a_capacity_is_taken_as_far_as_the_machine_can_give_it() {
        let memory = NodeMemory { total_bytes: 4 * GIB, available_bytes: GIB };
        assert_eq!(memory.cache_bytes(CacheCapacity::Bytes(2 * GIB)), 2 * GIB);
        assert_eq!(memory.cache_bytes(CacheCapacity::Bytes(9 * GIB)), 3 * GIB);
        assert_eq!(memory.cache_bytes(CacheCapacity::Off), 0);
    }

    #[test]
    fn the_smallest_limit_of_the_groups_above_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |group: &str, text: &str| {
            fs::create_dir_all(mount.path().join(group)).unwrap();
            fs::write(mount.path().join(group).join("memory.max"), text).unwrap();
        };
        write("a/b", "max\n");
        write("a", "3000\n");
        write("c", "100\n");
        assert_eq!(group_limit("0::/a/b\n", mount.path()), Some(3000));
        assert_eq!(group_limit("", mount.path()), None);
        assert_eq!(meminfo_bytes("MemTotal:   24 kB\nMemAvailable:  8 kB\n", "MemAvailable:"), Some(8192));
        let own = NodeMemory::read();
        assert!(own.available_bytes <= own.total_bytes && own.total_bytes < u64::MAX);
    }
}
