//! Stores and fetches chunks: groups them by owner, sends the groups side by side, follows the ring when it moves.
//!
//! A put goes once, to the owner, which passes it on. A get goes to the owner and, for what is missing there, on to the
//! next holders: during a join the new owner may not have been filled yet. Either way what fails is tried again until
//! the deadline, by a route learnt anew.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use hyper::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{
    chunk::{ChunkId, ChunkRef, FileName, chunk_key, encode_record, record_bytes, take_record},
    chunk_api::{MAX_BATCH_CHUNKS, NEIGHBOURS_HEADER, REPLICAS, Space, encode_refs, write_quorum},
    fs_error::FsError,
    http_pool::{HttpAnswer, HttpError, HttpPool},
    ring_id::{Neighbours, NodeRef, RingId},
    router::{Route, Router},
};

/// A batch to one owner is cut at this size: large enough that its round trip does not count, small enough that several
/// are under way.
const BATCH_BYTES: usize = 4 << 20;
/// A single try; a stopped node costs this once, and the ring has dropped it by then.
const TRY_DEADLINE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// When every holder has answered this often, by fresh routes, that it lacks a chunk, then nobody has it.
const ABSENT_ROUNDS: u32 = 4;

#[derive(Clone, Debug)]
pub struct NewChunk {
    pub file: FileName,
    pub id: ChunkId,
    pub data: Bytes,
}

pub struct ChunkClient {
    router: Arc<Router>,
    pool: Arc<HttpPool>,
    deadline: Duration,
    /// Holder sets that were given chunks without `durable` since they were last told to sync.
    unsynced: Mutex<HashSet<Vec<SocketAddr>>>,
}

impl ChunkClient {
    /// Every operation ends by `deadline`.
    pub fn new(router: Arc<Router>, pool: Arc<HttpPool>, deadline: Duration) -> Self {
        Self { router, pool, deadline, unsynced: Mutex::default() }
    }

    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Returns when every chunk has its quorum of holders; with `durable`, on their disks.
    pub async fn put(&self, chunks: Vec<NewChunk>, durable: bool) -> Result<(), FsError> {
        let mut rounds = Rounds::new(self.deadline);
        let mut pending: Vec<Keyed> =
            chunks.into_iter().map(|chunk| (chunk_key(&chunk.file, chunk.id.index), chunk)).collect();
        loop {
            let (groups, unrouted) = self.group_by_owner(pending).await;
            let sent = join_all(groups.into_iter().map(|batch| self.put_batch(batch, durable))).await;
            let mut failure = None;
            pending = unrouted;
            for result in sent {
                match result {
                    Ok(()) => {}
                    Err(PutFailure::Again { group, reason }) => {
                        pending.extend(group);
                        failure = Some(reason);
                    }
                    Err(PutFailure::Final(error)) => return Err(error),
                }
            }
            if pending.is_empty() {
                return Ok(());
            }
            let reason = failure.unwrap_or_else(|| "no route to the owner".into());
            rounds.pause(|| format!("{} chunks not stored, {reason}", pending.len())).await?;
        }
    }

    /// The data of each, in the order asked. `NoReplica` if one of them has no holder that answers by the deadline.
    pub async fn get(&self, chunks: &[ChunkRef]) -> Result<Vec<Bytes>, FsError> {
        let mut found: HashMap<ChunkId, Bytes> = HashMap::with_capacity(chunks.len());
        let mut rounds = Rounds::new(self.deadline);
        // How many holders of a chunk were passed over, in this round.
        let mut missing: Vec<(RingId, ChunkRef)> = chunks.iter().map(|chunk| (chunk.key(), chunk.clone())).collect();
        let mut absent_rounds = 0;
        loop {
            let mut all_answered = true;
            for turn in 0..REPLICAS {
                let (groups, unrouted) = self.group_by_holder(missing, turn).await;
                all_answered &= unrouted.is_empty();
                missing = unrouted;
                let asked = join_all(groups.into_iter().map(|(node, group)| self.get_group(node, group))).await;
                for answer in asked {
                    found.extend(answer.records);
                    all_answered &= answer.answered;
                    missing.extend(answer.rest);
                }
                if missing.is_empty() {
                    return collect(chunks, &found);
                }
            }
            absent_rounds = if all_answered { absent_rounds + 1 } else { 0 };
            let detail = || {
                format!("chunk {}_chunk_{} and {} more", missing[0].1.file, missing[0].1.id.index, missing.len() - 1)
            };
            if absent_rounds >= ABSENT_ROUNDS {
                return Err(FsError::NoReplica {
                    detail: format!("{}: every holder answered and none has it", detail()),
                });
            }
            rounds.pause(detail).await?;
        }
    }

