//! The store as a whole, from its public calls and from the files it leaves.

mod basics;
mod cache;
mod crash;
mod damage;
mod model;
mod moving;
mod power_cut;
mod scrubbing;
mod space;
mod walking;

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use chordfs_types::{
    chunk::{
        ChunkId, ChunkRef, ChunkRun, FileName, Record, VerifiedBatch, Version, chunk_key, encode_record, take_record,
    },
    chunk_api::Durability,
    ring_id::{RingArc, RingId},
};
use tempfile::TempDir;

use super::{DataFolder, Store, StoreError, StoreOptions};

/// A store in a folder of its own.
struct Fixture {
    dir: TempDir,
    options: StoreOptions,
    store: Option<Store>,
}

impl Fixture {
    fn new(options: StoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(open(dir.path(), &options));
        Self { dir, options, store }
    }

    /// One segment writer and no reserve, so a test knows where records lie.
    fn plain() -> Self {
        Self::new(plain_options())
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) -> &Store {
        self.close();
        self.store = Some(open(self.dir.path(), &self.options));
        self.store()
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn chunks(&self) -> PathBuf {
        self.dir.path().join("chunks")
    }

    /// Names of the files in `chunks`, sorted.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.chunks()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Store {
    /// False if there was nothing to do.
    fn compact_step(&self) -> Result<bool, StoreError> {
        Ok(self.compact()?.is_some())
    }
}

fn plain_options() -> StoreOptions {
    StoreOptions { segment_writers: 1, reserve_bytes: 0, ..StoreOptions::default() }
}

fn open(dir: &Path, options: &StoreOptions) -> Store {
    Store::open(&DataFolder::open(dir).unwrap(), options.clone()).unwrap()
}

fn file(name: &str) -> FileName {
    FileName::new(name.to_owned()).unwrap()
}

fn chunk(name: &str, index: u32, version: u64) -> ChunkRef {
    ChunkRef { file: file(name), id: ChunkId { version: Version(version), index } }
}

fn run(name: &str, first: u32, count: u32, version: u64) -> ChunkRun {
    ChunkRun { file: file(name), first, count, version: Version(version) }
}

/// What the tests store under a chunk's name: `len` bytes that differ from chunk to chunk.
fn data_of(chunk: &ChunkRef, len: usize) -> Vec<u8> {
    let seed = chunk.id.version.0.wrapping_mul(31).wrapping_add(u64::from(chunk.id.index));
    (0..len as u64).map(|at| (seed.wrapping_mul(2654435761).wrapping_add(at * at) >> 5) as u8).collect()
}

fn batch(chunks: &[ChunkRef], len: usize) -> VerifiedBatch {
    let mut out = BytesMut::new();
    for chunk in chunks {
        encode_record(&mut out, &chunk.file, chunk.id, chunk.key(), &data_of(chunk, len));
    }
    VerifiedBatch::verify(out.freeze()).unwrap()
}

/// What a get brings, each record checked.
fn fetch(store: &Store, wanted: &[ChunkRef]) -> Vec<Record> {
    let mut records = Vec::new();
    for mut piece in store.get(wanted).unwrap() {
        while !piece.is_empty() {
            records.push(take_record(&mut piece).unwrap());
        }
    }
    records
}

/// Which of `wanted` a get brings, with the bytes that `data_of` says.
fn present(store: &Store, wanted: &[ChunkRef]) -> Vec<bool> {
    let records = fetch(store, wanted);
    let found = |chunk: &ChunkRef| {
        let record = records.iter().find(|record| record.id == chunk.id && record.file == chunk.file)?;
        assert_eq!(record.data, data_of(chunk, record.data.len()), "{chunk:?}");
        Some(record)
    };
    wanted.iter().map(|chunk| found(chunk).is_some()).collect()
}

fn whole() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}

fn list_all(store: &Store, arc: RingArc, limit: usize) -> Vec<ChunkRef> {
    let (mut all, mut token) = (Vec::new(), 0);
    loop {
        let page = store.list(arc, token, limit).unwrap();
        assert!(page.chunks.len() <= limit);
        all.extend(page.chunks.into_iter().map(|listed| listed.chunk));
        match page.next {
            Some(next) => token = next,
            None => return all,
        }
    }
}

fn sorted(mut chunks: Vec<ChunkRef>) -> Vec<ChunkRef> {
    chunks.sort_by(|a, b| (a.id, a.file.as_bytes()).cmp(&(b.id, b.file.as_bytes())));
    chunks
}

fn numbered(name: &str, indexes: impl IntoIterator<Item = u32>, version: u64) -> Vec<ChunkRef> {
    indexes.into_iter().map(|index| chunk(name, index, version)).collect()
}
