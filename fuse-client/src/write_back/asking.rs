//! Queries: answered from memory, or by the leader. An answer of the leader is completed with what only this mount
//! knows, or asked for again when what it lacks is logged.

use std::sync::Arc;

use chordfs_net::clients::ChangeLog;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, Ino, Query},
};

use super::{WriteBack, WriteBackState, queue::ChangePlace};

/// What an answer must not lack of the changes of this mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerScope {
    Everything,
    /// Only what gives the file other contents. A commit asks so: later changes of names and attributes may be waiting
    /// for it.
    Contents,
}

/// A query that the leader is answering, until this is dropped.
struct Reader {
    owner: Arc<WriteBack>,
    /// How far the log had come when it was sent.
    sent_at: ChangePlace,
}

/// Whether an answer of the leader may be given.
enum Verdict {
    Complete,
    /// A change was logged while the answer was on its way. It has to be asked for again.
    Outdated,
    /// It has to be asked for again when this change is logged.
    HidesChange(ChangePlace),
}

impl WriteBack {
    pub(super) async fn ask(&self, query: Query, scope: AnswerScope) -> Result<Answer, FsError> {
        loop {
            let unlogged = {
                let mut state = self.state.lock();
                if self.is_usable()
                    && let Some(answer) = state.answer(&query, &*self.log)
                {
                    return answer;
                }
                state.last_change_of(&query, scope)
            };
            if let Some(place) = unlogged {
                if is_guess(&query) {
                    return Ok(nothing_opened());
                }
                self.wait_logged(place + 1).await?;
            }
            let reader = self.begin_reading();
            let mut answer = self.log.query(query.clone()).await;
            let verdict = {
                let mut state = self.state.lock();
                match state.judge(&query, scope, reader.sent_at) {
                    Verdict::Complete if scope == AnswerScope::Everything => {
                        state.complete_answer(&query, &mut answer, reader.sent_at, &*self.log)
                    }
                    verdict => verdict,
                }
            };
            match verdict {
                Verdict::Complete => return answer,
                _ if is_guess(&query) => return Ok(nothing_opened()),
                Verdict::Outdated => {}
                Verdict::HidesChange(place) => self.wait_logged(place + 1).await?,
            }
        }
    }

    fn begin_reading(&self) -> Reader {
        let mut state = self.state.lock();
        let sent_at = state.queue.logged_before();
        state.readers.begin(sent_at);
        Reader { owner: self.this(), sent_at }
    }
}

impl WriteBackState {
    fn answer(&mut self, query: &Query, log: &dyn ChangeLog) -> Option<Result<Answer, FsError>> {
        let busy = &self.busy;
        self.mirror.answer(query, &|ino| !busy.contains_key(&ino) && log.is_sole(ino))
    }

    /// The place of the last change that is not logged of what the query is about.
    fn last_change_of(&self, query: &Query, scope: AnswerScope) -> Option<ChangePlace> {
        match (query, scope) {
            (Query::StatFs, _) => self.queue.end().checked_sub(1).filter(|last| *last >= self.queue.logged_before()),
            (query, AnswerScope::Everything) => self.queue.last_change(asked_about(query)?),
            (query, AnswerScope::Contents) => self.queue.last_cut(asked_about(query)?),
        }
    }

    /// Judges the answer to a query that was sent when the log had come to `sent_at`, by what the query is about.
    fn judge(&self, query: &Query, scope: AnswerScope, sent_at: ChangePlace) -> Verdict {
        if let Some(place) = self.last_change_of(query, scope) {
            return Verdict::HidesChange(place);
        }
        let has_changed = asked_about(query).is_some_and(|ino| self.readers.has_changed(ino, sent_at));
        if has_changed { Verdict::Outdated } else { Verdict::Complete }
    }

    /// Completes what the leader tells of inodes with what only this mount knows.
    fn complete_answer(
        &mut self,
        query: &Query,
        answer: &mut Result<Answer, FsError>,
        sent_at: ChangePlace,
        log: &dyn ChangeLog,
    ) -> Verdict {
        let told: Vec<&mut Attr> = match answer {
            Ok(Answer::Attr(attr) | Answer::Open { attr, .. }) => vec![attr],
            Ok(Answer::Entries { entries, .. }) => entries.iter_mut().map(|entry| &mut entry.attr).collect(),
            Ok(Answer::OpenedEntries { entries, .. }) => {
                // What this mount has changed meanwhile is left out: no program waits for the answer.
                let is_current = |ino| !self.queue.has_unlogged(ino) && !self.readers.has_changed(ino, sent_at);
                entries.retain(|opened| is_current(opened.entry.attr.ino));
                self.note_paths(query, answer);
                return Verdict::Complete;
            }
            _ => return Verdict::Complete,
        };
        let busy = &self.busy;
        let is_known = |ino: Ino| !busy.contains_key(&ino) && log.is_sole(ino);
        for attr in told {
            if let Some(known) = self.mirror.attr(attr.ino, &is_known) {
                *attr = known.clone();
            } else if let Some(place) = self.queue.last_change(attr.ino) {
                return Verdict::HidesChange(place);
            } else if self.readers.has_changed(attr.ino, sent_at) {
                return Verdict::Outdated;
            }
        }
        self.note_paths(query, answer);
        Verdict::Complete
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.owner.state.lock().readers.end(self.sent_at);
    }
}

/// Whether no program waits for the answer: it must not hurry the log, and may have nothing in it.
fn is_guess(query: &Query) -> bool {
    matches!(query, Query::OpenEntries { .. })
}

fn nothing_opened() -> Answer {
    Answer::OpenedEntries { entries: Vec::new(), more: true }
}

/// The inode about which a query asks.
fn asked_about(query: &Query) -> Option<Ino> {
    match query {
        Query::Lookup { parent: ino, .. }
        | Query::GetAttr { ino }
        | Query::ReadDir { ino, .. }
        | Query::OpenEntries { ino, .. }
        | Query::ReadLink { ino }
        | Query::Xattrs { ino }
        | Query::Locks { ino }
        | Query::Open { ino }
        | Query::Extents { ino, .. } => Some(*ino),
        _ => None,
    }
}
