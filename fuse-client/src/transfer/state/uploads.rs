//! Whole chunks that leave `sealed` or `dirty` for an upload, and are stored or put back.

use bytes::Bytes;
use chordfs_types::{
    chunk::{FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
};

use super::FileState;
use crate::transfer::extents::to_extents;

pub(super) struct Upload {
    /// Ascending.
    chunks: Vec<(u32, Bytes)>,
    from_sealed: bool,
    chunk_bytes: u32,
}

/// An upload to carry out.
pub(crate) struct UploadOrder {
    pub number: u64,
    pub file: FileName,
    /// Ascending.
    pub chunks: Vec<(u32, Bytes)>,
    pub durability: Durability,
}

impl Upload {
    pub(super) fn get(&self, index: u32) -> Option<&Bytes> {
        let at = self.chunks.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(&self.chunks[at].1)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * u64::from(self.chunk_bytes)
    }

    pub(super) fn last_index(&self) -> Option<u32> {
        self.chunks.last().map(|(index, _)| *index)
    }
}

impl FileState {
    pub(crate) fn upload_count(&self) -> usize {
        self.uploads.len()
    }

    #[cfg(test)]
    pub(crate) fn uploads_started(&self) -> u64 {
        self.next_upload
    }

    /// Whether the commit under way waits for an upload.
    pub(crate) fn awaits_uploads(&self) -> bool {
        self.uploads.iter().any(|(number, upload)| self.is_awaited(*number, upload))
    }

    fn is_awaited(&self, number: u64, upload: &Upload) -> bool {
        self.commit.as_ref().is_some_and(|commit| number < commit.first_later_upload || upload.from_sealed)
    }

    /// Takes the next run of whole chunks out of `sealed`, or else one of at least `min_bytes` out of `dirty`.
    pub(crate) fn take_upload(&mut self, min_bytes: u64, max_bytes: u64) -> Option<UploadOrder> {
        if self.failure.is_some() {
            return None;
        }
        let mut chunks = self.take_sealed(max_bytes);
        let from_sealed = !chunks.is_empty();
        if chunks.is_empty() && self.dirty.held_bytes() >= min_bytes.max(self.scan_at) {
            chunks = self.take_dirty(min_bytes, max_bytes);
            self.scan_at = if chunks.is_empty() { self.dirty.held_bytes() + max_bytes / 4 } else { 0 };
        }
        if chunks.is_empty() {
            return None;
        }
        let number = self.next_upload;
        self.next_upload += 1;
        let durability = self.commit.as_ref().filter(|_| from_sealed).map_or(Durability::Memory, |it| it.durability);
        let order = UploadOrder { number, file: self.attr.file.clone(), chunks: chunks.clone(), durability };
        self.uploads.insert(number, Upload { chunks, from_sealed, chunk_bytes: self.attr.chunk_bytes });
        Some(order)
    }

    fn take_sealed(&mut self, max_bytes: u64) -> Vec<(u32, Bytes)> {
        let uploads = &self.uploads;
        let uploading = |index: u32| uploads.values().any(|upload| upload.get(index).is_some());
        match &mut self.commit {
            Some(commit) if commit.uploads_whole_chunks && !commit.sealed.is_empty() => {
                commit.sealed.take_whole(self.attr.chunk_bytes, 1, max_bytes, uploading)
            }
            _ => Vec::new(),
        }
    }

    fn take_dirty(&mut self, min_bytes: u64, max_bytes: u64) -> Vec<(u32, Bytes)> {
        let size = self.attr.chunk_bytes;
        let (uploads, commit) = (&self.uploads, &self.commit);
        let is_blocked = |index: u32| {
            let start = u64::from(index - 1) * u64::from(size);
            let range = start..start + u64::from(size);
            uploads.values().any(|upload| upload.get(index).is_some())
                || commit.as_ref().is_some_and(|commit| commit.sealed.touches(range))
        };
        self.dirty.take_whole(size, min_bytes, max_bytes, is_blocked)
    }

    /// Moves the upload's chunks to `stored`, as `version`; to `newer` if the commit under way does not wait for them.
    /// It has synced its own chunks only, and would otherwise replace chunks on disk with chunks in memory.
    pub(crate) fn complete_upload(&mut self, number: u64, version: Version) {
        let Some(upload) = self.uploads.remove(&number) else { return };
        if upload.chunk_bytes != self.attr.chunk_bytes {
            self.discard(to_extents(upload.chunks.iter().map(|(index, _)| (*index, version))).iter());
            return self.put_back(number, upload);
        }
        let is_awaited = self.is_awaited(number, &upload);
        for extent in to_extents(upload.chunks.iter().map(|(index, _)| (*index, version))).iter() {
            if is_awaited || self.commit.is_none() {
                self.discarded.insert_over(&mut self.stored, extent);
            } else {
                self.discarded.insert_over(&mut self.newer, extent);
            }
        }
    }

    pub(crate) fn fail_upload(&mut self, number: u64, error: FsError) {
        if let Some(upload) = self.uploads.remove(&number) {
            self.put_back(number, upload);
        }
        self.failure = Some(error);
    }

    /// Puts the bytes of an upload back: below `sealed` if the commit under way waits for it, else below `dirty`.
    fn put_back(&mut self, number: u64, upload: Upload) {
        let size = upload.chunk_bytes;
        let is_awaited = self.is_awaited(number, &upload);
        let layer = match &mut self.commit {
            Some(commit) if is_awaited => &mut commit.sealed,
            _ => &mut self.dirty,
        };
        for (index, data) in upload.chunks {
            layer.put_under(u64::from(index - 1) * u64::from(size), &data, size);
        }
    }
}
