//! The batch form of 5058: many chunks a request, records as they are stored. Both ends of a call take its path from
//! [`calls`], and its query, where it has one, from the type that builds and reads it.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /chunks/put?copies=N&durable=B` | records, one after the other | 204, or one of the errors below |
//! | with `copies=3` | | header `x-chordfs-stored`: JSON of `Vec<NodeRef>`, the nodes that have stored the whole batch |
//! | `POST /chunks/get` | postcard of `Vec<ChunkRef>` | 200 with the records that the node has, in any order |
//! | `POST /chunks/has` | postcard of `Vec<ChunkRef>` | 200 with one byte each: 1 if the index has the chunk, else 0 |
//! | `POST /chunks/has?verify=true` | postcard of `Vec<ChunkRef>` | one byte each, after reading it: 0 absent, 1 sound, 2 damaged |
//! | `POST /chunks/delete` | postcard of `Vec<ChunkRun>` | 204 |
//! | `POST /chunks/sync` | empty | 200 once all that was acknowledged is on disk, with postcard of [`Synced`] |
//! | `POST /chunks/secure` | postcard of `Vec<ChunkRef>` | 200 with one byte each: [`ABSENT`], [`ON_DISK`] or [`DELETED`] |
//! | `GET /chunks/list?after=A&upto=U&from=TOKEN` | | 200 with postcard of [`ChunkList`]: chunks with keys in `(A, U]` |
//! | `GET /chunks/digest?after=A&upto=U` | | 200 with postcard of [`ArcDigest`] |
//! | `GET /chunks/space` | | 200 with postcard of [`Space`] |
//!
//! `copies=3` goes to the owner, which passes the batch on; `copies=1` is stored on the receiving node only. A node
//! that does not own a key of a `copies=3` batch answers 421 and stores nothing. The body of 421, and the header
//! `x-chordfs-neighbours` of a get that missed a chunk, are JSON of `Neighbours`. Other errors: 400 a damaged or
//! malformed batch, 409 other bytes than those stored under the same id, 503 no quorum of holders or too much under
//! way, 507 no space; their bodies are one line of text.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    chunk::{ChunkRef, ChunkRun},
    ring_id::{RingArc, RingId},
};

/// The paths of the calls.
pub mod calls {
    /// See [`super::PutQuery`].
    pub const PUT: &str = "/chunks/put";
    /// Fetches records.
    pub const GET: &str = "/chunks/get";
    /// See [`super::HasQuery`].
    pub const HAS: &str = "/chunks/has";
    /// Deletes runs of chunks.
    pub const DELETE: &str = "/chunks/delete";
    /// Brings everything acknowledged so far to disk.
    pub const SYNC: &str = "/chunks/sync";
    /// Brings the named chunks to disk and reports which are there.
    pub const SECURE: &str = "/chunks/secure";
    /// See [`super::ListQuery`].
    pub const LIST: &str = "/chunks/list";
    /// See [`super::DigestQuery`].
    pub const DIGEST: &str = "/chunks/digest";
    /// Reports capacity and free space.
    pub const SPACE: &str = "/chunks/space";
}

/// Chunks that a batch of any call may carry.
pub const MAX_BATCH_CHUNKS: usize = 8192;
/// Bytes that a put may carry, or a get may request.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// How many holders a chunk has.
pub const REPLICAS: usize = 3;
/// Header of the answer to a get that missed a chunk: the node's `Neighbours`.
pub const NEIGHBOURS_HEADER: &str = "x-chordfs-neighbours";

/// Header of the answer to a put with the nodes that have stored the batch.
pub const STORED_HEADER: &str = "x-chordfs-stored";

/// Answer of [`calls::SECURE`]: the chunk is not on this node.
pub const ABSENT: u8 = 0;
/// Answer of [`calls::SECURE`]: the chunk is on this node's disk.
pub const ON_DISK: u8 = 1;
/// Answer of [`calls::SECURE`]: the namespace has had the chunk deleted, so no file needs it.
pub const DELETED: u8 = 2;

