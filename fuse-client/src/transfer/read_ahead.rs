//! Detects sequential readers and decides what to fetch ahead of them. Pure: offsets in, a range out.
//!
//! A file has a few streams, because several programs, or threads of one, may each read their own part in order. A
//! stream counts as sequential from its second read on; its window then doubles with each read up to the ceiling. The
//! next piece is fetched when less than half of the window lies ahead, so pieces are large and a reader rarely waits.

use std::ops::Range;

const MAX_STREAMS: usize = 4;
const FIRST_WINDOW: u64 = 512 << 10;
/// The kernel's reads of one stream may overtake each other by this much.
const DISORDER: u64 = 512 << 10;

#[derive(Default)]
pub(super) struct Streams {
    /// Most recently used last.
    streams: Vec<Stream>,
}

struct Stream {
    /// The first offset of this run of reads.
    start: u64,
    /// Where the next read is expected.
    next: u64,
    window: u64,
    /// Everything before this offset has been requested.
    fetched: u64,
}

impl Streams {
    /// Notes a read of `range`, and returns the range to fetch beyond it, which may be empty.
    pub(super) fn note(&mut self, range: Range<u64>, max_window: u64) -> Range<u64> {
        let found = self.streams.iter().position(|stream| stream.expects(&range));
        let mut stream = match found {
            Some(at) => self.streams.remove(at),
            None => {
                if self.streams.len() == MAX_STREAMS {
                    self.streams.remove(0);
                }
                let (start, next) = (range.start, range.end);
                self.streams.push(Stream { start, next, window: 0, fetched: next });
                return next..next;
            }
        };
        let ahead = stream.advance(range, max_window);
        self.streams.push(stream);
        ahead
    }
}

impl Stream {
    fn expects(&self, range: &Range<u64>) -> bool {
        let earliest = self.next.saturating_sub(DISORDER).max(self.start);
        let latest = if self.window > 0 { self.next + DISORDER } else { self.next };
        (earliest..=latest).contains(&range.start) && range.end > self.start
    }

    fn advance(&mut self, range: Range<u64>, max_window: u64) -> Range<u64> {
        if range.end <= self.next {
            return self.next..self.next;
        }
        let first = FIRST_WINDOW.max(2 * (range.end - range.start));
        self.window = (self.window * 2).max(first).min(max_window);
        self.next = range.end;
        let from = self.fetched.max(self.next);
        let upto = self.next + self.window;
        if upto.saturating_sub(from) * 2 < self.window {
            return from..from;
        }
        self.fetched = upto;
        from..upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn read_ahead_fetches_each_byte_once_and_stays_within_the_ceiling() {
        let mut streams = Streams::default();
        let mut fetched = 0;
        for at in (0..64 * MIB).step_by(128 << 10) {
            let ahead = streams.note(at..at + (128 << 10), 8 * MIB);
            if !ahead.is_empty() {
                assert!(fetched == 0 || ahead.start == fetched, "{ahead:?} after {fetched}");
                assert!(ahead.end <= at + (128 << 10) + 8 * MIB);
                fetched = ahead.end;
            }
            if at > 4 * MIB {
                assert!(fetched >= at + 4 * MIB, "at {at} only {fetched} is fetched");
            }
        }
    }

    #[test]
    fn a_random_reader_gets_no_read_ahead() {
        let mut streams = Streams::default();
        let mut at = 1u64;
        for _ in 0..10_000 {
            at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let offset = (at >> 20) % (1 << 40) / 4096 * 4096;
            assert!(streams.note(offset..offset + 4096, 8 * MIB).is_empty());
        }
    }

    #[test]
    fn four_interleaved_readers_with_reordered_reads_all_get_read_ahead() {
        let mut streams = Streams::default();
        let mut ahead = [0; 4];
        for step in 0..64u64 {
            let step = if step < 4 { step } else { step ^ 1 };
            for reader in 0..4 {
                let offset = reader * 1000 * MIB + step * (128 << 10);
                let range = streams.note(offset..offset + (128 << 10), 8 * MIB);
                ahead[reader as usize] += range.end - range.start;
            }
        }
        assert!(ahead.iter().all(|&bytes| bytes >= 8 * MIB), "{ahead:?}");
    }
}
