//! Fetching: from the owner, then from the next holders what it lacks, then from every node. A holder that does not
//! answer at once is not waited for: the next is asked as well, and the first answer counts.

use std::collections::HashMap;

use bytes::Bytes;
use chordfs_types::{
    chunk::{CHUNK_BYTES, ChunkId, ChunkRef, take_record},
    chunk_api::{NEIGHBOURS_HEADER, REPLICAS, calls, encode_refs},
    fs_error::FsError,
    ring_id::NodeRef,
};
use futures_util::future::{BoxFuture, join_all};
use tokio::{select, time::timeout};
use tracing::{debug, warn};

use super::{ChunkClient, PATIENCE, Rounds, batch::KeyedRef, try_deadline};

/// Rounds in which every member answers that it lacks a chunk before the chunk is reported missing.
const ABSENT_ROUNDS: u32 = 3;

pub(super) type FoundChunks = HashMap<ChunkId, Bytes>;

#[derive(Default)]
pub(super) struct GetAnswer {
    pub records: FoundChunks,
    /// Every node that was asked has answered.
    answered: bool,
    rest: Vec<KeyedRef>,
}

impl GetAnswer {
    /// What others had of the rest.
    fn and(mut self, others: Self) -> Self {
        self.records.extend(others.records);
        Self { records: self.records, answered: self.answered && others.answered, rest: others.rest }
    }
}

impl ChunkClient {
    /// The data of each, in the order asked. `NoReplica` if one of them has no holder that answers by the deadline, or
    /// all members answer and none has it.
    pub async fn get(&self, chunks: &[ChunkRef]) -> Result<Vec<Bytes>, FsError> {
        let mut found = FoundChunks::with_capacity(chunks.len());
        let mut rounds = Rounds::new(self.deadline);
        let mut missing: Vec<KeyedRef> = chunks.iter().map(|chunk| (chunk.key(), chunk.clone())).collect();
        let mut absent_rounds = 0;
        while !missing.is_empty() {
            let before = missing.len();
            let mut all_answered = self.get_from_holders(&mut missing, &mut found).await;
            // When several nodes join at once, none may have been filled yet: then no holder has the chunk, but a node
            // that held it before does.
            all_answered &= self.get_from_anybody(&mut missing, &mut found).await;
            let Some((_, first)) = missing.first() else { break };
            let detail = || format!("chunk {}_chunk_{} and {} more", first.file, first.id.index, missing.len() - 1);
            absent_rounds = if all_answered && missing.len() == before { absent_rounds + 1 } else { 0 };
            if absent_rounds >= ABSENT_ROUNDS {
                return Err(FsError::NoReplica { detail: format!("{}: every node answered, none has it", detail()) });
            }
            rounds.pause(detail).await?;
            self.router.forget_all();
        }
        collect(chunks, &found)
    }

    /// Asks the holders in their order; true if each of them answered.
    async fn get_from_holders(&self, missing: &mut Vec<KeyedRef>, found: &mut FoundChunks) -> bool {
        let answer = self.get_from_others(std::mem::take(missing), Vec::new()).await;
        found.extend(answer.records);
        *missing = answer.rest;
        answer.answered
    }

    /// From the first holder of each that was not tried yet, and those after it.
    fn get_from_others(&self, wanted: Vec<KeyedRef>, tried: Vec<NodeRef>) -> BoxFuture<'_, GetAnswer> {
        Box::pin(async move {
            if wanted.is_empty() || tried.len() == REPLICAS {
                return GetAnswer { answered: true, rest: wanted, ..GetAnswer::default() };
            }
            let (groups, exhausted, unrouted) = self.group_by_holder(wanted, &tried).await;
            let mut all = GetAnswer { answered: unrouted.is_empty(), rest: unrouted, ..GetAnswer::default() };
            all.rest.extend(exhausted);
            let asked = groups.into_iter().map(|(node, group)| {
                let tried = [&tried[..], &[node]].concat();
                self.get_from(node, group, tried)
            });
            for answer in join_all(asked).await {
                all.records.extend(answer.records);
                all.answered &= answer.answered;
                all.rest.extend(answer.rest);
            }
            all
        })
    }

    /// From this holder; from others that were not tried what it lacks, and everything while it is silent.
    async fn get_from(&self, node: NodeRef, group: Vec<KeyedRef>, tried: Vec<NodeRef>) -> GetAnswer {
        let mut first: BoxFuture<'_, _> = Box::pin(self.get_group(node, group.clone()));
        if let Ok(answer) = timeout(PATIENCE, &mut first).await {
            return self.get_rest(answer, tried).await;
        }
        self.router.note_unresponsive(&node);
        let Ok(_permit) = self.doubled.try_acquire() else { return self.get_rest(first.await, tried).await };
        debug!(%node, "silent; asking other holders as well");
        self.refresh_from_next(&node, &group);
        let mut others = self.get_from_others(group, tried);
        select! {
            answer = &mut first => if answer.rest.is_empty() { answer } else { intersect(answer, others.await) },
            answer = &mut others => if answer.rest.is_empty() { answer } else { intersect(answer, first.await) },
        }
    }

    async fn get_rest(&self, mut answer: GetAnswer, tried: Vec<NodeRef>) -> GetAnswer {
        let rest = std::mem::take(&mut answer.rest);
        let others = self.get_from_others(rest, tried).await;
        answer.and(others)
    }

    fn refresh_from_next(&self, node: &NodeRef, group: &[KeyedRef]) {
        let route = group.first().and_then(|(key, _)| self.router.known(std::iter::once(*key)).pop().flatten());
        let next = route.and_then(|route| route.holders.iter().find(|holder| *holder != node).copied());
        next.into_iter().for_each(|next| self.refresh_from(next));
    }

    /// Asks every member that is known; true if each of them answered.
    async fn get_from_anybody(&self, missing: &mut Vec<KeyedRef>, found: &mut FoundChunks) -> bool {
        let mut all_answered = true;
        for node in self.router.members() {
            if missing.is_empty() {
                break;
            }
            let answer = self.get_group(node, std::mem::take(missing)).await;
            found.extend(answer.records);
            all_answered &= answer.answered;
            *missing = answer.rest;
        }
        all_answered
    }

    pub(super) async fn get_group(&self, node: NodeRef, group: Vec<KeyedRef>) -> GetAnswer {
        let refs: Vec<ChunkRef> = group.iter().map(|(_, chunk)| chunk.clone()).collect();
        let deadline = try_deadline(refs.len() * CHUNK_BYTES as usize);
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

/// Joins the answers of two nodes that were asked for the same chunks: what neither had is missing.
fn intersect(mut one: GetAnswer, other: GetAnswer) -> GetAnswer {
    one.records.extend(other.records);
    one.answered &= other.answered;
    one.rest.retain(|(_, chunk)| !one.records.contains_key(&chunk.id));
    one
}

/// What is damaged on the way counts as missing, and so does all after it: another holder is asked.
fn read_records(node: &NodeRef, mut body: Bytes) -> FoundChunks {
    let mut records = FoundChunks::new();
    while !body.is_empty() {
        match take_record(&mut body) {
            Ok(record) => drop(records.insert(record.id, record.data)),
            Err(error) => {
                warn!(%node, %error, "a damaged answer");
                break;
            }
        }
    }
    records
}

fn collect(chunks: &[ChunkRef], found: &FoundChunks) -> Result<Vec<Bytes>, FsError> {
    chunks
        .iter()
        .map(|chunk| found.get(&chunk.id).cloned())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| FsError::Internal { detail: "a chunk was found and lost again".into() })
}
