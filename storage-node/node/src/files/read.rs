//! Reading a file, or one chunk of it, as a stream of batches with the next one fetched ahead.
//!
//! A reader sees the commit that was newest when the file was opened. Chunks are never overwritten, so no lock is
//! needed, and the file is held while it is sent (`reading`): it may be removed, or replaced by another file. If it is
//! rewritten in place, the chunks that this replaces are deleted some seconds later, and a reader that still needs them
//! ends with an error; so does one that has to fetch further extents of a changed file. No reader mixes two states.
//! A reader holds at most three batches in memory: one being sent, one waiting, one being fetched.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef},
    chunk_api::MAX_BATCH_CHUNKS,
    fs_error::FsError,
    namespace::{Answer, Attr, Extent, FileKind, Ino, Query},
};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{FileService, reading::ReadingHold, unexpected};

/// Bytes fetched at once, rounded down to whole chunks.
const BATCH_BYTES: u64 = 4 << 20;

/// A file, or a window of it, as of its newest commit.
pub struct ReadableFile {
    pub attr: Attr,
    /// The number of the opened chunk, counted from 1; `None` for the whole file.
    pub chunk: Option<u32>,
    window: Range<u64>,
    reader: FileReader,
}

pub type ByteStream = BoxStream<'static, Result<Bytes, FsError>>;

impl ReadableFile {
    pub(super) async fn whole(service: &FileService, ino: Ino) -> Result<Self, FsError> {
        let reader = FileReader::open(service, ino).await?;
        let attr = reader.attr.clone();
        Ok(Self { window: 0..attr.size, attr, chunk: None, reader })
    }

    /// Opens one chunk. Errors: `NoEntry` beyond the end. Chunk 1 of an empty file exists and is empty.
    pub(super) async fn chunk(service: &FileService, ino: Ino, index: u32) -> Result<Self, FsError> {
        let whole = Self::whole(service, ino).await?;
        let chunk_bytes = u64::from(whole.attr.chunk_bytes);
        let start = u64::from(index.checked_sub(1).ok_or(FsError::NoEntry)?) * chunk_bytes;
        if start >= whole.attr.size && index != 1 {
            return Err(FsError::NoEntry);
        }
        let window = start..whole.attr.size.min(start + chunk_bytes);
        Ok(Self { window, chunk: Some(index), ..whole })
    }

    /// The number of bytes of the file or chunk.
    pub fn size(&self) -> u64 {
        self.window.end - self.window.start
    }

    /// An entity tag, which changes whenever the bytes or the attributes change.
    pub fn tag(&self) -> String {
        let chunk = self.chunk.map(|index| format!("-{index}")).unwrap_or_default();
        entity_tag(&self.attr, &chunk)
    }

    /// The bytes of `range`, which counts from 0 and lies within [`Self::size`]. Holes and the missing rest of short
    /// chunks are zeros. Returns once the first batch has been fetched; a later error ends the stream.
    pub async fn stream(mut self, range: Range<u64>) -> Result<ByteStream, FsError> {
        let mut rest = self.window.start + range.start..self.window.end.min(self.window.start + range.end);
        if rest.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let first = self.reader.next_batch(&mut rest).await?;
        let first = stream::once(async move { Ok(first) });
        if rest.is_empty() {
            return Ok(first.boxed());
        }
        Ok(first.chain(self.reader.read_ahead(rest)).boxed())
    }
}

/// The entity tag of an entry: of a whole file without a suffix.
pub fn entity_tag(attr: &Attr, suffix: &str) -> String {
    format!("\"{:x}-{:x}{suffix}\"", attr.ino.0, attr.change)
}

impl std::fmt::Debug for ReadableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of inode {}", self.window, self.attr.ino.0)
    }
}

struct FileReader {
    service: FileService,
    attr: Attr,
    _hold: ReadingHold,
    /// Ascending, from the first chunk that is still to be read.
    extents: Vec<Extent>,
    /// True if the namespace has more extents.
    more: bool,
}

