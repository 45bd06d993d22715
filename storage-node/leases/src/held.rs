//! The leases of one session, in the order in which they were granted.

use chordfs_types::namespace::Ino;
use lru::LruCache;

use crate::NoticeId;

#[derive(Debug)]
pub(crate) struct HeldLeases {
    /// The last notice of all before the lease was granted. The lease granted first is the least recently used one.
    granted: LruCache<Ino, u64>,
    /// Leases that were revoked, and are held until that is acknowledged.
    revoked: LruCache<Ino, u64>,
}

impl Default for HeldLeases {
    fn default() -> Self {
        Self { granted: LruCache::unbounded(), revoked: LruCache::unbounded() }
    }
}

impl HeldLeases {
    pub(crate) fn len(&self) -> usize {
        self.granted.len() + self.revoked.len()
    }

    pub(crate) fn not_revoked(&self) -> usize {
        self.granted.len()
    }

    /// A lease that is granted again counts as new.
    pub(crate) fn insert(&mut self, ino: Ino, last_notice: u64) {
        self.revoked.pop(&ino);
        self.granted.put(ino, last_notice);
    }

    pub(crate) fn was_granted_before(&self, ino: Ino, notice: NoticeId) -> bool {
        let last_before = self.granted.peek(&ino).or_else(|| self.revoked.peek(&ino));
        last_before.is_some_and(|last| *last < notice.number)
    }

    /// Marks the leases that were granted first as revoked, and returns their inodes.
    pub(crate) fn revoke_oldest(&mut self, count: usize) -> Vec<Ino> {
        let oldest: Vec<(Ino, u64)> = std::iter::from_fn(|| self.granted.pop_lru()).take(count).collect();
        let inos = oldest.iter().map(|(ino, _)| *ino).collect();
        for (ino, last) in oldest {
            self.revoked.put(ino, last);
        }
        inos
    }

    pub(crate) fn remove(&mut self, ino: Ino) {
        self.granted.pop(&ino);
        self.revoked.pop(&ino);
    }

    pub(crate) fn drain(&mut self) -> Vec<Ino> {
        let inos = self.inos().collect();
        self.granted.clear();
        self.revoked.clear();
        inos
    }

    pub(crate) fn inos(&self) -> impl Iterator<Item = Ino> {
        self.granted.iter().chain(self.revoked.iter()).map(|(ino, _)| *ino)
    }
}