/// Where a chunk has to be before a put of it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Durability {
    /// In the memory of its holders; a later sync brings it to their disks.
    #[default]
    Memory,
    /// On the disks of its holders.
    Disk,
}

impl Durability {
    /// Whether an acknowledged chunk survives a power cut.
    pub fn is_disk(self) -> bool {
        self == Self::Disk
    }
}

impl From<bool> for Durability {
    fn from(durable: bool) -> Self {
        if durable { Self::Disk } else { Self::Memory }
    }
}

impl From<Durability> for bool {
    fn from(durability: Durability) -> bool {
        durability.is_disk()
    }
}

/// The query of [`calls::PUT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct PutQuery {
    /// [`Self::LOCAL`] or [`Self::AS_OWNER`]; a node refuses anything else.
    pub copies: u8,
    /// [`Durability::Memory`] where the query does not have it.
    #[serde(default, rename = "durable")]
    pub durability: Durability,
    from: Option<RingId>,
    #[serde(default)]
    left: u64,
    #[serde(default)]
    left_bytes: u64,
}

impl PutQuery {
    /// `copies`: the node stores the batch itself and passes it on to no other.
    pub const LOCAL: u8 = 1;
    /// `copies`: the node owns the keys of the batch and passes it on to the other holders.
    pub const AS_OWNER: u8 = REPLICAS as u8;

    /// Stores the batch at this node only.
    pub fn local(durability: Durability) -> Self {
        Self { copies: Self::LOCAL, durability, from: None, left: 0, left_bytes: 0 }
    }

    /// Stores the batch at this node and at the holders after it.
    pub fn as_owner(durability: Durability) -> Self {
        Self { copies: Self::AS_OWNER, ..Self::local(durability) }
    }

    /// Sends the chunks of an offer that a node has accepted.
    pub fn accepted(offer: OfferQuery) -> Self {
        let OfferQuery { from, left, left_bytes } = offer;
        Self { from: Some(from), left, left_bytes, ..Self::local(Durability::Disk) }
    }

    /// The offer that this put follows, if any.
    pub fn offer(&self) -> Option<OfferQuery> {
        self.from.map(|from| OfferQuery { from, left: self.left, left_bytes: self.left_bytes })
    }

    /// Path and query.
    pub fn target(&self) -> String {
        let target = format!("{}?copies={}&durable={}", calls::PUT, self.copies, self.durability.is_disk());
        match self.offer() {
            Some(offer) => format!("{target}&{offer}"),
            None => target,
        }
    }
}

/// The query of [`calls::HAS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HasQuery {
    /// Reads each chunk and checks it, instead of looking it up in the index.
    #[serde(default)]
    pub verify: bool,
}

impl HasQuery {
    /// Path and query.
    pub fn target(&self) -> String {
        if self.verify { format!("{}?verify=true", calls::HAS) } else { calls::HAS.to_owned() }
    }
}

/// The query of [`calls::LIST`]: one page of the chunks with keys in `(after, upto]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ListQuery {
    after: RingId,
    upto: RingId,
    /// 0, or [`ChunkList::next`] of the previous page.
    #[serde(default)]
    pub from: u64,
}

impl ListQuery {
    /// The page of the chunks in `arc` that begins at the token `from`.
    pub fn new(arc: RingArc, from: u64) -> Self {
        Self { after: arc.after, upto: arc.upto, from }
    }

    /// The arc whose chunks are listed.
    pub fn arc(&self) -> RingArc {
        RingArc::new(self.after, self.upto)
    }

    /// Path and query.
    pub fn target(&self) -> String {
        format!("{}?after={}&upto={}&from={}", calls::LIST, self.after, self.upto, self.from)
    }
}

/// The query of [`calls::DIGEST`]: the chunks with keys in `(after, upto]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct DigestQuery {
    after: RingId,
    upto: RingId,
}

impl DigestQuery {
    /// The digest of the chunks in `arc`.
    pub fn new(arc: RingArc) -> Self {
        Self { after: arc.after, upto: arc.upto }
    }

    /// The arc whose chunks are counted.
    pub fn arc(&self) -> RingArc {
        RingArc::new(self.after, self.upto)
    }