impl FileReader {
    /// Counts the file as being read before the namespace is queried: if it loses its last name meanwhile, it is either
    /// refused here or held. Errors: `NoEntry` if it has lost it already.
    async fn open(service: &FileService, ino: Ino) -> Result<Self, FsError> {
        let _hold = ReadingHold::new(service, ino);
        let (attr, extents, more) = match service.namespace.query(Query::Open { ino }).await? {
            Answer::Open { attr, extents, more } => (attr, extents, more),
            other => return Err(unexpected("Open", &other)),
        };
        if attr.nlink == 0 {
            return Err(FsError::NoEntry);
        }
        if attr.kind != FileKind::File {
            return Err(FsError::Unsupported { what: format!("reading a {:?} over HTTP", attr.kind) });
        }
        if attr.chunk_bytes == 0 {
            return Err(FsError::Internal { detail: format!("inode {} has chunks of 0 bytes", ino.0) });
        }
        Ok(Self { service: service.clone(), attr, _hold, extents, more })
    }

    fn read_ahead(mut self, mut rest: Range<u64>) -> impl futures_util::Stream<Item = Result<Bytes, FsError>> {
        let (sender, receiver) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while !rest.is_empty() {
                let batch = self.next_batch(&mut rest).await;
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    return;
                }
            }
        });
        let state = (receiver, AbortOnDropHandle::new(task));
        stream::unfold(state, |(mut receiver, task)| async move {
            let batch = receiver.recv().await?;
            Some((batch, (receiver, task)))
        })
    }

    /// Reads one batch from the start of `rest`, and removes it from `rest`.
    async fn next_batch(&mut self, rest: &mut Range<u64>) -> Result<Bytes, FsError> {
        let chunk_bytes = u64::from(self.attr.chunk_bytes);
        let batch_bytes = (BATCH_BYTES / chunk_bytes).clamp(1, MAX_BATCH_CHUNKS as u64) * chunk_bytes;
        let end = rest.end.min((rest.start / batch_bytes + 1) * batch_bytes);
        let range = rest.start..end;
        let chunks = chunk_number(range.start, chunk_bytes)?..=chunk_number(end - 1, chunk_bytes)?;
        self.load_extents(*chunks.start(), *chunks.end()).await?;
        let wanted = self.chunks_between(*chunks.start(), *chunks.end());
        let data = match self.service.chunks.get(wanted.clone()).await {
            Ok(data) => data,
            Err(error) => {
                self.check_unchanged().await?; // Names the cause, if that is a change of the file.
                return Err(error);
            }
        };
        rest.start = end;
        Ok(assemble(range, chunk_bytes, &wanted, &data))
    }

    /// Drops the extents before `first` and fetches those up to `last`.
    async fn load_extents(&mut self, first: u32, last: u32) -> Result<(), FsError> {
        self.extents.retain(|extent| extent.end() > u64::from(first));
        while self.more && self.extents.last().is_none_or(|extent| extent.end() <= u64::from(last)) {
            let from = self.extents.last().map_or(u64::from(first), Extent::end);
            let Ok(from) = u32::try_from(from) else { break };
            let ino = self.attr.ino;
            match self.service.namespace.query(Query::Extents { ino, from }).await? {
                Answer::Extents { extents, more } => {
                    self.more = more && !extents.is_empty();
                    self.extents.extend(extents);
                }
                other => return Err(unexpected("Extents", &other)),
            }
            self.check_unchanged().await?;
        }
        Ok(())
    }

    async fn check_unchanged(&self) -> Result<(), FsError> {
        match self.service.namespace.query(Query::GetAttr { ino: self.attr.ino }).await? {
            Answer::Attr(now) if now.change == self.attr.change => Ok(()),
            // Without a name it is not written to from here on; losing the name was the change.
            Answer::Attr(now) if now.nlink == 0 && (now.size, now.mtime) == (self.attr.size, self.attr.mtime) => Ok(()),
            Answer::Attr(_) => Err(FsError::Conflict { index: self.extents.last().map_or(1, |extent| extent.first) }),
            other => Err(unexpected("GetAttr", &other)),
        }
    }

    fn chunks_between(&self, first: u32, last: u32) -> Vec<ChunkRef> {
        let mut chunks = Vec::new();
        for extent in &self.extents {
            let end = extent.end().min(u64::from(last) + 1);
            for index in u64::from(extent.first.max(first))..end {
                let id = ChunkId { version: extent.version, index: index as u32 };
                chunks.push(ChunkRef { file: self.attr.file.clone(), id });
            }
        }
        chunks
    }
}