    /// Everything put before through this client is on the disks of its holders when this returns.
    pub async fn sync(&self) -> Result<(), FsError> {
        let sets = std::mem::take(&mut *self.unsynced.lock());
        let result = self.sync_sets(&sets).await;
        if result.is_err() {
            self.unsynced.lock().extend(sets);
        }
        result
    }

    /// What the ring has for file contents, each byte counted once though it is kept by several nodes.
    pub async fn space(&self) -> Result<Space, FsError> {
        if self.router.members().is_empty() {
            self.router.route(RingId(0)).await.map_err(|error| FsError::NoReplica { detail: error.to_string() })?;
        }
        let members = self.router.members();
        let asked = join_all(members.iter().map(|node| self.space_of(node))).await;
        let told: Vec<Space> = asked.into_iter().flatten().collect();
        if told.is_empty() {
            return Err(FsError::NoReplica { detail: "no node said what space it has".into() });
        }
        let copies = members.len().min(REPLICAS) as u64;
        Ok(Space {
            capacity_bytes: told.iter().map(|space| space.capacity_bytes).sum::<u64>() / copies,
            free_bytes: told.iter().map(|space| space.free_bytes).sum::<u64>() / copies,
        })
    }

    async fn space_of(&self, node: &NodeRef) -> Option<Space> {
        let (address, path) = (node.files_address(), "/chunks/space");
        let answer = self.pool.request(address, Method::GET, path, HeaderMap::new(), vec![], TRY_DEADLINE).await;
        postcard::from_bytes(&answer.ok()?.body).ok()
    }

    /// A holder that is gone does not count, as long as each set keeps its quorum.
    async fn sync_sets(&self, sets: &HashSet<Vec<SocketAddr>>) -> Result<(), FsError> {
        let nodes: HashSet<SocketAddr> = sets.iter().flatten().copied().collect();
        let mut open = nodes.clone();
        let mut rounds = Rounds::new(self.deadline);
        loop {
            let asked = open.iter().map(|&node| async move {
                let answer = self.pool.post(node, "/chunks/sync", vec![], self.deadline).await;
                (node, answer)
            });
            let mut gone = HashSet::new();
            for (node, answer) in join_all(asked).await {
                match answer {
                    Ok(answer) if answer.status.is_success() => drop(open.remove(&node)),
                    Ok(answer) => debug!(%node, status = %answer.status, "sync refused"),
                    Err(HttpError::Connect { .. }) => drop(gone.insert(node)),
                    Err(error) => debug!(%node, %error, "sync failed"),
                }
            }
            let enough = |set: &Vec<SocketAddr>| {
                set.iter().all(|node| !open.contains(node) || gone.contains(node))
                    && set.iter().filter(|node| !open.contains(node)).count() >= write_quorum(set.len())
            };
            if sets.iter().all(enough) {
                return Ok(());
            }
            rounds.pause(|| format!("{} holders did not bring their chunks to disk", open.len())).await?;
        }
    }

