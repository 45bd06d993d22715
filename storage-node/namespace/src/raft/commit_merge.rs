//! Fewer messages to followers: how far the log is committed travels with the next entries, if these come soon.
//!
//! Raft sends entries, and when they are committed, a message without entries that says so. While operations follow
//! each other, the next entries say it a moment later; the message between would cost both sides as much as one with
//! entries, and the next entries would wait for its answer. Followers only apply later what is committed, and no
//! answer depends on that: the leader alone answers.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use openraft::{entry::RaftEntry, raft::AppendEntriesRequest};
use tokio::time::{Instant, timeout_at};

use crate::raft_types::{LogId, TypeConfig};

/// How long a message that only says what is committed waits for entries.
const COMMIT_DELAY: Duration = Duration::from_millis(20);

type Append = AppendEntriesRequest<TypeConfig>;

/// Leaves out messages that say nothing but what the next one says as well.
pub(super) fn merge_commits(messages: impl Stream<Item = Append> + Send + 'static) -> BoxStream<'static, Append> {
    // Raft's stream must not be polled after its end.
    let merger = CommitMerger { messages: messages.fuse().boxed(), sent: None };
    stream::unfold(merger, |mut merger| async move { Some((merger.next().await?, merger)) }).boxed()
}

struct CommitMerger {
    messages: BoxStream<'static, Append>,
    /// The last entry of the last message.
    sent: Option<LogId>,
}

impl CommitMerger {
    async fn next(&mut self) -> Option<Append> {
        let mut message = self.messages.next().await?;
        let end = Instant::now() + COMMIT_DELAY;
        while self.only_commits(&message) {
            match timeout_at(end, self.messages.next()).await {
                Ok(Some(next)) => message = next,
                Ok(None) | Err(_) => break,
            }
        }
        self.sent = message.entries.last().map(RaftEntry::log_id).or(message.prev_log_id);
        Some(message)
    }

    /// The first message of a stream may be a question where the follower's log agrees, so it is not held back.
    fn only_commits(&self, message: &Append) -> bool {
        message.entries.is_empty() && self.sent.is_some() && message.prev_log_id == self.sent
    }
}

#[cfg(test)]
mod tests {
    use openraft::{
        EntryPayload,
        type_config::alias::{LeaderIdOf, VoteOf},
        vote::RaftLeaderIdExt,
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::raft_types::LogEntry;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderIdOf::<TypeConfig>::new_committed(1, 1), index)
    }

    /// A message with the entries after `prev` up to `last`, when the log is committed up to `commit`.
    fn append(prev: u64, last: u64, commit: u64) -> Append {
        let entry = |index| LogEntry { log_id: id(index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: VoteOf::<TypeConfig>::new_committed(1, 1),
            prev_log_id: Some(id(prev)),
            entries: (prev + 1..=last).map(entry).collect(),
            leader_commit: Some(id(commit)),
        }
    }

    fn brief(message: &Append) -> (u64, usize, u64) {
        let index = |id: Option<LogId>| id.expect("it is set").index;
        (index(message.prev_log_id), message.entries.len(), index(message.leader_commit))
    }

    fn channel() -> (mpsc::UnboundedSender<Append>, BoxStream<'static, Append>) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        (sender, merge_commits(stream::poll_fn(move |context| receiver.poll_recv(context))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_travels_with_the_next_entries() {
        let (sender, mut merged) = channel();
        for message in [append(7, 8, 7), append(8, 8, 8), append(8, 9, 8), append(9, 9, 9), append(9, 10, 9)] {
            sender.send(message).expect("it is read");
        }
        drop(sender);
        let mut sent = Vec::new();
        while let Some(message) = merged.next().await {
            sent.push(brief(&message));
        }
        assert_eq!(sent, [(7, 1, 7), (8, 1, 8), (9, 1, 9)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_without_entries_after_it_is_late_and_not_lost() {
        let (sender, mut merged) = channel();
        sender.send(append(7, 8, 7)).and_then(|()| sender.send(append(8, 8, 8))).expect("it is read");
        assert_eq!(merged.next().await.map(|message| brief(&message)), Some((7, 1, 7)));
        let begun = Instant::now();
        assert_eq!(merged.next().await.map(|message| brief(&message)), Some((8, 0, 8)));
        assert_eq!(begun.elapsed(), COMMIT_DELAY);
        sender.send(append(8, 8, 9)).expect("it is read");
        drop(sender);
        assert_eq!(merged.next().await.map(|message| brief(&message)), Some((8, 0, 9)), "also when the stream ends");
        assert!(merged.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_where_the_logs_agree_is_sent_at_once() {
        let (sender, mut merged) = channel();
        let begun = Instant::now();
        for prev in [9, 5] {
            sender.send(append(prev, prev, 3)).expect("it is read");
            assert_eq!(merged.next().await.map(|message| brief(&message)), Some((prev, 0, 3)));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