fn chunk_number(offset: u64, chunk_bytes: u64) -> Result<u32, FsError> {
    u32::try_from(offset / chunk_bytes + 1).map_err(|_| FsError::FileTooLarge)
}

/// Assembles the bytes of `range` of the file from the chunks that cover it, with zeros in the gaps.
fn assemble(range: Range<u64>, chunk_bytes: u64, chunks: &[ChunkRef], data: &[Bytes]) -> Bytes {
    let mut out = BytesMut::zeroed((range.end - range.start) as usize);
    for (chunk, data) in chunks.iter().zip(data) {
        let chunk_start = u64::from(chunk.id.index - 1) * chunk_bytes;
        let from = range.start.max(chunk_start);
        let to = range.end.min(chunk_start + chunk_bytes.min(data.len() as u64));
        if from < to {
            let source = &data[(from - chunk_start) as usize..(to - chunk_start) as usize];
            out[(from - range.start) as usize..(to - range.start) as usize].copy_from_slice(source);
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chordfs_types::namespace::{Change, Commit, EntryName, RenameMode};

    use super::*;
    use crate::files::{
        FileDefaults, PathTarget, PublishMode,
        fakes::{FakeChunks, FakeNamespace},
    };

    struct Fixture {
        namespace: Arc<FakeNamespace>,
        chunks: Arc<FakeChunks>,
        service: FileService,
    }

    impl Fixture {
        fn new() -> Self {
            let (namespace, chunks) = (Arc::<FakeNamespace>::default(), Arc::<FakeChunks>::default());
            let service = FileService::over(namespace.clone(), chunks.clone(), FileDefaults::default());
            Self { namespace, chunks, service }
        }

        async fn upload(&self, data: Vec<u8>) {
            let mut upload = self.service.begin_upload(&[name()]).await.unwrap();
            upload.write(data.into()).await.unwrap();
            upload.publish(&[name()], PublishMode::Replace).await.unwrap();
        }

        async fn open(&self) -> ReadableFile {
            match self.service.open(&[name()]).await.unwrap() {
                PathTarget::File(file) => *file,
                PathTarget::Directory(_) => panic!("a directory"),
            }
        }

        /// Deletes everything that no file needs, as the namespace does after its graces.
        async fn collect_garbage(&self) {
            tokio::time::sleep(Duration::from_millis(50)).await; // Until a hold was released by its task.
            self.namespace.delete_garbage(&self.chunks);
        }
    }

    fn name() -> EntryName {
        EntryName::new("big").unwrap()
    }

    /// The story: the chunks of a replaced file were deleted after ten seconds, and slow downloads of it broke off.
    #[tokio::test]
    async fn a_download_continues_when_its_file_is_replaced_and_deleted() {
        let fixture = Fixture::new();
        let old: Vec<u8> = (0..24 << 20).map(|at| (at / 4096) as u8).collect();
        fixture.upload(old.clone()).await;
        let file = fixture.open().await;
        let mut stream = file.stream(0..old.len() as u64).await.unwrap();
        let mut read = stream.next().await.unwrap().unwrap().to_vec();
        fixture.upload(b"new".to_vec()).await;
        fixture.collect_garbage().await;
        while let Some(batch) = stream.next().await {
            read.extend_from_slice(&batch.unwrap());
        }
        assert!(read == old);
        drop(stream);
        fixture.collect_garbage().await;
        assert_eq!(fixture.chunks.count(), 1, "the replaced file is still held");
    }

    #[tokio::test]
    async fn a_download_continues_when_its_file_is_removed_by_others() {
        let fixture = Fixture::new();
        fixture.upload(vec![7; 24 << 20]).await;
        let file = fixture.open().await;
        let ino = file.attr.ino;
        let stream = file.stream(0..24 << 20).await.unwrap();
        let unlink = Change::Unlink { parent: Ino::ROOT, name: name(), hold: false };
        fixture.service.namespace.apply(unlink).await.unwrap();
        fixture.service.read.hold_some(&*fixture.service.namespace, [ino]).await;
        fixture.collect_garbage().await;
        assert_eq!(stream.map(|batch| batch.unwrap().len()).fold(0, async |sum, len| sum + len).await, 24 << 20);
    }

    #[tokio::test]
    async fn a_download_continues_when_its_file_is_removed_through_this_node() {
        let fixture = Fixture::new();
        fixture.upload(vec![7; 24 << 20]).await;
        let stream = fixture.open().await.stream(0..24 << 20).await.unwrap();
        fixture.service.remove(&[name()]).await.unwrap();
        fixture.collect_garbage().await;
        assert_eq!(stream.map(|batch| batch.unwrap().len()).fold(0, async |sum, len| sum + len).await, 24 << 20);
    }

    #[tokio::test]
    async fn a_file_counts_as_read_from_its_opening_on() {
        let fixture = Fixture::new();
        fixture.upload(vec![7; 24 << 20]).await;
        let file = fixture.open().await;
        assert!(!fixture.service.read.is_empty(), "a keepalive would report that nothing is open");
        fixture.upload(b"new".to_vec()).await;
        fixture.collect_garbage().await;
        let stream = file.stream(0..24 << 20).await.unwrap();
        assert_eq!(stream.map(|batch| batch.unwrap().len()).fold(0, async |sum, len| sum + len).await, 24 << 20);
        assert!(fixture.service.read.is_empty());
    }

    /// The story: five clients read and replaced ten keys, and some reads were answered with 404.
    #[tokio::test]
    async fn a_file_that_is_replaced_while_it_is_opened_is_the_new_one() {
        let fixture = Fixture::new();
        let other = || EntryName::new("other").unwrap();
        fixture.upload(b"new".to_vec()).await;
        fixture.namespace.rename("big", "other");
        fixture.upload(b"before".to_vec()).await;
        let (parent, new_parent, mode) = (Ino::ROOT, Ino::ROOT, RenameMode::Replace);
        let replace = Change::Rename { parent, name: other(), new_parent, new_name: name(), mode, hold: false };
        fixture.namespace.overtake_open(replace);
        assert_eq!(fixture.open().await.size(), 3);
        fixture.namespace.overtake_open(Change::Unlink { parent, name: name(), hold: false });
        assert!(matches!(fixture.service.open(&[name()]).await, Err(FsError::NoEntry)), "removed and not replaced");
    }

    #[tokio::test]
    async fn a_download_of_a_file_that_is_rewritten_ends_with_an_error() {
        let fixture = Fixture::new();
        fixture.upload(vec![7; 24 << 20]).await;
        let file = fixture.open().await;
        let ino = file.attr.ino;
        let mut stream = file.stream(0..24 << 20).await.unwrap();
        let commit = Commit { restart: Some(4096), ..Commit::default() };
        fixture.service.namespace.apply(Change::Commit { ino, commit }).await.unwrap();
        fixture.namespace.delete_garbage(&fixture.chunks);
        let mut last = None;
        while let Some(batch) = stream.next().await {
            last = Some(batch.map(|bytes| bytes.iter().all(|byte| *byte == 7)));
        }
        assert!(matches!(last, Some(Err(FsError::Conflict { .. }))), "{last:?}");
    }

    /// The story: size and time were compared, which programs set back (`touch -r`), and two states were mixed.
    #[tokio::test]
    async fn a_change_that_keeps_size_and_time_is_noticed_between_two_pages() {
        let fixture = Fixture::new();
        for index in 1..=12 {
            let chunk = chordfs_types::chunk::ChunkName::parse(format!("big_chunk_{index}").as_bytes()).unwrap();
            fixture.service.upload_chunk(&chunk, vec![index as u8; 4000].into()).await.unwrap();
        }
        let mut reader = fixture.open().await.reader;
        let commit = Commit { mtime: Some(reader.attr.mtime), ..Commit::default() };
        fixture.service.namespace.apply(Change::Commit { ino: reader.attr.ino, commit }).await.unwrap();
        let read = reader.next_batch(&mut (0..12 * 4000)).await;
        assert!(matches!(read, Err(FsError::Conflict { .. })), "{read:?}");
    }
}
