//! The batch form of 5058: many chunks a request, bodies as they are stored.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /chunks/put?copies=N&durable=B` | records, one after the other | 204, or one of the errors below |
//! | the same with `copies=3` | | header `x-chordfs-stored`: JSON of `Vec<NodeRef>`, who has all of it by now |
//! | `POST /chunks/get` | postcard of `Vec<ChunkRef>` | 200 with the records that are here, in any order |
//! | `POST /chunks/has` | postcard of `Vec<ChunkRef>` | 200 with one byte each, 1 for here (by the index; a read checks) |
//! | `POST /chunks/has?verify=true` | the same | the same, after reading each: 0 absent, 1 sound, 2 damaged |
//! | `POST /chunks/delete` | postcard of `Vec<ChunkRun>` | 204 |
//! | `POST /chunks/sync` | empty | 200 once all that was acknowledged is on disk, with postcard of [`Synced`] |
//! | `POST /chunks/secure` | postcard of `Vec<ChunkRef>` | 200 with one byte each: [`ABSENT`], [`ON_DISK`] or [`DELETED`] |
//! | `GET /chunks/list?after=A&upto=U&from=TOKEN` | | 200 with postcard of [`ChunkList`]: chunks with keys in `(A, U]` |
//! | `GET /chunks/space` | | 200 with postcard of [`Space`] |
//!
//! `copies=3` goes to the owner, which passes the batch on; `copies=1` is stored here and nowhere else. A node that
//! does not own a key of a `copies=3` batch answers 421 and stores nothing. The body of 421, and of the header
//! `x-chordfs-neighbours` of a get that missed something, is JSON of `Neighbours`. Other errors: 400 a damaged or
//! malformed batch, 503 no quorum of holders, 507 no space; their bodies are one line of text.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chunk::{ChunkRef, ChunkRun};

/// Chunks a batch may carry at most, in any of the calls.
pub const MAX_BATCH_CHUNKS: usize = 8192;
/// Bytes a put may carry, or a get may ask for.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// How many holders a chunk has.
pub const REPLICAS: usize = 3;
/// Header of a get's answer with what the node knows of the ring, when it lacked something.
pub const NEIGHBOURS_HEADER: &str = "x-chordfs-neighbours";

/// Header of a put's answer with the nodes that have stored it.
pub const STORED_HEADER: &str = "x-chordfs-stored";

/// Answers of `/chunks/secure`: not here.
pub const ABSENT: u8 = 0;
/// Here, and on disk.
pub const ON_DISK: u8 = 1;
/// It was here or may have been, and the namespace has had it deleted: nobody needs it any more.
pub const DELETED: u8 = 2;

/// The answer to `/chunks/sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// For how long the node has been running. What it acknowledged in an earlier life, a power cut may have taken.
    pub running_for: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedChunk {
    pub chunk: ChunkRef,
    pub data_bytes: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    pub chunks: Vec<ListedChunk>,
    /// Ask again with this token for what follows; `None` at the end.
    pub next: Option<u64>,
}

/// What a node's disk has for chunks, in bytes of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    pub capacity_bytes: u64,
    pub free_bytes: u64,
}

/// How many of `holders` must have a batch before it is acknowledged: two of three, all of a smaller ring.
pub fn write_quorum(holders: usize) -> usize {
    holders.min(2)
}

pub fn encode_refs(refs: &[ChunkRef]) -> Bytes {
    postcard::to_allocvec(refs).expect("plain data always encodes").into()
}

pub fn encode_runs(runs: &[ChunkRun]) -> Bytes {
    postcard::to_allocvec(runs).expect("plain data always encodes").into()
}

/// Refuses more than [`MAX_BATCH_CHUNKS`].
pub fn decode_batch<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Vec<T>, String> {
    let items: Vec<T> = postcard::from_bytes(body).map_err(|error| format!("the batch does not decode: {error}"))?;
    if items.len() > MAX_BATCH_CHUNKS {
        return Err(format!("the batch names {} chunks, at most {MAX_BATCH_CHUNKS} are allowed", items.len()));
    }
    Ok(items)
}
