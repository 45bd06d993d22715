//! The calls by which two nodes compare their chunks and copy the differences, beside [`crate::chunk_api`] on 5058.
//!
//! A chunk is named as in the index, by key and id without NAME, so a node reads only missing chunks from its disk.
//! Bodies are postcard.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /chunks/digests` | `Vec<RingArc>` | `Vec<ArcSum>`, one for each |
//! | `POST /chunks/ids` | [`IdsRequest`] | [`IdsPage`]: the node's chunks in the arcs |
//! | `POST /chunks/offer?from=N&left=C&left_bytes=B` | `Vec<ChunkAt>` | one byte each: [`HERE`], [`SEND`], [`COMING`] or [`GONE`] |
//! | `POST /chunks/fetch` | `Vec<ChunkAt>` | the records that the node has, in any order |
//! | `POST /chunks/confirm` | `Vec<ChunkAt>` | one byte each, 1: on the disk, read back and sound |
//! | `POST /chunks/gone` | `Vec<ChunkAt>` | empty: the chunks were deleted for good, and the receiver drops its copies |
//!
//! Arcs of one request follow each other clockwise and do not overlap, so no request costs more than one pass through
//! the index. `/chunks/put` takes the query of an offer as well ([`crate::chunk_api::OfferQuery`]). A structure grows
//! at its end only: a reader ignores what follows the part that it knows.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    chunk::ChunkId,
    chunk_api::MAX_BATCH_CHUNKS,
    ring_id::{RingArc, RingId},
};

/// The paths of the calls.
pub mod calls {
    /// Sums up the chunks of each arc.
    pub const DIGESTS: &str = "/chunks/digests";
    /// Lists the chunks of arcs, page by page.
    pub const IDS: &str = "/chunks/ids";
    /// Takes [`crate::chunk_api::OfferQuery`].
    pub const OFFER: &str = "/chunks/offer";
    /// Fetches records.
    pub const FETCH: &str = "/chunks/fetch";
    /// Reads chunks back and reports which are sound on disk.
    pub const CONFIRM: &str = "/chunks/confirm";
    /// Reports chunks that were deleted for good.
    pub const GONE: &str = "/chunks/gone";
}

/// Arcs that a request may name.
pub const MAX_ARCS: usize = 4096;
/// Bytes that the body of any of these requests may have.
pub const MAX_QUESTION_BYTES: usize = 1 << 20;

/// Answer to an offer: the receiver has the chunk already.
pub const HERE: u8 = 0;
/// Answer to an offer: the receiver wants the chunk.
pub const SEND: u8 = 1;
/// Answer to an offer: another node is sending the chunk at present.
pub const COMING: u8 = 2;
/// Answer to an offer: the chunk was deleted for good, which the offering node does not know yet.
pub const GONE: u8 = 3;

/// A chunk as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkAt {
    /// Stored in the index, since it cannot be computed without NAME.
    pub key: RingId,
    /// Sorts the chunks under one key.
    pub id: ChunkId,
    /// Bytes of the record, header included.
    pub bytes: u32,
}

/// The sum of the chunks of an arc. Two holders with equal `count` and `digest` hold the same chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcSum {
    /// Chunks, each version counted by itself.
    pub count: u64,
    /// Bytes of the records, headers included.
    pub bytes: u64,
    /// Independent of order.
    pub digest: u64,
}

impl ArcSum {
    /// Ignores `bytes`, which follow from the chunks.
    pub fn equals(&self, other: &Self) -> bool {
        (self.count, self.digest) == (other.count, other.digest)
    }
}

/// Asks for one page of the chunks in some arcs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsRequest {
    /// Clockwise, without overlap, at most [`MAX_ARCS`].
    pub arcs: Vec<RingArc>,
    /// The last chunk of the previous page; `None` requests the first page.
    pub after: Option<ChunkAt>,
}

/// Chunks in the order of the arcs, within an arc clockwise, under one key by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsPage {
    /// At most [`MAX_BATCH_CHUNKS`]; not empty if there are `more`.
    pub chunks: Vec<ChunkAt>,
    /// There are more chunks after the last one of the page.
    pub more: bool,
}

/// The sort key of a chunk within its arc.
pub fn order_in(arc: RingArc, chunk: &ChunkAt) -> (u32, ChunkId) {
    (arc.after.advance(1).steps_to(chunk.key), chunk.id)
}

/// Postcard, without a version byte.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always encodes")
}

/// Ignores bytes after the value, which a later version may have added.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    postcard::from_bytes(body).map_err(|error| format!("the body does not decode: {error}"))
}

/// Refuses arcs that fail [`check_arcs`].
pub fn decode_arcs(body: &[u8]) -> Result<Vec<RingArc>, String> {
    let arcs: Vec<RingArc> = decode(body)?;
    check_arcs(&arcs).map(|()| arcs)
}

/// Refuses arcs that fail [`check_arcs`], and an `after` that lies in none of them.
pub fn decode_ids_request(body: &[u8]) -> Result<IdsRequest, String> {
    let request: IdsRequest = decode(body)?;
    check_arcs(&request.arcs)?;
    match request.after {
        Some(after) if !request.arcs.iter().any(|arc| arc.contains(after.key)) => {
            Err(format!("key {} to continue after lies in none of the arcs", after.key))
        }
        _ => Ok(request),
    }
}

