//! Fetching chunks: from the owner; chunks that it lacks from the next holders, then from the namespace's log, which
//! keeps some until their holders have them, and then from every node. If a holder does not answer soon, the next one
//! is asked, too, and the first complete answer counts.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use chordfs_log::warn_limited;
use chordfs_types::{
    chunk::{CHUNK_BYTES, ChunkId, ChunkRef, take_record},
    chunk_api::{NEIGHBOURS_HEADER, REPLICAS, calls, encode_refs},
    fs_error::FsError,
    namespace::LoggedChunk,
    ring_id::NodeRef,
};
use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use tokio::{
    select,
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use super::{ChunkAttempts, ChunkClient, HEDGE_AFTER, attempt_deadline, batch::KeyedRef};

/// Consecutive attempts in which every member lacks a chunk before the chunk is reported missing.
const ABSENT_ATTEMPTS: u32 = 3;

/// Chunks in one query for what the log keeps, and the time for all such queries of one attempt.
const LOGGED_PAGE: usize = 1024;
const LOG_DEADLINE: Duration = Duration::from_secs(1);

/// Members that are asked for missing chunks at a time.
const MEMBERS_AT_ONCE: usize = 16;

pub(super) type FoundChunks = HashMap<ChunkId, Bytes>;

#[derive(Default)]
pub(super) struct GetAnswer {
    pub records: FoundChunks,
    /// Whether every node that was asked has answered.
    answered: bool,
    /// The chunks that were not found.
    rest: Vec<KeyedRef>,
}

impl GetAnswer {
    /// Adds the answer of other nodes that were asked for the rest.
    fn and(mut self, others: Self) -> Self {
        self.records.extend(others.records);
        Self { records: self.records, answered: self.answered && others.answered, rest: others.rest }
    }
}

impl ChunkClient {
    /// Returns the data of each chunk, in the order of `chunks`.
    ///
    /// Errors, by the deadline: `NoReplica` if no holder of a chunk answers, or all members of the ring answer and none
    /// has it.
    pub async fn get(&self, chunks: &[ChunkRef]) -> Result<Vec<Bytes>, FsError> {
        if chunks.iter().all(|chunk| !chunk.id.version.is_clone()) {
            return self.get_stored(chunks).await;
        }
        self.get_stored(&self.clones.resolve(chunks, self.references.get()).await?).await
    }

    async fn get_stored(&self, chunks: &[ChunkRef]) -> Result<Vec<Bytes>, FsError> {
        let mut found = FoundChunks::with_capacity(chunks.len());
        let mut attempts = ChunkAttempts::new(self.deadline);
        let mut absent_attempts = 0;
        loop {
            let before = found.len();
            let missing = missing_chunks(chunks, &found);
            let attempt = timeout_at(attempts.end, self.attempt_get(missing, &mut found)).await;
            let Some(first) = chunks.iter().find(|chunk| !found.contains_key(&chunk.id)) else { break };
            let count = chunks.iter().filter(|chunk| !found.contains_key(&chunk.id)).count();
            let detail = || format!("chunk {}_chunk_{} and {} more", first.file, first.id.index, count - 1);
            let all_answered = attempt.map_err(|_| FsError::NoReplica { detail: detail() })?;
            absent_attempts = if all_answered && found.len() == before { absent_attempts + 1 } else { 0 };
            if absent_attempts >= ABSENT_ATTEMPTS {
                return Err(FsError::NoReplica { detail: format!("{}: every node answered, none has it", detail()) });
            }
            attempts.pause(detail).await?;
            self.router.clear();
        }
        collect_in_order(chunks, &found)
    }

    /// Asks the holders, then the log, then all members of the ring. Returns true if every one of them answered.
    async fn attempt_get(&self, mut missing: Vec<KeyedRef>, found: &mut FoundChunks) -> bool {
        let holders_answered = self.get_from_holders(&mut missing, found).await;
        self.get_from_log(&mut missing, found).await;
        // When several nodes join at once, none may have received the chunk yet: then no holder has it, but an earlier
        // holder does.
        missing.is_empty() || self.get_from_all_members(missing, found).await && holders_answered
    }

    /// Asks the holders in their order; true if all of them answered.
    async fn get_from_holders(&self, missing: &mut Vec<KeyedRef>, found: &mut FoundChunks) -> bool {
        let answer = self.get_from_others(std::mem::take(missing), Vec::new()).await;
        found.extend(answer.records);
        *missing = answer.rest;
        answer.answered
    }

    /// Gets what the log keeps, as far as the namespace answers soon.
    async fn get_from_log(&self, missing: &mut Vec<KeyedRef>, found: &mut FoundChunks) {
        let Some(namespace) = self.references.get() else { return };
        let end = Instant::now() + LOG_DEADLINE;
        let mut ids: Vec<ChunkId> = missing.iter().map(|(_, chunk)| chunk.id).collect();
        while !ids.is_empty() {
            let mut page = ids.split_off(ids.len().saturating_sub(LOGGED_PAGE));
            let logged = match timeout_at(end, namespace.logged(page.clone())).await {
                Ok(Ok(logged)) => logged,
                failed => {
                    debug!(?failed, "cannot ask the namespace for chunks that its log keeps");
                    break;
                }
            };
            LoggedChunk::drop_answered(&mut page, &logged);
            ids.append(&mut page);
            found.extend(logged.into_iter().map(|LoggedChunk { id, data }| (id, data)));
        }
        missing.retain(|(_, chunk)| !found.contains_key(&chunk.id));
    }

    /// Gets each chunk from its first holder that was not tried yet, or from those after it.
    fn get_from_others(&self, requested: Vec<KeyedRef>, tried: Vec<NodeRef>) -> BoxFuture<'_, GetAnswer> {
        Box::pin(async move {
            if requested.is_empty() || tried.len() == REPLICAS {
                return GetAnswer { answered: true, rest: requested, ..GetAnswer::default() };
            }
            let (groups, exhausted, unrouted) = self.group_by_holder(requested, &tried).await;
            let mut all = GetAnswer { answered: unrouted.is_empty(), rest: unrouted, ..GetAnswer::default() };
            all.rest.extend(exhausted);
            let requests = groups.into_iter().map(|(node, group)| {
                let tried = [&tried[..], &[node]].concat();
                self.get_from(node, group, tried)
            });
            for answer in join_all(requests).await {
                all.records.extend(answer.records);
                all.answered &= answer.answered;
                all.rest.extend(answer.rest);
            }
            all
        })
    }

    /// Gets chunks from this holder. Other untried holders are asked for the chunks that it lacks, or for all if it is
    /// unresponsive.
    async fn get_from(&self, node: NodeRef, group: Vec<KeyedRef>, tried: Vec<NodeRef>) -> GetAnswer {
        let mut first: BoxFuture<'_, _> = Box::pin(self.get_group(node, group.clone()));
        if let Ok(answer) = timeout(HEDGE_AFTER, &mut first).await {
            return self.get_rest(answer, tried).await;
        }
        self.router.note_unresponsive(&node);
        let Ok(_permit) = self.hedged.try_acquire() else { return self.get_rest(first.await, tried).await };
        debug!(%node, "unresponsive; asking other holders, too");
        self.refresh_from_next(&node, &group);
        let mut others = self.get_from_others(group, tried);
        select! {
            answer = &mut first => if answer.rest.is_empty() { answer } else { join_answers(answer, others.await) },
            answer = &mut others => if answer.rest.is_empty() { answer } else { join_answers(answer, first.await) },
        }
    }

    async fn get_rest(&self, mut answer: GetAnswer, tried: Vec<NodeRef>) -> GetAnswer {
        let rest = std::mem::take(&mut answer.rest);
        let others = self.get_from_others(rest, tried).await;
        answer.and(others)
    }

    fn refresh_from_next(&self, node: &NodeRef, group: &[KeyedRef]) {
        let route = group.first().and_then(|(key, _)| self.router.known_routes(std::iter::once(*key)).pop().flatten());
        let next = route.and_then(|route| route.holders.iter().find(|holder| *holder != node).copied());
        next.into_iter().for_each(|next| self.refresh_from(next));
    }

    /// Asks every member of the ring, several at a time; true if all members are known and answered.
    async fn get_from_all_members(&self, missing: Vec<KeyedRef>, found: &mut FoundChunks) -> bool {
        let all = self.all_members().await;
        let mut all_answered = all.is_some();
        let members = all.unwrap_or_else(|| self.router.members());
        let requests = members.into_iter().map(|node| self.get_group(node, missing.clone()));
        let mut answers = stream::iter(requests).buffer_unordered(MEMBERS_AT_ONCE);
        while let Some(answer) = answers.next().await {
            found.extend(answer.records);
            all_answered &= answer.answered;
            if missing.iter().all(|(_, chunk)| found.contains_key(&chunk.id)) {
                return true;
            }
        }
        all_answered
    }

    /// All members of the ring; `None` if that cannot be found out.
    pub(super) async fn all_members(&self) -> Option<Vec<NodeRef>> {
        let members = self.router.all_members().await;
        members.inspect_err(|error| debug!(%error, "not all members of the ring can be found")).ok()
    }

    pub(super) async fn get_group(&self, node: NodeRef, group: Vec<KeyedRef>) -> GetAnswer {
        let refs: Vec<ChunkRef> = group.iter().map(|(_, chunk)| chunk.clone()).collect();
        let deadline = attempt_deadline(refs.len() * CHUNK_BYTES as usize);
        let answer = self.pool.post(node.files_address(), calls::GET, vec![encode_refs(&refs)], deadline).await;
        let records = match answer {
            Ok(answer) if answer.status.is_success() => {
                self.router.note_responsive(&node);
                if let Some(header) = answer.headers.get(NEIGHBOURS_HEADER) {
                    self.learn_from(&node, header.as_bytes());
                }
                read_records(&node, answer.body)
            }
            Ok(answer) => {
                debug!(%node, status = %answer.status, reason = answer.text(), "get refused");
                return GetAnswer { records: FoundChunks::new(), answered: false, rest: group };
            }
            Err(error) => {
                debug!(%node, %error, "get failed");
                self.router.note_unresponsive(&node);
                self.refresh_from_next(&node, &group);
                return GetAnswer { records: FoundChunks::new(), answered: false, rest: group };
            }
        };
        let rest = group.into_iter().filter(|(_, chunk)| !records.contains_key(&chunk.id)).collect();
        GetAnswer { records, answered: true, rest }
    }
}

