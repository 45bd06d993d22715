//! Which records may enter a full cache: those that are read a second time soon after the first.
//!
//! Without this, one pass over a large file would push every hot chunk out. Remembered are fingerprints of the latest
//! first reads, in a table in which a newer one overwrites an older one: about twice as many as the cache has records.

use chordfs_types::chunk::ChunkId;

use super::RecordKey;

/// Bytes of cache for one remembered first read.
const BYTES_FOR_A_SLOT: usize = 2048;

/// The latest first reads.
#[derive(Default)]
pub(super) struct FirstReads {
    /// 0 is an empty slot. As long as a power of two, or empty.
    slots: Box<[u32]>,
}

impl FirstReads {
    /// For a cache of this many bytes.
    pub(super) fn new(cache_bytes: usize) -> Self {
        let count = cache_bytes / BYTES_FOR_A_SLOT;
        let count = if count == 0 { 0 } else { count.next_power_of_two() };
        Self { slots: vec![0; count].into_boxed_slice() }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Records a read; returns whether an earlier one is remembered.
    pub(super) fn is_second(&mut self, key: &RecordKey) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        let mixed = mix(key);
        let slot = &mut self.slots[mixed as usize & (self.slots.len() - 1)];
        let fingerprint = (mixed >> 32) as u32 | 1;
        std::mem::replace(slot, fingerprint) == fingerprint
    }
}

/// The finalizer of MurmurHash3: each bit of the key affects each bit of the result.
fn mix((key, ChunkId { version, index }): &RecordKey) -> u64 {
    let mut bits = version.0 ^ (u64::from(key.0) << 32 | u64::from(*index)).rotate_left(17);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        bits = (bits ^ (bits >> 33)).wrapping_mul(factor);
    }
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use chordfs_types::{chunk::Version, ring_id::RingId};

    use super::*;

    fn key(number: u32) -> RecordKey {
        (RingId(number.wrapping_mul(2_654_435_761)), ChunkId { version: Version(1), index: number })
    }

    #[test]
    fn only_a_second_read_within_the_window_counts() {
        let mut reads = FirstReads::new(100 * 4096);
        assert!(!reads.is_second(&key(1)) && reads.is_second(&key(1)));
        let repeated = (1000..1050).filter(|number| reads.is_second(&key(*number))).count();
        assert_eq!(repeated, 0, "they were never read before");
        let again = (1000..1050).filter(|number| reads.is_second(&key(*number))).count();
        assert!(again > 30, "{again} of 50 are remembered");
        (2000..9000).for_each(|number| _ = reads.is_second(&key(number)));
        let late = (1000..1050).filter(|number| reads.is_second(&key(*number))).count();
        assert!(late < 5, "{late} of 50 are remembered after many others");
    }
}
