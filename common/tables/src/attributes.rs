//! Attributes, including the size: a truncation puts the chunks beyond the new end on the dead list.

use std::sync::Arc;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, ChunkWrite, Ino, MAX_TOUCHED, Reply, SetAttr, Time, Truncate},
};

use super::{Tables, Transaction, extents::check_size, invalid};

impl Transaction<'_> {
    pub(super) fn set_attr(&mut self, ino: Ino, set: &SetAttr) -> Result<Reply, FsError> {
        self.tables.inode(ino)?;
        if let Some(truncate) = &set.truncate {
            let file = self.tables.file(ino)?.clone();
            self.tables.check_truncate(&file, truncate)?;
            self.truncate(&file, truncate);
        }
        self.apply_set(ino, set);
        Ok(Reply::Attr(self.tables.inodes[&ino].attr.clone()))
    }

    pub(super) fn touch(&mut self, atimes: &[(Ino, Time)]) -> Result<Reply, FsError> {
        if atimes.len() > MAX_TOUCHED {
            return Err(invalid(format!("{} inodes; at most {MAX_TOUCHED} are allowed", atimes.len())));
        }
        self.tables.touch(atimes);
        Ok(Reply::Done)
    }

    pub(super) fn found_root(&mut self, uid: u32, gid: u32) -> Result<Reply, FsError> {
        if !self.tables.is_root_new() {
            return Ok(Reply::Attr(self.tables.inode(Ino::ROOT)?.attr.clone()));
        }
        let now = self.now;
        let attr = self.edit(Ino::ROOT, |root| {
            (root.attr.uid, root.attr.gid, root.attr.atime, root.attr.mtime) = (uid, gid, now, now);
        });
        Ok(Reply::Attr(attr))
    }

    fn truncate(&mut self, file: &Attr, truncate: &Truncate) {
        if let Some(beyond) = last_chunk(truncate.size, file.chunk_bytes).checked_add(1) {
            self.remove_chunks(file.ino, (beyond, u32::MAX), None);
        }
        if let Some(tail) = &truncate.tail {
            self.make_current(file.ino, tail.extent());
        }
        let now = self.now;
        self.edit(file.ino, |inode| (inode.attr.size, inode.attr.mtime) = (truncate.size, now));
        self.settle_holes(file);
        self.drop_set_id_if_squashed(file.ino);
        self.notify_inode(file.ino, true);
    }
}

impl Tables {
    /// Notes when inodes were read last. Their change counters stay: whoever remembers their contents or attributes
    /// may go on.
    pub fn touch(&mut self, atimes: &[(Ino, Time)]) {
        for (ino, atime) in atimes {
            if let Some(inode) = self.inodes.get_mut(ino)
                && inode.attr.atime < *atime
            {
                Arc::make_mut(inode).attr.atime = *atime;
            }
        }
    }

    /// Whether the root directory is as [`Tables::new`] made it: never changed, and nothing was ever created in it.
    pub fn is_root_new(&self) -> bool {
        self.inodes.get(&Ino::ROOT).is_some_and(|root| root.attr.change == 0)
    }

    fn check_truncate(&self, file: &Attr, truncate: &Truncate) -> Result<(), FsError> {
        check_size(truncate.size, file.chunk_bytes)?;
        let last = last_chunk(truncate.size, file.chunk_bytes);
        let inside = !truncate.size.is_multiple_of(file.chunk_bytes.into());
        match &truncate.tail {
            Some(tail) => self.check_tail(file.ino, tail, inside.then_some(last)),
            None if inside && truncate.size < file.size && self.extent_at(file.ino, last).is_some() => {
                Err(invalid(format!(
                    "the new end is inside chunk {last}: store that chunk again, cut at the end, and name it as the tail"
                )))
            }
            None => Ok(()),
        }
    }

    /// `end` is the chunk inside which the file is to end; `None` if it ends at a chunk boundary.
    fn check_tail(&self, ino: Ino, tail: &ChunkWrite, end: Option<u32>) -> Result<(), FsError> {
        if end != Some(tail.index) {
            return Err(invalid(format!("chunk {} is not the chunk that the new end cuts", tail.index)));
        }
        self.check_version(tail.version)?;
        self.check_base(ino, tail)?;
        self.check_alive(ino, &tail.extent())
    }
}

/// Returns the chunk that holds the last byte; 0 for an empty file.
fn last_chunk(size: u64, chunk_bytes: u32) -> u32 {
    u32::try_from(size.div_ceil(chunk_bytes.into())).expect("the size has been checked")
}