    async fn put_batch(&self, batch: Batch, durable: bool) -> Result<(), PutFailure> {
        let owner = *batch.route.owner();
        let body = batch.encode();
        let path = if durable { "/chunks/put?copies=3&durable=true" } else { "/chunks/put?copies=3&durable=false" };
        if !durable {
            let holders = batch.route.holders.iter().map(NodeRef::files_address).collect();
            self.unsynced.lock().insert(holders);
        }
        let answer = self.pool.post(owner.files_address(), path, vec![body], TRY_DEADLINE).await;
        let again = |reason| Err(PutFailure::Again { group: batch.chunks, reason });
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => match answer.status {
                StatusCode::MISDIRECTED_REQUEST => {
                    self.learn_from(&owner, &answer.body);
                    again(format!("{owner} is not the owner"))
                }
                StatusCode::INSUFFICIENT_STORAGE => Err(PutFailure::Final(FsError::NoSpace)),
                StatusCode::BAD_REQUEST => Err(PutFailure::Final(refused(&owner, &answer))),
                _ => {
                    self.router.suspect(&owner);
                    again(format!("{owner} answered {}: {}", answer.status, answer.text()))
                }
            },
            Err(error) => {
                self.router.suspect(&owner);
                again(error.to_string())
            }
        }
    }

    async fn get_group(&self, node: NodeRef, group: Vec<(RingId, ChunkRef)>) -> GetAnswer {
        let refs: Vec<ChunkRef> = group.iter().map(|(_, chunk)| chunk.clone()).collect();
        let answer = self.pool.post(node.files_address(), "/chunks/get", vec![encode_refs(&refs)], TRY_DEADLINE).await;
        let records = match answer {
            Ok(answer) if answer.status.is_success() => {
                if let Some(header) = answer.headers.get(NEIGHBOURS_HEADER) {
                    self.learn_from(&node, header.as_bytes());
                }
                read_records(&node, answer.body)
            }
            Ok(answer) => {
                debug!(%node, status = %answer.status, reason = answer.text(), "get refused");
                return GetAnswer { records: HashMap::new(), answered: false, rest: group };
            }
            Err(error) => {
                debug!(%node, %error, "get failed");
                self.router.suspect(&node);
                return GetAnswer { records: HashMap::new(), answered: false, rest: group };
            }
        };
        let rest = group.into_iter().filter(|(_, chunk)| !records.contains_key(&chunk.id)).collect();
        GetAnswer { records, answered: true, rest }
    }

    fn learn_from(&self, node: &NodeRef, json: &[u8]) {
        match serde_json::from_slice::<Neighbours>(json) {
            Ok(neighbours) => self.router.learn(&neighbours),
            Err(error) => {
                debug!(%node, %error, "an answer about the ring does not decode");
                self.router.suspect(node);
            }
        }
    }

    /// Batches that each go to one owner; what has no route yet comes back.
    async fn group_by_owner(&self, chunks: Vec<Keyed>) -> (Vec<Batch>, Vec<Keyed>) {
        let routes = self.routes(chunks.iter().map(|(key, _)| *key)).await;
        let mut batches: HashMap<NodeRef, Vec<Batch>> = HashMap::new();
        let mut unrouted = Vec::new();
        for (keyed, route) in chunks.into_iter().zip(routes) {
            let Some(route) = route else {
                unrouted.push(keyed);
                continue;
            };
            let to_owner = batches.entry(*route.owner()).or_default();
            match to_owner.last_mut().filter(|batch| batch.has_room(&keyed)) {
                Some(batch) => batch.push(keyed),
                None => to_owner.push(Batch::new(route, keyed)),
            }
        }
        (batches.into_values().flatten().collect(), unrouted)
    }

    /// Groups by the holder whose turn it is: 0 the owner, 1 the node after it, and so on.
    async fn group_by_holder(&self, chunks: Vec<(RingId, ChunkRef)>, turn: usize) -> HolderGroups {
        let routes = self.routes(chunks.iter().map(|(key, _)| *key)).await;
        let mut groups: HashMap<NodeRef, Vec<(RingId, ChunkRef)>> = HashMap::new();
        let mut unrouted = Vec::new();
        for (chunk, route) in chunks.into_iter().zip(routes) {
            match route {
                Some(route) => groups.entry(route.holders[turn % route.holders.len()]).or_default().push(chunk),
                None => unrouted.push(chunk),
            }
        }
        let batches = groups.into_iter().flat_map(|(node, group)| {
            let batches: Vec<_> = group.chunks(MAX_BATCH_CHUNKS).map(|batch| (node, batch.to_vec())).collect();
            batches
        });
        (batches.collect(), unrouted)
    }

    /// Fills the gaps of the table by asking, one look-up for each gap and not for each key.
    async fn routes(&self, keys: impl Iterator<Item = RingId> + Clone) -> Vec<Option<Arc<Route>>> {
        let mut routes = self.router.known(keys.clone());
        while let Some((key, _)) = keys.clone().zip(&routes).find(|(_, route)| route.is_none()) {
            if let Err(error) = self.router.route(key).await {
                debug!(%key, %error, "no route");
                break;
            }
            routes = self.router.known(keys.clone());
        }
        routes
    }
}