/// Joins two answers to a request for the same chunks. Chunks that neither has are missing.
fn join_answers(mut one: GetAnswer, other: GetAnswer) -> GetAnswer {
    one.records.extend(other.records);
    one.answered &= other.answered;
    one.rest.retain(|(_, chunk)| !one.records.contains_key(&chunk.id));
    one
}

/// Reads the records of an answer. A damaged record and all after it count as missing, so another holder is asked.
fn read_records(node: &NodeRef, mut body: Bytes) -> FoundChunks {
    let mut records = FoundChunks::new();
    while !body.is_empty() {
        match take_record(&mut body) {
            Ok(record) => drop(records.insert(record.id, record.data)),
            Err(error) => {
                warn_limited!(%node, %error, "cannot decode the records of an answer");
                break;
            }
        }
    }
    records
}

fn missing_chunks(chunks: &[ChunkRef], found: &FoundChunks) -> Vec<KeyedRef> {
    let missing = chunks.iter().filter(|chunk| !found.contains_key(&chunk.id));
    missing.map(|chunk| (chunk.key(), chunk.clone())).collect()
}

fn collect_in_order(chunks: &[ChunkRef], found: &FoundChunks) -> Result<Vec<Bytes>, FsError> {
    chunks
        .iter()
        .map(|chunk| found.get(&chunk.id).cloned())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| FsError::Internal { detail: "a chunk is missing among those found".into() })
}
