//! Copies of ranges, by copy_file_range(2): whole chunks are cloned at the namespace, which moves no byte and takes no
//! space. The ends of a range that lie within chunks are copied.

use std::ops::Range;

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Change, Ino, Reply},
};

use super::{FileRange, FileSystem, OpenFile, unexpected};

/// Below that copying is as fast: a clone is a logged round trip.
const LEAST_CLONED_BYTES: u64 = 256 << 10;
/// After so many changes of the files' sizes meanwhile the kernel copies.
const MAX_TRIES: usize = 4;

impl FileSystem {
    /// Copies a range of the file `from` to `offset` of the file `to`, up to the end of the source. Returns how many
    /// bytes these are.
    ///
    /// Errors: `Unsupported` if hardly anything can be cloned. The kernel then copies by reading and writing.
    pub async fn copy_range(&self, from: Ino, range: FileRange, to: Ino, offset: u64) -> Result<u64, FsError> {
        let likely = range.len.min(self.open_data(from)?.size().saturating_sub(range.offset));
        if likely > 0 && likely < LEAST_CLONED_BYTES {
            return Err(too_little());
        }
        for _ in 0..MAX_TRIES {
            match self.try_copy(from, range, to, offset).await {
                // One of the files has got another size meanwhile.
                Err(FsError::Conflict { .. }) => {}
                copied => return copied,
            }
        }
        Err(too_little())
    }

    async fn try_copy(&self, from: Ino, range: FileRange, to: Ino, offset: u64) -> Result<u64, FsError> {
        let (source, target) = (self.open_data(from)?, self.open_data(to)?);
        for ino in [from, to] {
            self.commit(ino, Durability::Memory).await?;
        }
        let sizes = (self.attr(from).await?.size, self.attr(to).await?.size);
        let bytes = range.offset..range.end()?.min(sizes.0);
        if bytes.is_empty() {
            return Ok(0);
        }
        let chunk_bytes = source.data.chunk_bytes();
        let parts = CopyParts::of(bytes.clone(), offset, sizes, chunk_bytes)
            .filter(|_| target.data.chunk_bytes() == chunk_bytes)
            .ok_or_else(too_little)?;
        let (source_name, target_name) = (source.latest_attr().file, target.latest_attr().file);
        if sizes.1 > offset {
            // What the target has there may be durable, and is deleted soon.
            self.transfer.sync_stored(&source_name).await?;
        }
        self.transfer.share_unsynced(&source_name, &target_name);
        self.clone_chunks((from, to), &target, &parts, chunk_bytes as u32).await?;
        for end in parts.ends {
            let copied = self.read(from, end.start, (end.end - end.start) as u32).await?;
            self.write(to, offset + (end.start - range.offset), copied).await?;
        }
        Ok(bytes.end - bytes.start)
    }

    async fn clone_chunks(
        &self,
        (from, to): (Ino, Ino),
        target: &OpenFile,
        parts: &CopyParts,
        chunk_bytes: u32,
    ) -> Result<(), FsError> {
        let ClonedChunks { mut from_first, mut first, mut count } = parts.chunks;
        let (size_at_least, mut sizes) = (parts.size_at_least, parts.sizes);
        while count > 0 {
            let change =
                Change::CloneRange { from, from_first, ino: to, first, count, chunk_bytes, size_at_least, sizes };
            let mut cloned = 0;
            self.change_contents(to, target, async {
                match self.namespace.apply(change).await? {
                    Reply::Cloned { attr, count } => {
                        (cloned, sizes.1) = (count, attr.size);
                        Ok(attr)
                    }
                    other => Err(unexpected("cloning", &other)),
                }
            })
            .await?;
            if from == to {
                sizes.0 = sizes.1;
            }
            (from_first, first, count) = (from_first + cloned, first + cloned, count - cloned);
        }
        Ok(())
    }
}

fn too_little() -> FsError {
    FsError::Unsupported { what: "cloning so few chunks, or at other offsets in them".into() }
}

/// How a range is copied.
#[derive(Debug, PartialEq, Eq)]
struct CopyParts {
    chunks: ClonedChunks,
    /// The size of the target with these chunks.
    size_at_least: u64,
    /// Those of the source and of the target, for which the range was divided.
    sizes: (u64, u64),
    /// Bytes of the source before and after these.
    ends: Vec<Range<u64>>,
}

