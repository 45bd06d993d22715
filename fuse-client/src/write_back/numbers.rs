//! Inode numbers that the namespace has given to this session, so that creating a file needs nobody.

use std::collections::VecDeque;

use chordfs_types::namespace::{Ino, InoBlock, SessionId};

/// How many numbers one block has.
pub(super) const BLOCK: u32 = 4096;
/// The next block is fetched when fewer are left.
const LOW: u64 = BLOCK as u64 / 2;

pub(super) struct InoNumbers {
    session: SessionId,
    blocks: VecDeque<InoBlock>,
    is_fetching: bool,
}

impl InoNumbers {
    pub(super) fn of(session: SessionId) -> Self {
        Self { session, blocks: VecDeque::new(), is_fetching: false }
    }

    /// Takes the next number, in ascending order.
    pub(super) fn take(&mut self) -> Option<Ino> {
        let block = self.blocks.front_mut()?;
        let ino = block.first;
        *block = InoBlock { first: Ino(ino.0 + 1), count: block.count - 1 };
        self.blocks.pop_front_if(|block| block.count == 0);
        Some(ino)
    }

    /// Whether the caller has to fetch a block now, and to call `refill`.
    pub(super) fn begin_fetch(&mut self) -> bool {
        let left: u64 = self.blocks.iter().map(|block| u64::from(block.count)).sum();
        let fetches = !self.is_fetching && left < LOW;
        self.is_fetching |= fetches;
        fetches
    }

    /// Ends a fetch; `None` if it failed.
    pub(super) fn refill(&mut self, block: Option<InoBlock>) {
        self.is_fetching = false;
        self.blocks.extend(block.filter(|block| block.count > 0));
    }

    /// Drops the numbers of another session, which has expired.
    pub(super) fn follow(&mut self, session: SessionId) {
        if std::mem::replace(&mut self.session, session) != session {
            self.blocks.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_one_caller_fetches_more() {
        let mut numbers = InoNumbers::of(SessionId(1));
        assert!(numbers.take().is_none() && numbers.begin_fetch() && !numbers.begin_fetch());
        numbers.refill(None);
        assert!(numbers.begin_fetch(), "a failed fetch is tried again");
        numbers.refill(Some(InoBlock { first: Ino(7), count: 2 }));
        assert!(numbers.begin_fetch());
        numbers.refill(Some(InoBlock { first: Ino(20), count: BLOCK }));
        let taken: Vec<_> = (0..3).filter_map(|_| numbers.take()).map(|ino| ino.0).collect();
        assert_eq!(taken, [7, 8, 20]);
        assert!(!numbers.begin_fetch());
        numbers.follow(SessionId(1));
        assert!(numbers.take().is_some(), "they are its own");
        numbers.follow(SessionId(2));
        assert!(numbers.take().is_none());
    }
}
