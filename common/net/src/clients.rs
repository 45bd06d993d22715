//! The network clients that file code needs, as two small traits. Mounts and nodes use the real clients; tests use
//! fakes that delay, fail and reorder.

use std::time::Duration;

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkRef, FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Change, Ino, Query, Reply},
};
use futures_util::future::BoxFuture;

use crate::{
    chunk_client::{ChunkClient, LocalChunks, NewChunk},
    session::EventReceipt,
    session::Session,
};

type FsResult<'a, T> = BoxFuture<'a, Result<T, FsError>>;

/// The namespace, as a [`Session`] offers it.
pub trait NamespaceClient: Send + Sync {
    /// See [`Session::apply`].
    fn apply(&self, change: Change) -> FsResult<'_, Reply>;
    /// See [`Session::query`].
    fn query(&self, query: Query) -> FsResult<'_, Answer>;
    /// See [`Session::next_version`].
    fn next_version(&self) -> FsResult<'_, Version>;
    /// See [`Session::event_receipt`].
    fn event_receipt(&self) -> EventReceipt {
        EventReceipt::none()
    }
    /// See [`Session::own_change_receipt`].
    fn own_change_receipt(&self) -> EventReceipt {
        EventReceipt::none()
    }
    /// See [`Session::note_handled`].
    fn note_handled(&self) {}
    /// See [`Session::memory_usable_for`]. For ever, if nobody else changes anything.
    fn memory_usable_for(&self) -> Duration {
        Duration::MAX
    }
    /// See [`Session::is_sole`].
    fn is_sole(&self, _directory: Ino) -> bool {
        true
    }
    /// See [`Session::note_kernel`].
    fn note_kernel(&self, _time: Duration) {}
}

/// The chunks of all storage nodes, as a [`ChunkClient`] offers them.
pub trait ChunkTransport: Send + Sync {
    /// See [`ChunkClient::put`].
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> FsResult<'_, ()>;
    /// See [`ChunkClient::get`].
    fn get(&self, chunks: Vec<ChunkRef>) -> FsResult<'_, Vec<Bytes>>;
    /// See [`ChunkClient::sync`].
    fn sync<'a>(&'a self, file: &'a FileName, local_copies: &'a dyn LocalChunks) -> FsResult<'a, ()>;
}

impl NamespaceClient for Session {
    fn apply(&self, change: Change) -> FsResult<'_, Reply> {
        Box::pin(Session::apply(self, change))
    }

    fn query(&self, query: Query) -> FsResult<'_, Answer> {
        Box::pin(Session::query(self, query))
    }

    fn next_version(&self) -> FsResult<'_, Version> {
        Box::pin(Session::next_version(self))
    }

    fn event_receipt(&self) -> EventReceipt {
        Session::event_receipt(self)
    }

    fn own_change_receipt(&self) -> EventReceipt {
        Session::own_change_receipt(self)
    }

    fn note_handled(&self) {
        Session::note_handled(self);
    }

    fn memory_usable_for(&self) -> Duration {
        Session::memory_usable_for(self)
    }

    fn is_sole(&self, directory: Ino) -> bool {
        Session::is_sole(self, directory)
    }

    fn note_kernel(&self, time: Duration) {
        Session::note_kernel(self, time);
    }
}

impl ChunkTransport for ChunkClient {
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> FsResult<'_, ()> {
        Box::pin(ChunkClient::put(self, chunks, durability))
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> FsResult<'_, Vec<Bytes>> {
        Box::pin(async move { ChunkClient::get(self, &chunks).await })
    }

    fn sync<'a>(&'a self, file: &'a FileName, local_copies: &'a dyn LocalChunks) -> FsResult<'a, ()> {
        Box::pin(ChunkClient::sync(self, file, local_copies))
    }
}