    /// Path and query.
    pub fn target(&self) -> String {
        format!("{}?after={}&upto={}", calls::DIGEST, self.after, self.upto)
    }
}

/// The number of chunks in an arc and a digest of them that does not depend on their order: equal means equal sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcDigest {
    /// Chunks, each version counted by itself.
    pub count: u64,
    /// Wrapping sum of a fingerprint of each key and id; 0 for an empty arc.
    pub digest: u64,
}

/// The answer to [`calls::SYNC`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// The time since the node started. A power cut before that may have lost chunks that it had acknowledged.
    pub running_for: Duration,
}

/// One chunk of a [`ChunkList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedChunk {
    /// NAME is read from the record, so that the receiver can compute the key.
    pub chunk: ChunkRef,
    /// Without the record's header and NAME.
    pub data_bytes: u32,
}

/// One page of the chunks in an arc, in no order. A chunk that compaction moves between two pages may be on both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    /// May be empty even if there are more pages.
    pub chunks: Vec<ListedChunk>,
    /// The token of the next page; `None` at the end.
    pub next: Option<u64>,
}

/// How many of `holders` must have a batch before it is acknowledged: two, or all of fewer than two.
pub fn write_quorum(holders: usize) -> usize {
    holders.min(2)
}

/// The body of a get, has or secure.
pub fn encode_refs(refs: &[ChunkRef]) -> Bytes {
    postcard::to_allocvec(refs).expect("plain data always encodes").into()
}

/// The body of a delete.
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

/// The query of [`compare_api::calls::OFFER`](crate::compare_api::calls::OFFER), and of a put that sends the accepted
/// chunks of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct OfferQuery {
    /// The position of the offering node.
    pub from: RingId,
    /// Chunks that the node has still to send, the offer included.
    #[serde(default)]
    pub left: u64,
    /// Bytes that the node has still to send, the offer included.
    #[serde(default)]
    pub left_bytes: u64,
}

impl fmt::Display for OfferQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from={}&left={}&left_bytes={}", self.from, self.left, self.left_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(target: &str) -> T {
        serde_urlencoded::from_str(target.split_once('?').map_or("", |(_, query)| query)).unwrap()
    }

    #[test]
    fn targets_read_back() {
        let offer = OfferQuery { from: RingId(7), left: 3, left_bytes: 300 };
        for query in
            [PutQuery::local(Durability::Memory), PutQuery::as_owner(Durability::Disk), PutQuery::accepted(offer)]
        {
            assert_eq!(read::<PutQuery>(&query.target()), query);
        }
        for query in [HasQuery { verify: false }, HasQuery { verify: true }] {
            assert_eq!(read::<HasQuery>(&query.target()), query);
        }
        let arc = RingArc::new(RingId(u32::MAX), RingId(5));
        assert_eq!(read::<ListQuery>(&ListQuery::new(arc, 9).target()), ListQuery::new(arc, 9));
        assert_eq!(read::<DigestQuery>(&DigestQuery::new(arc).target()).arc(), arc);
        assert_eq!(read::<OfferQuery>(&format!("?{offer}")), offer);
    }

    #[test]
    fn targets_are_those_that_other_versions_send_and_read() {
        let offer = OfferQuery { from: RingId(7), left: 3, left_bytes: 300 };
        assert_eq!(PutQuery::as_owner(Durability::Memory).target(), "/chunks/put?copies=3&durable=false");
        assert_eq!(
            PutQuery::accepted(offer).target(),
            "/chunks/put?copies=1&durable=true&from=7&left=3&left_bytes=300"
        );
        assert_eq!(offer.to_string(), "from=7&left=3&left_bytes=300");
        assert_eq!(HasQuery { verify: true }.target(), "/chunks/has?verify=true");
        assert_eq!(read::<PutQuery>("?copies=3"), PutQuery::as_owner(Durability::Memory));
        assert_eq!(read::<OfferQuery>("?from=7"), OfferQuery { left: 0, left_bytes: 0, ..offer });
    }
}