type Keyed = (RingId, NewChunk);
type HolderGroups = (Vec<(NodeRef, Vec<(RingId, ChunkRef)>)>, Vec<(RingId, ChunkRef)>);

/// Chunks for one owner, in one request.
struct Batch {
    route: Arc<Route>,
    chunks: Vec<Keyed>,
    bytes: usize,
}

impl Batch {
    fn new(route: Arc<Route>, first: Keyed) -> Self {
        let mut batch = Self { route, chunks: Vec::new(), bytes: 0 };
        batch.push(first);
        batch
    }

    fn has_room(&self, (_, chunk): &Keyed) -> bool {
        self.chunks.len() < MAX_BATCH_CHUNKS && self.bytes + record_bytes(&chunk.file, chunk.data.len()) <= BATCH_BYTES
    }

    fn push(&mut self, keyed: Keyed) {
        self.bytes += record_bytes(&keyed.1.file, keyed.1.data.len());
        self.chunks.push(keyed);
    }

    fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.bytes);
        for (key, chunk) in &self.chunks {
            encode_record(&mut body, &chunk.file, chunk.id, *key, &chunk.data);
        }
        body.freeze()
    }
}

enum PutFailure {
    Again { group: Vec<Keyed>, reason: String },
    Final(FsError),
}

struct GetAnswer {
    records: HashMap<ChunkId, Bytes>,
    /// The node answered, whatever it had.
    answered: bool,
    rest: Vec<(RingId, ChunkRef)>,
}

/// What is damaged on the way counts as missing, and so does all after it: another holder is asked.
fn read_records(node: &NodeRef, mut body: Bytes) -> HashMap<ChunkId, Bytes> {
    let mut records = HashMap::new();
    while !body.is_empty() {
        match take_record(&mut body) {
            Ok(record) => drop(records.insert(record.id, record.data)),
            Err(error) => {
                tracing::warn!(%node, %error, "a damaged answer");
                break;
            }
        }
    }
    records
}

fn collect(chunks: &[ChunkRef], found: &HashMap<ChunkId, Bytes>) -> Result<Vec<Bytes>, FsError> {
    chunks
        .iter()
        .map(|chunk| found.get(&chunk.id).cloned())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| FsError::Internal { detail: "a chunk was found and lost again".into() })
}

fn refused(node: &NodeRef, answer: &HttpAnswer) -> FsError {
    FsError::Internal { detail: format!("{node} refused a batch: {}", answer.text()) }
}

/// Pauses between tries, growing, with jitter so that many writers do not come back at once; ends at the deadline.
struct Rounds {
    end: Instant,
    pause: Duration,
}

impl Rounds {
    fn new(deadline: Duration) -> Self {
        Self { end: Instant::now() + deadline, pause: FIRST_PAUSE }
    }

    async fn pause(&mut self, detail: impl FnOnce() -> String) -> Result<(), FsError> {
        if Instant::now() + self.pause > self.end {
            return Err(FsError::NoReplica { detail: detail() });
        }
        sleep(self.pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