#[derive(Debug, PartialEq, Eq)]
struct ClonedChunks {
    /// The number of the first one in the source.
    from_first: u32,
    /// The number of the first one in the target.
    first: u32,
    count: u32,
}

impl CopyParts {
    /// `None` if too few chunks lie within the range, or they would not lie at chunks of the target.
    fn of(bytes: Range<u64>, offset: u64, sizes: (u64, u64), chunk_bytes: u64) -> Option<Self> {
        if bytes.start % chunk_bytes != offset % chunk_bytes {
            return None;
        }
        let in_target = |at: u64| offset + (at - bytes.start);
        let begin = bytes.start.next_multiple_of(chunk_bytes);
        // A chunk at the end of the source is short, and stays so if it comes to the end of the target.
        let is_at_ends = bytes.end == sizes.0 && in_target(bytes.end) >= sizes.1;
        let end = if is_at_ends { bytes.end } else { bytes.end - bytes.end % chunk_bytes };
        if begin + LEAST_CLONED_BYTES.max(chunk_bytes) > end {
            return None;
        }
        let number = |at: u64| u32::try_from(at / chunk_bytes + 1).ok();
        let count = u32::try_from((end - begin).div_ceil(chunk_bytes)).ok()?;
        let chunks = ClonedChunks { from_first: number(begin)?, first: number(in_target(begin))?, count };
        let ends = [bytes.start..begin, end..bytes.end].into_iter().filter(|end| !end.is_empty()).collect();
        Some(Self { chunks, size_at_least: in_target(end), sizes, ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 100 << 10;

    /// The first chunk in the source and in the target, how many chunks, the size, and the bytes that are copied.
    type Parts = (u32, u32, u32, u64, Vec<Range<u64>>);

    fn parts(bytes: Range<u64>, offset: u64, sizes: (u64, u64)) -> Option<Parts> {
        let CopyParts { chunks, size_at_least, ends, .. } = CopyParts::of(bytes, offset, sizes, CHUNK)?;
        Some((chunks.from_first, chunks.first, chunks.count, size_at_least, ends))
    }

    #[test]
    fn whole_chunks_are_cloned_and_the_ends_copied() {
        let size = 100 * CHUNK;
        assert_eq!(parts(0..5 * CHUNK, 0, (size, 0)), Some((1, 1, 5, 5 * CHUNK, vec![])));
        assert_eq!(parts(CHUNK..5 * CHUNK, 7 * CHUNK, (size, 0)), Some((2, 8, 4, 11 * CHUNK, vec![])));
        let ends = vec![CHUNK - 7..CHUNK, 5 * CHUNK..5 * CHUNK + 3];
        assert_eq!(parts(CHUNK - 7..5 * CHUNK + 3, 8 * CHUNK - 7, (size, 0)), Some((2, 9, 4, 12 * CHUNK, ends)));
    }

    #[test]
    fn a_short_chunk_at_both_ends_is_cloned() {
        let size = 4 * CHUNK + 9;
        assert_eq!(parts(0..size, 0, (size, 0)), Some((1, 1, 5, size, vec![])));
        assert_eq!(parts(0..size, CHUNK, (size, size + CHUNK)), Some((1, 2, 5, size + CHUNK, vec![])));
        // What follows in the target stays.
        let end = || std::iter::once(4 * CHUNK..size).collect();
        assert_eq!(parts(0..size, 0, (size, size + 1)), Some((1, 1, 4, 4 * CHUNK, end())));
        // Not at the end of the source.
        assert_eq!(parts(0..size, 0, (size + 1, 0)), Some((1, 1, 4, 4 * CHUNK, end())));
    }

    #[test]
    fn little_is_copied_and_so_is_what_lies_at_other_offsets() {
        assert_eq!(parts(0..2 * CHUNK, 0, (2 * CHUNK, 0)), None);
        assert_eq!(parts(1..4 * CHUNK - 1, 1, (9 * CHUNK, 0)), None);
        assert_eq!(parts(0..9 * CHUNK, 1, (9 * CHUNK, 0)), None);
    }
}
