//! What the file service needs of the namespace and of the ring's chunks, as two small traits.
//!
//! In a node these are its session and its chunk client; in tests they are maps in memory.

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{ChunkClient, NewChunk},
    session::Session,
};
use chordfs_types::{
    chunk::{ChunkRef, Version},
    fs_error::FsError,
    namespace::{Answer, Change, Query, Reply},
};
use futures_util::future::BoxFuture;

/// See [`Session`] for the promises.
pub trait Namespace: Send + Sync + 'static {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>>;
    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>>;
    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>>;
}

/// See [`ChunkClient`] for the promises.
pub trait Chunks: Send + Sync + 'static {
    fn put(&self, chunks: Vec<NewChunk>, durable: bool) -> BoxFuture<'_, Result<(), FsError>>;
    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>>;
}

impl Namespace for Session {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(Session::apply(self, change))
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(Session::query(self, query))
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(Session::next_version(self))
    }
}

impl Chunks for ChunkClient {
    fn put(&self, chunks: Vec<NewChunk>, durable: bool) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(ChunkClient::put(self, chunks, durable))
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        Box::pin(async move { ChunkClient::get(self, &chunks).await })
    }
}
