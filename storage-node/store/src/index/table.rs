//! The locations of one shard: a hash table that is divided before it becomes large. A hash table doubles by moving all
//! of its entries while the shard is locked, which takes 50 to 100 ms with a million of them. Here one insertion moves
//! at most [`MAX_ENTRIES`].
//!
//! The parts are chosen by bits of the chunk's fingerprint. Those of its key would not do: all versions of a chunk have
//! the same key.

use hashbrown::{HashMap, hash_map::Entry as Slot};

use super::{ChunkKey, RecordLocation};

/// The most entries of one table: as many as fit into 32,768 slots.
pub(super) const MAX_ENTRIES: usize = 28_672;
const PART_BITS: u32 = 4;
const PARTS: usize = 1 << PART_BITS;
/// Tables at this depth are not divided: all bits of the fingerprint are used up.
const MAX_DEPTH: u32 = u64::BITS / PART_BITS;

#[derive(Default)]
pub(super) struct LocationTable {
    root: LocationNode,
    len: usize,
}

enum LocationNode {
    Table(HashMap<ChunkKey, RecordLocation>),
    Divided(Box<[LocationNode; PARTS]>),
}

impl LocationTable {
    pub(super) fn get(&self, name: &ChunkKey) -> Option<&RecordLocation> {
        let (mut node, mut depth) = (&self.root, 0);
        loop {
            match node {
                LocationNode::Table(table) => return table.get(name),
                LocationNode::Divided(parts) => node = &parts[part(name, depth)],
            }
            depth += 1;
        }
    }

    pub(super) fn get_mut(&mut self, name: &ChunkKey) -> Option<&mut RecordLocation> {
        self.table_of(name).get_mut(name)
    }

    /// Adds an entry. If the chunk is here already, returns its location as `Err` and changes nothing.
    pub(super) fn insert(&mut self, name: ChunkKey, location: RecordLocation) -> Result<(), RecordLocation> {
        self.root.insert(name, location, 0)?;
        self.len += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &ChunkKey) -> Option<RecordLocation> {
        let removed = self.table_of(name).remove(name)?;
        self.len -= 1;
        Some(removed)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Visits all entries, in no order.
    pub(super) fn each(&self, mut visit: impl FnMut(&ChunkKey, &RecordLocation)) {
        self.root.each(&mut visit);
    }

    fn table_of(&mut self, name: &ChunkKey) -> &mut HashMap<ChunkKey, RecordLocation> {
        let (mut node, mut depth) = (&mut self.root, 0);
        loop {
            match node {
                LocationNode::Table(table) => return table,
                LocationNode::Divided(parts) => node = &mut parts[part(name, depth)],
            }
            depth += 1;
        }
    }
}

impl Default for LocationNode {
    fn default() -> Self {
        Self::Table(HashMap::new())
    }
}

impl LocationNode {
    fn insert(&mut self, name: ChunkKey, location: RecordLocation, depth: u32) -> Result<(), RecordLocation> {
        match self {
            Self::Divided(parts) => parts[part(&name, depth)].insert(name, location, depth + 1),
            Self::Table(table) => {
                match table.entry(name) {
                    Slot::Occupied(slot) => return Err(*slot.get()),
                    Slot::Vacant(slot) => slot.insert(location),
                };
                if table.len() == MAX_ENTRIES && depth < MAX_DEPTH {
                    *self = divided(table, depth);
                }
                Ok(())
            }
        }
    }

    fn each(&self, visit: &mut impl FnMut(&ChunkKey, &RecordLocation)) {
        match self {
            Self::Table(table) => table.iter().for_each(|(name, location)| visit(name, location)),
            Self::Divided(parts) => parts.iter().for_each(|part| part.each(visit)),
        }
    }
}

fn divided(table: &HashMap<ChunkKey, RecordLocation>, depth: u32) -> LocationNode {
    let mut parts: [HashMap<_, _>; PARTS] = std::array::from_fn(|_| HashMap::with_capacity(MAX_ENTRIES / PARTS));
    for (name, location) in table {
        parts[part(name, depth)].insert(*name, *location);
    }
    LocationNode::Divided(Box::new(parts.map(LocationNode::Table)))
}

fn part(name: &ChunkKey, depth: u32) -> usize {
    (name.fingerprint() >> (depth * PART_BITS)) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(version: u64) -> ChunkKey {
        ChunkKey { version, index: 1, key: 5 }
    }

    fn location(version: u64) -> RecordLocation {
        RecordLocation { segment: 1, offset: version as u32, bytes: 50 }
    }

    fn largest_table(node: &LocationNode) -> usize {
        match node {
            LocationNode::Table(table) => table.len(),
            LocationNode::Divided(parts) => parts.iter().map(largest_table).max().unwrap_or(0),
        }
    }

    /// A shard of a million chunks was locked for 50 to 100 ms when it grew.
    #[test]
    fn no_insertion_moves_more_than_one_small_table() {
        const CHUNKS: u64 = 600_000;
        let mut table = LocationTable::default();
        for version in 0..CHUNKS {
            table.insert(name(version), location(version)).unwrap();
            if version % 10_007 == 0 {
                assert!(largest_table(&table.root) < MAX_ENTRIES, "{version}");
            }
        }
        assert_eq!(table.len() as u64, CHUNKS);
        assert_eq!(table.insert(name(77), location(78)), Err(location(77)));
        *table.get_mut(&name(78)).unwrap() = location(5);
        assert_eq!(
            [76, 77, 78].map(|version| table.get(&name(version)).copied()),
            [76, 77, 5].map(|at| Some(location(at)))
        );
        let mut visited = 0;
        table.each(|_, _| visited += 1);
        assert_eq!(visited, CHUNKS);
        for version in 0..CHUNKS {
            assert!(table.remove(&name(version)).is_some());
        }
        assert_eq!((table.len(), table.remove(&name(1)), table.get(&name(2))), (0, None, None));
    }
}
