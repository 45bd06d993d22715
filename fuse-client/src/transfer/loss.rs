//! Chunks that every holder has lost before they were on disk. A sync reports them once, by the name of their file, and
//! from then on they count as synced. Several inodes may have chunks of one name: a file that lost its name while it
//! was open, and the one that has taken its place. So whichever of them receives the report, all of them discard what
//! they have stored and not committed; otherwise the next commit would name a chunk that no node has. A lost chunk
//! whose bytes were written again is not reported.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use chordfs_net::chunk_client::LocalChunks;
use chordfs_types::{
    chunk::{ChunkId, FileName},
    fs_error::FsError,
};

use super::{FileData, Transfer};

impl Transfer {
    pub(super) fn discard_lost(&self, name: &FileName, error: &FsError) {
        let live: Vec<Arc<FileData>> = self.files.lock().values().filter_map(Weak::upgrade).collect();
        for file in live {
            let is_affected = file.state.lock().may_have_lost(name);
            if is_affected {
                file.discard_data(error.clone());
            }
        }
    }
}

impl LocalChunks for FileData {
    fn copy(&self, id: ChunkId) -> Option<Bytes> {
        self.transfer.cache.get(id)
    }

    fn is_superseded(&self, id: ChunkId) -> bool {
        let state = self.state.lock();
        state.is_superseded(id) || self.transfer.discards.contains(&state.attr().file, id)
    }
}
