//! Which peer is sending which chunk to this node, so that two peers do not send the same one.
//!
//! A claim ends when the chunk has arrived, or after a while, as the peer may have died. Claims only save traffic: a
//! chunk that arrives twice is still stored once.
#![deny(clippy::disallowed_methods)]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chordfs_types::{chunk::ChunkId, compare_api::ChunkAt, ring_id::RingId};

/// How long a claim lasts: longer than one batch takes with all its deadlines.
const HELD_FOR: Duration = Duration::from_secs(15);
/// The most claims that are recorded; further chunks may be sent without one.
const MAX_CLAIMS: usize = 1 << 16;

/// How often a full table is searched for expired claims.
const CLEAR_PERIOD: Duration = Duration::from_secs(1);

/// Key and id. The key is a bare number, as `RingId` has no hash.
type ClaimedChunk = (u32, ChunkId);

#[derive(Default)]
pub struct IncomingClaims {
    held: HashMap<ClaimedChunk, ChunkClaim>,
    /// When expired claims were last searched for.
    cleared: Option<Instant>,
}

struct ChunkClaim {
    by: RingId,
    until: Instant,
}

impl IncomingClaims {
    /// Returns true if `by` may send the chunk now, as no other peer is sending it.
    pub fn take(&mut self, chunk: &ChunkAt, by: RingId, now: Instant) -> bool {
        let taken = |claim: &ChunkClaim| claim.by != by && claim.until > now;
        if self.held.get(&(chunk.key.0, chunk.id)).is_some_and(taken) {
            return false;
        }
        self.hold(chunk, by, now);
        true
    }

    /// Like `take`, but also returns false if `by` itself is already sending the chunk.
    pub fn take_if_unclaimed(&mut self, chunk: &ChunkAt, by: RingId, now: Instant) -> bool {
        let free = self.held.get(&(chunk.key.0, chunk.id)).is_none_or(|claim| claim.until <= now);
        free && self.take(chunk, by, now)
    }

    /// Ends the claim: the chunk has arrived, or will not arrive.
    pub fn end(&mut self, key: RingId, id: ChunkId, by: RingId) {
        if self.held.get(&(key.0, id)).is_some_and(|claim| claim.by == by) {
            self.held.remove(&(key.0, id));
        }
    }

    fn hold(&mut self, chunk: &ChunkAt, by: RingId, now: Instant) {
        let name = (chunk.key.0, chunk.id);
        let due = self.cleared.is_none_or(|cleared| now.saturating_duration_since(cleared) >= CLEAR_PERIOD);
        if self.held.len() >= MAX_CLAIMS && due {
            self.cleared = Some(now);
            self.held.retain(|_, claim| claim.until > now);
        }
        if self.held.len() < MAX_CLAIMS {
            self.held.insert(name, ChunkClaim { by, until: now + HELD_FOR });
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;

    fn chunk(index: u32) -> ChunkAt {
        ChunkAt { key: RingId(5), id: ChunkId { version: Version(1), index }, bytes: 10 }
    }

    #[test]
    fn one_peer_at_a_time_sends_a_chunk() {
        let (mut claims, now) = (IncomingClaims::default(), Instant::now());
        assert!(claims.take(&chunk(1), RingId(10), now));
        assert!(!claims.take(&chunk(1), RingId(20), now) && claims.take(&chunk(1), RingId(10), now));
        assert!(
            claims.take_if_unclaimed(&chunk(2), RingId(20), now)
                && !claims.take_if_unclaimed(&chunk(2), RingId(20), now)
        );
        claims.end(RingId(5), chunk(1).id, RingId(20));
        assert!(!claims.take(&chunk(1), RingId(20), now), "a peer ends only its own claims");
        claims.end(RingId(5), chunk(1).id, RingId(10));
        assert!(claims.take(&chunk(1), RingId(20), now));
    }

    #[test]
    fn the_claim_of_a_dead_peer_expires() {
        let (mut claims, now) = (IncomingClaims::default(), Instant::now());
        assert!(claims.take(&chunk(1), RingId(10), now));
        assert!(claims.take(&chunk(1), RingId(20), now + HELD_FOR));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut claims, now) = (IncomingClaims::default(), Instant::now());
        assert!((0..2 * MAX_CLAIMS as u32).all(|index| claims.take(&chunk(index), RingId(10), now)));
        assert!(claims.held.len() <= MAX_CLAIMS);
        assert!(claims.take(&chunk(u32::MAX), RingId(10), now + HELD_FOR));
        assert_eq!(claims.held.len(), 1);
    }
}
