//! Holes: what fallocate(2) makes of a range, and what lseek(2) finds. A hole is a chunk that no extent covers, so the
//! ends of a hole that lie within chunks are written as zeros.

use std::ops::Range;

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Attr, Change, Commit, Extent, Ino, Query},
};

use super::{FileSystem, OpenFile, unexpected};

/// A range of bytes, as programs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    pub offset: u64,
    pub len: u64,
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    Data,
    Hole,
}

impl FileRange {
    pub(super) fn end(self) -> Result<u64, FsError> {
        self.offset.checked_add(self.len).ok_or(FsError::FileTooLarge)
    }
}

impl FileSystem {
    /// Makes the file at least as long as the range, as posix_fallocate(3) does, but reserves no space: whatever is
    /// written later is stored anew.
    ///
    /// Errors: `NoSpace` if the file would grow by more than what is free now.
    pub async fn allocate(&self, ino: Ino, range: FileRange, keeps_size: bool) -> Result<(), FsError> {
        let (end, file) = (range.end()?, self.open_data(ino)?);
        // Bytes below the present end have their space, apart from holes.
        let added = end.saturating_sub(range.offset.max(file.size()));
        if self.free_bytes().await.is_some_and(|free| added > free) {
            return Err(FsError::NoSpace);
        }
        if keeps_size { Ok(()) } else { self.grow(ino, &file, end).await }
    }

    /// Makes the range a hole, and leaves the size as it is.
    pub async fn punch_hole(&self, ino: Ino, range: FileRange) -> Result<(), FsError> {
        let (end, file) = (range.end()?, self.open_data(ino)?);
        if file.is_outdated() {
            self.refresh_open_file(ino, &file).await?;
        }
        // Only the namespace knows all extents.
        self.commit(ino, Durability::Memory).await?;
        let chunk_bytes = file.data.chunk_bytes();
        let parts = HoleParts::of(range.offset..end, file.size(), chunk_bytes);
        for zeros in parts.zeros {
            let chunk = (zeros.start / chunk_bytes) as u32 + 1;
            if first_data(&self.extents(ino, chunk).await?.0, chunk) == Some(u64::from(chunk)) {
                self.write(ino, zeros.start, vec![0; (zeros.end - zeros.start) as usize]).await?;
            }
        }
        self.commit(ino, Durability::Memory).await?;
        let Some((first, count)) = parts.chunks else { return Ok(()) };
        let chunk_bytes = chunk_bytes as u32;
        let change = Change::PunchHole { ino, first, count, chunk_bytes };
        self.change_contents(ino, &file, self.change_attr(change)).await
    }

    /// Makes the range zeros, and the file as long as the range unless `keeps_size`.
    pub async fn zero_range(&self, ino: Ino, range: FileRange, keeps_size: bool) -> Result<(), FsError> {
        self.punch_hole(ino, range).await?;
        let (end, file) = (range.end()?, self.open_data(ino)?);
        if keeps_size || end <= file.size() { Ok(()) } else { self.grow(ino, &file, end).await }
    }

    /// The first byte at or after `offset` that is data, or is in a hole. The end of the file counts as a hole. `None`
    /// if there is none.
    pub async fn seek(&self, ino: Ino, offset: u64, sought: Sought) -> Result<Option<u64>, FsError> {
        let file = self.open_data(ino)?;
        self.commit(ino, Durability::Memory).await?;
        let attr = self.attr(ino).await?;
        if offset >= attr.size {
            return Ok(None);
        }
        let chunk_bytes = file.data.chunk_bytes();
        let mut chunk = (offset / chunk_bytes) as u32 + 1;
        loop {
            let (extents, more) = self.extents(ino, chunk).await?;
            let found = match sought {
                Sought::Data => first_data(&extents, chunk),
                Sought::Hole => first_hole(&extents, chunk, more),
            };
            let start_of = |chunk: u64| ((chunk - 1) * chunk_bytes).max(offset);
            match (found, sought) {
                (Some(found), Sought::Data) => return Ok(Some(start_of(found)).filter(|at| *at < attr.size)),
                (Some(found), Sought::Hole) => return Ok(Some(start_of(found).min(attr.size))),
                (None, Sought::Data) => return Ok(None),
                // All of this page is data, and there are more extents.
                (None, Sought::Hole) => chunk = extents.last().map_or(chunk, |last| last.end() as u32),
            }
        }
    }

    async fn extents(&self, ino: Ino, from: u32) -> Result<(Vec<Extent>, bool), FsError> {
        let asked = self.namespace.query(Query::Extents { ino, from }).await;
        match asked.map_err(|error| self.stale_if_gone(ino, error))? {
            Answer::Extents { extents, more } => Ok((extents, more)),
            other => Err(unexpected("looking for holes", &other)),
        }
    }

