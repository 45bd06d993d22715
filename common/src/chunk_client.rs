//! Stores and fetches chunks: groups them by owner, sends the groups side by side, follows the ring when it moves.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    chunk::{ChunkId, ChunkRef, FileName},
    fs_error::FsError,
    router::Router,
};

#[derive(Clone, Debug)]
pub struct NewChunk {
    pub file: FileName,
    pub id: ChunkId,
    pub data: Bytes,
}

pub struct ChunkClient {}

impl ChunkClient {
    /// Every operation ends by `deadline`.
    pub fn new(_router: Arc<Router>, _deadline: Duration) -> Self {
        unimplemented!()
    }

    /// Returns when every chunk has its quorum of holders; with `durable`, on their disks.
    pub async fn put(&self, _chunks: Vec<NewChunk>, _durable: bool) -> Result<(), FsError> {
        unimplemented!()
    }

    /// The data of each, in the order asked. `NoReplica` if one of them has no holder that answers by the deadline.
    pub async fn get(&self, _chunks: &[ChunkRef]) -> Result<Vec<Bytes>, FsError> {
        unimplemented!()
    }

    /// Everything put before through this client is on the disks of its holders when this returns.
    pub async fn sync(&self) -> Result<(), FsError> {
        unimplemented!()
    }
}
