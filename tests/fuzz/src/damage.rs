//! Damage as networks, disks and attackers do it, without knowledge of any format.

use rand::{Rng, rngs::StdRng};

/// Bytes at which formats change their minds: signs, lengths, types.
const TELLING: [u8; 10] = [0, 1, 0x7f, 0x80, 0xc0, 0xc6, 0xdd, 0xdf, 0xfe, 0xff];
const MOST_CHANGES: usize = 6;

/// Returns the bytes with up to a few changes.
pub fn damage(random: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(0..=MOST_CHANGES) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(1..24)).min(bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, (0..random.random_range(1..20)).map(|_| random.random::<u8>()))),
            4 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ => drop(bytes.drain(at..end)),
        }
    }
    bytes
}
