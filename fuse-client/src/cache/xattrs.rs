//! The extended attributes of inodes that have any. Most inodes have none, which their flags say.

use std::sync::Arc;

use chordfs_types::namespace::{Ino, Xattrs};
use lru::LruCache;

/// How many bytes of names and values are kept.
const CAPACITY_BYTES: usize = 16 << 20;
/// What an inode takes besides, about.
const INODE_BYTES: usize = 200;

pub(super) struct KnownXattrs {
    inodes: LruCache<Ino, Arc<Xattrs>>,
    bytes: usize,
}

impl Default for KnownXattrs {
    fn default() -> Self {
        Self { inodes: LruCache::unbounded(), bytes: 0 }
    }
}

impl KnownXattrs {
    pub(super) fn get(&mut self, ino: Ino) -> Option<Arc<Xattrs>> {
        self.inodes.get(&ino).cloned()
    }

    pub(super) fn put(&mut self, ino: Ino, xattrs: Arc<Xattrs>) {
        self.bytes += bytes_of(&xattrs);
        if let Some(former) = self.inodes.put(ino, xattrs) {
            self.bytes -= bytes_of(&former);
        }
        while self.bytes > CAPACITY_BYTES
            && let Some((_, evicted)) = self.inodes.pop_lru()
        {
            self.bytes -= bytes_of(&evicted);
        }
    }

    pub(super) fn remove(&mut self, ino: Ino) {
        if let Some(removed) = self.inodes.pop(&ino) {
            self.bytes -= bytes_of(&removed);
        }
    }

    pub(super) fn clear(&mut self) {
        self.inodes.clear();
        self.bytes = 0;
    }
}

fn bytes_of(xattrs: &Xattrs) -> usize {
    let each = xattrs.iter().map(|(name, value)| name.as_bytes().len() + value.len());
    INODE_BYTES + each.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chordfs_types::namespace::XattrName;

    use super::*;

    #[test]
    fn the_bytes_of_all_have_a_ceiling() {
        let mut known = KnownXattrs::default();
        let name = XattrName::new("user.large").expect("a name");
        let large = Arc::new(Xattrs::from([(name, Bytes::from(vec![0; CAPACITY_BYTES / 4]))]));
        for ino in 1..10 {
            known.put(Ino(ino), large.clone());
            known.put(Ino(ino), large.clone());
        }
        let kept: Vec<u64> = (1..10).filter(|ino| known.get(Ino(*ino)).is_some()).collect();
        assert_eq!(kept, [7, 8, 9]);
        kept.into_iter().for_each(|ino| known.remove(Ino(ino)));
        assert_eq!(known.bytes, 0);
    }
}
