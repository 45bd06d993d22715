//! How much room the nodes' disks have. Several nodes of one machine may keep their chunks on one file system, as in a
//! ring on a laptop. Each of them truthfully reports the free space of that disk, and the sum would count it once for
//! every node. So a node names its disk as well, and the total of a ring counts each disk once.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::chunk_api::REPLICAS;

/// Names a mounted file system, unique among all machines until they start anew. A number without a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskId(pub u64);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DiskId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Hexadecimal text, because programs in other languages read the status, and JSON's numbers are not exact in all.
impl Serialize for DiskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DiskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The file system below a node's data folder, which other nodes may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Equal for nodes that share the file system.
    pub id: DiskId,
    /// How many bytes the file system has free beyond the node's reserve, whatever the node's own limit is.
    pub free_bytes: u64,
}

/// The space for chunks on one node, in bytes of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// What the segments take now, live or dead, plus `free_bytes`.
    pub capacity_bytes: u64,
    /// What puts may still take before they are refused with 507.
    pub free_bytes: u64,
    /// `None` from a node that does not know its disk: it counts as one that shares it with nobody.
    #[serde(default)]
    pub disk: Option<Disk>,
}

/// The space for file contents on all nodes together, in bytes; the copies of a chunk count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingSpace {
    /// What is stored now plus `free_bytes`.
    pub capacity_bytes: u64,
    /// What may still be stored if it spreads evenly over the nodes.
    pub free_bytes: u64,
}

impl RingSpace {
    /// The total of the nodes that reported, in a ring of `members` nodes.
    pub fn total(reported: &[Space], members: usize) -> Self {
        let used: u64 = reported.iter().map(|space| space.capacity_bytes.saturating_sub(space.free_bytes)).sum();
        let free = free_on_disks(reported);
        let copies = members.clamp(1, REPLICAS) as u64;
        Self { capacity_bytes: used.saturating_add(free) / copies, free_bytes: free / copies }
    }
}

/// The nodes of a disk may together take no more than the disk has free.
fn free_on_disks(reported: &[Space]) -> u64 {
    let mut disks: BTreeMap<DiskId, (u64, u64)> = BTreeMap::new();
    let mut free = 0_u64;
    for space in reported {
        let Some(disk) = space.disk else {
            free = free.saturating_add(space.free_bytes);
            continue;
        };
        let (of_nodes, of_disk) = disks.entry(disk.id).or_default();
        *of_nodes = of_nodes.saturating_add(space.free_bytes);
        // Reserves may differ, and the node with the smallest one may take the most.
        *of_disk = disk.free_bytes.max(*of_disk);
    }
    disks.into_values().fold(free, |free, (of_nodes, of_disk)| free.saturating_add(of_nodes.min(of_disk)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(used: u64, free: u64, disk: Option<(u64, u64)>) -> Space {
        let disk = disk.map(|(id, free_bytes)| Disk { id: DiskId(id), free_bytes });
        Space { capacity_bytes: used + free, free_bytes: free, disk }
    }

    #[test]
    fn three_nodes_on_one_disk_count_it_once() {
        let reported = [(); 3].map(|()| node(100, 900, Some((7, 900))));
        assert_eq!(RingSpace::total(&reported, 3), RingSpace { capacity_bytes: 400, free_bytes: 300 });
    }

    #[test]
    fn nodes_with_disks_of_their_own_add_up() {
        let reported = [node(100, 900, Some((1, 900))), node(100, 900, Some((2, 900))), node(100, 900, None)];
        assert_eq!(RingSpace::total(&reported, 3), RingSpace { capacity_bytes: 1000, free_bytes: 900 });
    }

    #[test]
    fn limits_below_the_size_of_the_shared_disk_add_up() {
        let reported = [(); 3].map(|()| node(0, 200, Some((7, 900))));
        assert_eq!(RingSpace::total(&reported, 3).free_bytes, 200);
        let reported = [(); 3].map(|()| node(0, 400, Some((7, 900))));
        assert_eq!(RingSpace::total(&reported, 3).free_bytes, 300, "the disk is smaller than the three limits");
    }

    #[test]
    fn a_ring_of_fewer_nodes_stores_fewer_copies() {
        assert_eq!(RingSpace::total(&[node(0, 600, None)], 1).free_bytes, 600);
        assert_eq!(RingSpace::total(&[node(0, 600, None), node(0, 600, None)], 2).free_bytes, 600);
        assert_eq!(RingSpace::total(&[], 0), RingSpace::default());
    }

    #[test]
    fn a_disk_is_named_by_text_in_every_format() {
        let space = node(1, 2, Some((u64::MAX, 3)));
        let bytes = postcard::to_allocvec(&space).unwrap();
        assert_eq!(postcard::from_bytes::<Space>(&bytes).unwrap(), space);
        let json = serde_json::to_string(&space).unwrap();
        assert!(json.contains(r#""id":"ffffffffffffffff""#), "{json}");
        assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), space);
    }
}
