//! The network clients that file code needs, as two small traits. Mounts and nodes use the real clients; tests use
//! fakes that delay, fail and reorder.

use std::time::Duration;

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkRef, FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Change, Ino, Query, Reply, SessionId, Time},
};
use futures_util::future::BoxFuture;

use crate::{
    chunk_client::{ChunkClient, LocalChunks, NewChunk},
    session::EventReceipt,
    session::Session,
};

/// What a client will answer.
pub type FsResult<'a, T> = BoxFuture<'a, Result<T, FsError>>;

/// The namespace, as a [`Session`] offers it.
pub trait NamespaceClient: Send + Sync {
    /// See [`Session::apply`].
    fn apply(&self, change: Change) -> FsResult<'_, Reply>;
    /// See [`Session::query`].
    fn query(&self, query: Query) -> FsResult<'_, Answer>;
    /// Like [`Self::query`], about the contents of a file: later changes of its names and attributes may be missing in
    /// the answer. A commit asks so, because those changes may be waiting for it.
    fn query_contents(&self, query: Query) -> FsResult<'_, Answer> {
        self.query(query)
    }
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
    fn is_sole(&self, _ino: Ino) -> bool {
        true
    }
    /// Whether the inode was created here and that is not logged, so that no other mount knows it.
    fn is_unlogged_creation(&self, _ino: Ino) -> bool {
        false
    }
    /// See [`Session::return_leases`].
    fn return_leases(&self, _inos: &[Ino]) {}
    /// See [`Session::note_kernel`].
    fn note_kernel(&self, _time: Duration) {}
    /// A place in the order of this mount's changes for the contents of the file, if they may be logged later than the
    /// program is answered.
    fn reserve(&self, _file: Ino) -> Option<Box<dyn ChangeSlot>> {
        None
    }
    /// Returns when everything that was answered before the call is logged. Reports once what could not be.
    fn sync(&self) -> FsResult<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Forgets all about the inodes, because of what another session does; with `keeps` nothing is forgotten. Returns
    /// when what was changed here before is logged.
    fn let_go(&self, _inos: Vec<Ino>, _keeps: bool) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Forgets everything: events may have been missed.
    fn forget_all(&self) {}
    /// Tells operators if leases have ended under which changes were answered that are not logged.
    fn leases_ended(&self, _inos: &[Ino]) {}
    /// What was answered and is not logged.
    fn unlogged(&self) -> UnloggedChanges {
        UnloggedChanges::default()
    }
}

/// Changes that programs were told of and that are not logged, contents of closed files included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnloggedChanges {
    pub count: usize,
    /// The time since the first of them was answered.
    pub oldest: Duration,
}

/// A place in the order of a mount's changes. Later changes are logged after those that are applied in it, so it holds
/// them up until the last one is known, or it is dropped.
pub trait ChangeSlot: Send + Sync {
    /// Returns when the change is logged. `is_last`: no other one is expected to follow in this place.
    fn apply(&self, change: Change, is_last: bool) -> FsResult<'_, Reply>;
}

/// A namespace in which many changes can be logged at once, as a [`Session`] is.
pub trait ChangeLog: NamespaceClient {
    /// See [`Session::apply_list`].
    fn apply_list(&self, changes: Vec<(Time, Change)>, inos: Vec<Ino>) -> FsResult<'_, Vec<Result<Reply, FsError>>>;
    /// See [`Session::note_created`].
    fn note_created(&self, ino: Ino);
    /// See [`Session::id`].
    fn session(&self) -> SessionId;
}

/// The chunks of all storage nodes, as a [`ChunkClient`] offers them.
pub trait ChunkTransport: Send + Sync {
    /// See [`ChunkClient::put`].
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> FsResult<'_, ()>;
    /// See [`ChunkClient::get`].
    fn get(&self, chunks: Vec<ChunkRef>) -> FsResult<'_, Vec<Bytes>>;
    /// See [`ChunkClient::sync`].
    fn sync<'a>(&'a self, file: &'a FileName, local_copies: &'a dyn LocalChunks) -> FsResult<'a, ()>;
    /// See [`ChunkClient::share_unsynced`]. Nothing, where whatever is stored is durable.
    fn share_unsynced(&self, _from: &FileName, _to: &FileName) {}
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

    fn is_sole(&self, ino: Ino) -> bool {
        Session::is_sole(self, ino)
    }

    fn return_leases(&self, inos: &[Ino]) {
        Session::return_leases(self, inos);
    }

    fn note_kernel(&self, time: Duration) {
        Session::note_kernel(self, time);
    }
}

impl ChangeLog for Session {
    fn apply_list(&self, changes: Vec<(Time, Change)>, inos: Vec<Ino>) -> FsResult<'_, Vec<Result<Reply, FsError>>> {
        Box::pin(async move { Session::apply_list(self, changes, &inos).await })
    }

    fn note_created(&self, ino: Ino) {
        Session::note_created(self, ino);
    }

    fn session(&self) -> SessionId {
        self.id()
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

    fn share_unsynced(&self, from: &FileName, to: &FileName) {
        ChunkClient::share_unsynced(self, from, to);
    }
}
