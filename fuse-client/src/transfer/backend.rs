//! What transfer needs of the network, as two small traits: the real clients stand behind them in a mount, and a fake
//! that delays, fails and reorders stands behind them in the tests.

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{ChunkClient, Kept, NewChunk},
    session::Session,
};
use chordfs_types::{
    chunk::{ChunkRef, Version},
    fs_error::FsError,
    namespace::{Answer, Change, Query, Reply},
};
use futures_util::future::BoxFuture;

type Answered<'a, T> = BoxFuture<'a, Result<T, FsError>>;

/// See [`ChunkClient`] for what the calls promise.
pub trait ChunkIo: Send + Sync {
    fn put(&self, chunks: Vec<NewChunk>, durable: bool) -> Answered<'_, ()>;
    fn get(&self, chunks: Vec<ChunkRef>) -> Answered<'_, Vec<Bytes>>;
    fn sync<'a>(&'a self, kept: Kept<'a>) -> Answered<'a, ()>;
}

/// See [`Session`] for what the calls promise.
pub trait Namespace: Send + Sync {
    fn apply(&self, change: Change) -> Answered<'_, Reply>;
    fn query(&self, query: Query) -> Answered<'_, Answer>;
    fn next_version(&self) -> Answered<'_, Version>;
}

impl ChunkIo for ChunkClient {
    fn put(&self, chunks: Vec<NewChunk>, durable: bool) -> Answered<'_, ()> {
        Box::pin(ChunkClient::put(self, chunks, durable))
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> Answered<'_, Vec<Bytes>> {
        Box::pin(async move { ChunkClient::get(self, &chunks).await })
    }

    fn sync<'a>(&'a self, kept: Kept<'a>) -> Answered<'a, ()> {
        Box::pin(ChunkClient::sync(self, kept))
    }
}

impl Namespace for Session {
    fn apply(&self, change: Change) -> Answered<'_, Reply> {
        Box::pin(Session::apply(self, change))
    }

    fn query(&self, query: Query) -> Answered<'_, Answer> {
        Box::pin(Session::query(self, query))
    }

    fn next_version(&self) -> Answered<'_, Version> {
        Box::pin(Session::next_version(self))
    }
}
