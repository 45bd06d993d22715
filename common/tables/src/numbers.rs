//! Inode numbers in blocks: a session that answers a creation before it is logged chooses the number, so it needs
//! numbers that nobody else gets.
//!
//! A session uses its numbers in ascending order, so what it may still use is all that has to be kept: a number never
//! names a second inode, even if the first one was removed long ago.

use chordfs_types::{
    chunk::FileName,
    fs_error::FsError,
    namespace::{EntryName, Ino, InoBlock, NewNode, Reply, SessionId},
};

use super::{Tables, Transaction, invalid, sessions::SessionRecord};

/// The most numbers of one block. A session that needs more allocates again.
const MAX_BLOCK: u32 = 1 << 16;
/// The most blocks that a session may have left, which bounds its record.
const MAX_BLOCKS: usize = 64;

/// What a session has chosen for an inode that it creates.
#[derive(Clone, Copy)]
pub(super) struct ChosenNumber<'a> {
    pub(super) ino: Ino,
    pub(super) file: &'a FileName,
}

impl Transaction<'_> {
    pub(super) fn allocate_inos(&mut self, count: u32) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        if count == 0 || count > MAX_BLOCK {
            return Err(invalid(format!("a block of {count} inode numbers; allowed are 1 to {MAX_BLOCK}")));
        }
        let next = self.tables.next.ino.checked_add(count.into());
        let next = next.ok_or_else(|| FsError::Internal { detail: "out of inode numbers".into() })?;
        let block = InoBlock { first: Ino(self.tables.next.ino), count };
        let record = self.tables.session_mut(session).ok_or(FsError::NoSession)?;
        if record.inos.len() >= MAX_BLOCKS {
            return Err(invalid(format!("the session has {MAX_BLOCKS} blocks of inode numbers left: use those first")));
        }
        record.inos.push_back(block);
        self.tables.next.ino = next;
        Ok(Reply::Inos(block))
    }

    pub(super) fn make_numbered(
        &mut self,
        chosen: ChosenNumber,
        parent: Ino,
        name: &EntryName,
        node: &NewNode,
    ) -> Result<Reply, FsError> {
        // A part knows no sessions. The mount takes each number from its own blocks.
        if self.is_part {
            return self.create(parent, name, node, true, Some(chosen));
        }
        let session = self.require_session()?;
        self.tables.check_number(session, chosen.ino)?;
        let reply = self.create(parent, name, node, true, Some(chosen))?;
        if let Some(record) = self.tables.session_mut(session) {
            record.use_number(chosen.ino);
        }
        Ok(reply)
    }
}

impl Tables {
    /// Whether the session may still use the number.
    pub(super) fn is_number_of(&self, session: SessionId, ino: Ino) -> bool {
        let record = self.sessions.get(&session);
        record.is_some_and(|record| record.inos.iter().any(|block| contains(block, ino)))
    }

    fn check_number(&self, session: SessionId, ino: Ino) -> Result<(), FsError> {
        if !self.has_session(session) {
            return Err(FsError::NoSession);
        }
        if self.is_number_of(session, ino) {
            return Ok(());
        }
        let Ino(number) = ino;
        Err(invalid(format!(
            "inode number {number} is in no block of the session, or not larger than those it has used"
        )))
    }
}

impl SessionRecord {
    /// Drops the number and all smaller ones.
    fn use_number(&mut self, Ino(used): Ino) {
        while self.inos.front().is_some_and(|block| end(block) <= used + 1) {
            self.inos.pop_front();
        }
        if let Some(block) = self.inos.front_mut().filter(|block| block.first.0 <= used) {
            *block = InoBlock { first: Ino(used + 1), count: (end(block) - (used + 1)) as u32 };
        }
    }
}

fn contains(block: &InoBlock, Ino(number): Ino) -> bool {
    (block.first.0..end(block)).contains(&number)
}

/// The number after the last one; allocating has checked that there is one.
fn end(block: &InoBlock) -> u64 {
    block.first.0 + u64::from(block.count)
}