/// Refuses more than [`MAX_BATCH_CHUNKS`].
pub fn decode_chunks(body: &[u8]) -> Result<Vec<ChunkAt>, String> {
    let chunks: Vec<ChunkAt> = decode(body)?;
    match chunks.len() {
        len if len > MAX_BATCH_CHUNKS => Err(format!("{len} chunks are named, at most {MAX_BATCH_CHUNKS} are allowed")),
        _ => Ok(chunks),
    }
}

/// Checks that each arc begins where the previous one ends or later, and that all together span the circle at most
/// once.
pub fn check_arcs(arcs: &[RingArc]) -> Result<(), String> {
    if arcs.len() > MAX_ARCS {
        return Err(format!("{} arcs are named, at most {MAX_ARCS} are allowed", arcs.len()));
    }
    let gaps: u64 = arcs.windows(2).map(|pair| u64::from(pair[0].upto.steps_to(pair[1].after))).sum();
    let walked = gaps + arcs.iter().map(|arc| arc.len()).sum::<u64>();
    if walked > 1 << 32 { Err("the arcs overlap or do not follow each other clockwise".into()) } else { Ok(()) }
}

/// Checks that a page answers its request: its chunks lie in the arcs, in order, after the previous page.
pub fn check_page(request: &IdsRequest, page: &IdsPage) -> Result<(), String> {
    if page.chunks.len() > MAX_BATCH_CHUNKS {
        return Err(format!("a page of {} chunks, at most {MAX_BATCH_CHUNKS} are allowed", page.chunks.len()));
    }
    if page.more && page.chunks.is_empty() {
        return Err("an empty page claims that there are more chunks".into());
    }
    let mut arcs = request.arcs.iter().enumerate().peekable();
    let mut place = |chunk: &ChunkAt| {
        while arcs.next_if(|(_, arc)| !arc.contains(chunk.key)).is_some() {}
        arcs.peek().map(|(number, arc)| (*number, order_in(**arc, chunk)))
    };
    let mut last = request.after.as_ref().and_then(&mut place);
    for chunk in &page.chunks {
        let here = place(chunk);
        if here.is_none() || here <= last {
            return Err(format!("chunk {:?} of key {} is out of place", chunk.id, chunk.key));
        }
        last = here;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Version;

    fn arc(after: u32, upto: u32) -> RingArc {
        RingArc::new(RingId(after), RingId(upto))
    }

    fn chunk(key: u32, version: u64) -> ChunkAt {
        ChunkAt { key: RingId(key), id: ChunkId { version: Version(version), index: 1 }, bytes: 40 }
    }

    #[test]
    fn arcs_follow_each_other_once_round() {
        for good in [vec![], vec![arc(5, 5)], vec![arc(10, 20), arc(20, 30), arc(40, 9)], vec![arc(u32::MAX, 3)]] {
            assert_eq!(check_arcs(&good), Ok(()), "{good:?}");
        }
        for bad in [
            vec![arc(10, 20), arc(15, 30)],
            vec![arc(10, 20), arc(5, 12)],
            vec![arc(10, 20), arc(10, 20)],
            vec![arc(5, 5), arc(5, 6)],
            vec![arc(1, 2); MAX_ARCS + 1],
        ] {
            check_arcs(&bad).unwrap_err();
        }
    }

    #[test]
    fn hostile_bodies_are_refused() {
        for body in [&[][..], &[0xff; 3], &[0xff; 40], &[5, 1], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(decode_arcs(body).is_err() && decode_chunks(body).is_err(), "{body:?}");
            decode_ids_request(body).unwrap_err();
        }
        decode_chunks(&encode(&vec![chunk(1, 1); MAX_BATCH_CHUNKS + 1])).unwrap_err();
        let outside = IdsRequest { arcs: vec![arc(10, 20)], after: Some(chunk(21, 1)) };
        decode_ids_request(&encode(&outside)).unwrap_err();
    }

    #[test]
    fn fields_that_a_later_version_adds_are_ignored() {
        let mut body = encode(&IdsPage { chunks: vec![chunk(1, 2)], more: true });
        body.extend_from_slice(b"later");
        assert_eq!(decode::<IdsPage>(&body).unwrap().chunks, [chunk(1, 2)]);
    }

    #[test]
    fn a_page_is_checked() {
        let request = IdsRequest { arcs: vec![arc(90, 10), arc(20, 30)], after: Some(chunk(95, 7)) };
        let page = |chunks: &[ChunkAt], more| IdsPage { chunks: chunks.to_vec(), more };
        for good in [page(&[], false), page(&[chunk(95, 8), chunk(3, 1), chunk(3, 2), chunk(21, 1)], true)] {
            assert_eq!(check_page(&request, &good), Ok(()), "{good:?}");
        }
        for bad in [
            page(&[], true),
            page(&[chunk(95, 7)], false),
            page(&[chunk(94, 1)], false),
            page(&[chunk(15, 1)], false),
            page(&[chunk(21, 1), chunk(3, 1)], false),
            page(&[chunk(3, 2), chunk(3, 2)], false),
        ] {
            check_page(&request, &bad).unwrap_err();
        }
    }
}