    async fn grow(&self, ino: Ino, file: &OpenFile, end: u64) -> Result<(), FsError> {
        self.commit(ino, Durability::Memory).await?;
        let commit = Commit { size_at_least: end, ..Commit::default() };
        self.change_contents(ino, file, self.change_attr(Change::Commit { ino, commit })).await
    }

    /// Sends a change of the contents that is not made of written bytes.
    pub(super) async fn change_contents(
        &self,
        ino: Ino,
        file: &OpenFile,
        change: impl Future<Output = Result<Attr, FsError>>,
    ) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let _under_way = self.cache.begin_own_change(Vec::new(), vec![ino]);
        let attr = change
            .await
            .inspect_err(|_| self.cache.forget_attr(ino))
            .map_err(|error| self.stale_if_gone(ino, error))?;
        self.refresh_open_file(ino, file).await?;
        self.record_change(stamp, &attr);
        Ok(())
    }
}

/// The first chunk at or after `from` that an extent covers.
fn first_data(extents: &[Extent], from: u32) -> Option<u64> {
    extents.first().map(|extent| u64::from(extent.first.max(from)))
}

/// The first chunk at or after `from` that no extent covers. `None`: it may come after the last of these.
fn first_hole(extents: &[Extent], from: u32, more: bool) -> Option<u64> {
    let mut next = u64::from(from);
    for extent in extents {
        if u64::from(extent.first) > next {
            return Some(next);
        }
        next = extent.end();
    }
    (!more).then_some(next)
}

/// How a range becomes a hole.
#[derive(Debug, PartialEq, Eq)]
struct HoleParts {
    /// Bytes of chunks that lie partly outside.
    zeros: Vec<Range<u64>>,
    /// The first of the chunks that lie inside, and how many they are.
    chunks: Option<(u32, u32)>,
}

impl HoleParts {
    /// Bytes beyond `size`, the end of the file, are zeros already.
    fn of(range: Range<u64>, size: u64, chunk_bytes: u64) -> Self {
        let (start, end) = (range.start, range.end.min(size));
        let mut parts = Self { zeros: Vec::new(), chunks: None };
        if start >= end {
            return parts;
        }
        let (first, last) = (start.div_ceil(chunk_bytes), end / chunk_bytes);
        // The last chunk may be short.
        let last = if end == size { end.div_ceil(chunk_bytes) } else { last };
        if first > last {
            parts.zeros.push(start..end);
            return parts;
        }
        parts.zeros.extend([start..(first * chunk_bytes).min(end), (last * chunk_bytes).max(start)..end]);
        parts.zeros.retain(|zeros| zeros.start < zeros.end);
        parts.chunks = (first < last).then_some((first as u32 + 1, (last - first) as u32));
        parts
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;

    type Zeros = Vec<(u64, u64)>;

    fn parts(range: Range<u64>, size: u64) -> (Zeros, Option<(u32, u32)>) {
        let HoleParts { zeros, chunks } = HoleParts::of(range, size, 10);
        (zeros.into_iter().map(|zeros| (zeros.start, zeros.end)).collect(), chunks)
    }

    #[test]
    fn whole_chunks_become_holes_and_the_rest_zeros() {
        assert_eq!(parts(10..30, 100), (vec![], Some((2, 2))));
        assert_eq!(parts(5..37, 100), (vec![(5, 10), (30, 37)], Some((2, 2))));
        assert_eq!(parts(12..18, 100), (vec![(12, 18)], None));
        assert_eq!(parts(8..15, 100), (vec![(8, 10), (10, 15)], None));
        assert_eq!(parts(10..15, 100), (vec![(10, 15)], None));
    }

    #[test]
    fn the_end_of_the_file_ends_the_last_chunk() {
        assert_eq!(parts(20..1000, 55), (vec![], Some((3, 4))));
        assert_eq!(parts(22..55, 55), (vec![(22, 30)], Some((4, 3))));
        assert_eq!(parts(52..70, 55), (vec![(52, 55)], None));
        assert_eq!(parts(55..70, 55), (vec![], None));
        assert_eq!(parts(0..5, 0), (vec![], None));
    }

    #[test]
    fn data_and_holes_are_found() {
        let extent = |first, count| Extent { first, count, version: Version(1) };
        let extents = [extent(3, 2), extent(5, 1), extent(9, 1)];
        assert_eq!((first_data(&extents, 1), first_data(&extents, 4), first_data(&[], 4)), (Some(3), Some(4), None));
        assert_eq!((first_hole(&extents, 1, false), first_hole(&extents, 4, false)), (Some(1), Some(6)));
        assert_eq!((first_hole(&extents[2..], 9, false), first_hole(&extents[2..], 9, true)), (Some(10), None));
    }
}
