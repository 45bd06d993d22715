//! Changes of names and attributes that are answered from memory and logged later, in order.
//!
//! [`WriteBack`] stands between `fs` and the session. A change to what this mount holds alone (`mirror`) is applied in
//! memory, answered at once, and put into the queue of changes that are not logged yet (`queue`); a task logs them,
//! many in one request (`logger`). Any other change goes to the leader as it is, after everything that was answered
//! before it. Queries are answered from memory or by the leader, and an answer never hides a change of this mount that
//! is not logged yet.
//!
//! When another mount wants what this one holds alone, the leader recalls it: [`NamespaceClient::let_go`] forgets the
//! inode and returns when the changes made before are logged. The leases themselves are the session's.

mod asking;
mod awaited;
mod commit_place;
mod loading;
mod logger;
mod mirror;
mod numbers;
mod paths;
mod queue;
mod readers;

#[cfg(test)]
mod model_test;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use chordfs_log::warn_limited;
use chordfs_net::{
    clients::{ChangeLog, ChangeSlot, FsResult, NamespaceClient, UnloggedChanges},
    operation,
    session::EventReceipt,
    tasks,
};
use chordfs_tables::{inodes_of, names_of};
use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    namespace::{Answer, Change, EntryName, FileKind, Ino, NewNode, Query, RenameMode, Reply, Time},
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::{
    asking::AnswerScope,
    awaited::AwaitedPlaces,
    commit_place::CommitPlace,
    loading::DirectoryLoads,
    mirror::Mirror,
    numbers::{BLOCK, InoNumbers},
    paths::DirectoryPaths,
    queue::{ChangePlace, ChangeQueue, QueuedChange},
    readers::Readers,
};

use crate::urgency::Urgency;

/// When so many changes are not logged, programs wait.
const MAX_UNLOGGED: usize = 8192;
/// How many folders a message to operators names.
const SHOWN_FOLDERS: usize = 5;

/// See the module.
pub struct WriteBack {
    log: Arc<dyn ChangeLog>,
    state: Mutex<WriteBackState>,
    /// The changes before this place are logged.
    logged: watch::Sender<ChangePlace>,
    urgency: Arc<Urgency>,
    /// Wakes the logger.
    wake: Arc<Notify>,
    /// Counts the directories that were loaded, or could not be.
    loaded: watch::Sender<u64>,
    /// Called when a change that was answered was refused: whatever is remembered may be wrong.
    on_refusal: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
    me: Weak<WriteBack>,
}

struct WriteBackState {
    mirror: Mirror,
    queue: ChangeQueue,
    /// The places before which everything has to be logged for somebody to go on.
    awaited: AwaitedPlaces,
    readers: Readers,
    numbers: InoNumbers,
    /// Inodes that changes concern which the leader is carrying out now: how these end is not known.
    busy: HashMap<Ino, u32>,
    paths: DirectoryPaths,
    loads: DirectoryLoads,
    /// Changes that were answered and then refused, since the last report.
    refused: Option<FsError>,
}

/// How a change can be carried out.
enum ChangeRoute {
    Answered(Result<Reply, FsError>),
    /// Too many changes are not logged.
    Full,
    /// A directory is just being learnt.
    Loading(Ino),
    ThroughLeader(BusyInodes),
}

/// Inodes that a change concerns which the leader is carrying out, until this is dropped.
struct BusyInodes {
    owner: Arc<WriteBack>,
    inos: Vec<Ino>,
}

impl WriteBack {
    /// Must be called on the runtime that is to log the changes.
    pub fn start(log: Arc<dyn ChangeLog>, urgency: Arc<Urgency>) -> Arc<Self> {
        let state = WriteBackState {
            mirror: Mirror::default(),
            queue: ChangeQueue::default(),
            awaited: AwaitedPlaces::default(),
            readers: Readers::default(),
            numbers: InoNumbers::of(log.session()),
            busy: HashMap::new(),
            paths: DirectoryPaths::default(),
            loads: DirectoryLoads::default(),
            refused: None,
        };
        let write_back = Arc::new_cyclic(|me| Self {
            log,
            state: Mutex::new(state),
            logged: watch::Sender::new(0),
            urgency,
            wake: Arc::default(),
            loaded: watch::Sender::new(0),
            on_refusal: Mutex::default(),
            me: me.clone(),
        });
        tasks::spawn(logger::log_changes(Arc::downgrade(&write_back)));
        tasks::spawn(logger::watch_age(Arc::downgrade(&write_back)));
        write_back
    }

    /// Registers what to do when a change that was answered is refused.
    pub fn on_refusal(&self, call: impl Fn() + Send + Sync + 'static) {
        *self.on_refusal.lock() = Some(Box::new(call));
    }

    /// Inodes with changes that are not logged.
    pub fn unlogged_inos(&self) -> Vec<Ino> {
        self.state.lock().queue.unlogged()
    }

    fn this(&self) -> Arc<Self> {
        self.me.upgrade().expect("a method of it is running")
    }

    /// Whether anything may be answered from memory.
    fn is_usable(&self) -> bool {
        !self.log.memory_usable_for().is_zero()
    }

    async fn change(&self, change: Change) -> Result<Reply, FsError> {
        if !has_an_order(&change) {
            return self.log.apply(change).await;
        }
        if let Some(ino) = locked_inode(&change) {
            self.wait_until_known(ino).await?;
            return self.log.apply(change).await;
        }
        loop {
            match self.route(&change) {
                ChangeRoute::Answered(result) => return result,
                ChangeRoute::Full => {
                    let first = *self.logged.borrow();
                    self.wait_until(first + 1).await?;
                }
                ChangeRoute::Loading(directory) => self.wait_loaded(directory).await?,
                ChangeRoute::ThroughLeader(busy) => return self.through_leader(change, busy).await,
            }
        }
    }

    /// Returns when the namespace knows of the inode what this mount has answered.
    async fn wait_until_known(&self, ino: Ino) -> Result<(), FsError> {
        let unlogged = {
            let state = self.state.lock();
            state.queue.has_unlogged(ino).then(|| state.queue.end())
        };
        match unlogged {
            Some(end) => self.wait_logged(end).await,
            None => Ok(()),
        }
    }

    /// Carries a change out in memory if it may, and otherwise marks what it concerns as busy.
    fn route(&self, change: &Change) -> ChangeRoute {
        let mut state = self.state.lock();
        if self.is_usable() {
            let numbered = state.numbered(change);
            let change = numbered.as_ref().unwrap_or(change);
            if state.covers(change, &*self.log) {
                if state.queue.len() >= MAX_UNLOGGED {
                    return ChangeRoute::Full;
                }
                return ChangeRoute::Answered(self.answer_change(&mut state, change.clone()));
            }
        }
        let inos = state.concerned(change);
        if let Some(directory) = inos.iter().find(|ino| state.loads.is_loading(**ino)) {
            return ChangeRoute::Loading(*directory);
        }
        state.loads.disturb(&inos);
        inos.iter().for_each(|ino| *state.busy.entry(*ino).or_default() += 1);
        ChangeRoute::ThroughLeader(BusyInodes { owner: self.this(), inos })
    }

    fn answer_change(&self, state: &mut WriteBackState, change: Change) -> Result<Reply, FsError> {
        let now = Time::now();
        let mut inos = state.concerned(&change);
        let moved = state.moved(&change);
        let reply = state.mirror.apply(now, &change)?;
        state.put_moved(moved);
        if let Change::MakeNumbered { ino, parent, name, node, .. } = &change {
            self.log.note_created(*ino);
            inos.push(*ino);
            if node.kind == FileKind::Directory {
                state.put_path(*ino, *parent, name);
            }
        }
        state.queue.push(QueuedChange { now, change, inos, waiting: None, contents: None });
        if state.queue.has_enough() {
            self.urgency.note_enough();
        }
        self.fetch_numbers_if_low(state);
        self.wake.notify_one();
        Ok(reply)
    }

    /// Has the leader carry a change out, after all that were answered before.
    async fn through_leader(&self, change: Change, busy: BusyInodes) -> Result<Reply, FsError> {
        let end = self.state.lock().queue.end();
        self.wait_logged(end).await?;
        let result = self.log.apply(change.clone()).await;
        self.state.lock().take_over(&change, &result, &*self.log);
        drop(busy);
        // More changes may follow in these directories.
        names_of(&change).into_iter().for_each(|(directory, _)| self.load_soon(directory));
        self.fetch_numbers_if_low(&mut self.state.lock());
        result
    }

    /// Returns when the changes before `place` are logged.
    async fn wait_logged(&self, place: ChangePlace) -> Result<(), FsError> {
        let _waits = self.urgency.wait();
        self.wait_until(place).await
    }

    /// Like `wait_logged`, when so much is to be logged that to collect more of it is no loss.
    async fn wait_until(&self, place: ChangePlace) -> Result<(), FsError> {
        let mut logged = self.logged.subscribe();
        let _awaited = self.await_place(place);
        match operation::within(logged.wait_for(|logged| *logged >= place)).await {
            Some(_) => Ok(()),
            None => Err(not_in_time("changes that were made before are not logged yet")),
        }
    }

    fn fetch_numbers_if_low(&self, state: &mut WriteBackState) {
        if state.numbers.begin_fetch() {
            tasks::spawn(self.this().fetch_numbers());
        }
    }

    async fn fetch_numbers(self: Arc<Self>) {
        // Without numbers the leader chooses them, one creation at a time.
        let session = self.log.session();
        let block = match self.log.apply(Change::AllocateInos { count: BLOCK }).await {
            Ok(Reply::Inos(block)) if self.log.session() == session => Some(block),
            _ => None,
        };
        self.state.lock().numbers.refill(block);
    }
}

impl WriteBackState {
    /// A creation under the next number of this session; `None` for other changes, or if there is no number.
    fn numbered(&mut self, change: &Change) -> Option<Change> {
        let Change::Make { parent, name, node, exclusive } = change else { return None };
        // A creation that finds the entry changes nothing. It needs no number, and the leader answers it.
        if !(self.mirror.is_known_absent(*parent, name) || *exclusive && self.mirror.is_complete(*parent)) {
            return None;
        }
        let (parent, name, node) = (*parent, name.clone(), NewNode::clone(node));
        let file = self.paths.name_at(parent, &name)?;
        let ino = self.numbers.take()?;
        Some(Change::MakeNumbered { ino, file, parent, name, node })
    }

    /// The directories that a change moves, and where to.
    fn moved<'a>(&mut self, change: &'a Change) -> Vec<(Ino, Ino, &'a EntryName)> {
        let Change::Rename { parent, name, new_parent, new_name, mode, .. } = change else { return Vec::new() };
        let back = (*mode == RenameMode::Exchange).then_some(((*new_parent, new_name), (*parent, name)));
        let moves = [Some(((*parent, name), (*new_parent, new_name))), back];
        let moved = moves.into_iter().flatten().filter_map(|((parent, name), (new_parent, new_name))| {
            // What is not a directory has no place here.
            let moved = self.at_name(parent, name).filter(|ino| self.paths.up(*ino).is_some())?;
            Some((moved, new_parent, new_name))
        });
        moved.collect()
    }

    fn put_moved(&mut self, moved: Vec<(Ino, Ino, &EntryName)>) {
        moved.into_iter().for_each(|(directory, parent, name)| self.put_path(directory, parent, name));
    }

    fn covers(&mut self, change: &Change, log: &dyn ChangeLog) -> bool {
        let busy = &self.busy;
        self.mirror.covers(change, &|ino| !busy.contains_key(&ino) && log.is_sole(ino))
    }

    /// Where a name leads, as far as that is known here.
    fn at_name(&self, parent: Ino, name: &EntryName) -> Option<Ino> {
        self.mirror.known_name(parent, name).or_else(|| self.paths.at(parent, name))
    }

    /// The inodes that a change concerns, as far as they are known here.
    fn concerned(&self, change: &Change) -> Vec<Ino> {
        let names = names_of(change);
        let at_names = names.iter().filter_map(|(parent, name)| self.at_name(*parent, name));
        let mut inos: Vec<Ino> = names.iter().map(|(parent, _)| *parent).chain(at_names).collect();
        inos.extend(inodes_of(change));
        inos.sort();
        inos.dedup();
        inos
    }

    /// Takes over what is known after a change that the leader has carried out.
    fn take_over(&mut self, change: &Change, result: &Result<Reply, FsError>, log: &dyn ChangeLog) {
        if let (Some(_), Ok(Reply::Attr(attr))) = (change.as_commit(), result) {
            self.mirror.forget_contents(attr.ino);
            self.mirror.note_logged(attr, self.queue.last_change(attr.ino).is_some());
            return;
        }
        if let (Change::Touch { atimes }, Ok(_)) = (change, result) {
            return self.mirror.touch(atimes);
        }
        let told = match result {
            Ok(Reply::Entry { attr, .. } | Reply::Attr(attr) | Reply::Removed { attr: Some(attr) }) => Some(attr),
            _ => None,
        };
        if let (Change::SetAttr { .. }, Some(attr)) = (change, told) {
            self.mirror.forget_contents(attr.ino);
            self.mirror.note_logged(attr, false);
            return;
        }
        if result.is_ok() {
            let moved = self.moved(change);
            self.put_moved(moved);
        }
        let told_about = told.map(|attr| attr.ino);
        self.loads.disturb(told_about.as_slice());
        for ino in self.concerned(change).into_iter().chain(told_about) {
            self.mirror.forget(ino);
        }
        if let (Change::Make { parent, name, .. } | Change::MakeMasked { parent, name, .. }, Some(attr)) =
            (change, told)
        {
            self.note_path(*parent, name, attr);
            if attr.kind == FileKind::Directory && matches!(result, Ok(Reply::Entry { created: true, .. })) {
                self.learn_new_directory(*parent, name, attr, log);
            }
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Drop for BusyInodes {
    fn drop(&mut self) {
        let mut state = self.owner.state.lock();
        state.loads.disturb(&self.inos);
        for ino in &self.inos {
            if let Some(count) = state.busy.get_mut(ino) {
                *count -= 1;
                if *count == 0 {
                    state.busy.remove(ino);
                }
            }
        }
    }
}

fn not_in_time(what: &str) -> FsError {
    FsError::NoQuorum { detail: what.to_owned() }
}

/// The inode of a change that concerns its locks and nothing else.
fn locked_inode(change: &Change) -> Option<Ino> {
    match change {
        Change::Lock { ino, .. }
        | Change::Unlock { ino, .. }
        | Change::CancelLock { ino, .. }
        | Change::KeepLocks { ino, .. } => Some(*ino),
        _ => None,
    }
}

/// Whether the change has to come after those that were answered before it.
fn has_an_order(change: &Change) -> bool {
    !matches!(
        change,
        Change::AllocateVersions { .. }
            | Change::AllocateInos { .. }
            | Change::MakeUnnamed { .. }
            | Change::Discard { .. }
            | Change::OpenSession { .. }
    )
}

impl NamespaceClient for WriteBack {
    fn apply(&self, change: Change) -> FsResult<'_, Reply> {
        Box::pin(self.change(change))
    }

    fn query(&self, query: Query) -> FsResult<'_, Answer> {
        Box::pin(self.ask(query, AnswerScope::Everything))
    }

    fn query_contents(&self, query: Query) -> FsResult<'_, Answer> {
        Box::pin(self.ask(query, AnswerScope::Contents))
    }

    fn next_version(&self) -> FsResult<'_, Version> {
        self.log.next_version()
    }

    fn event_receipt(&self) -> EventReceipt {
        self.log.event_receipt()
    }

    fn own_change_receipt(&self) -> EventReceipt {
        self.log.own_change_receipt()
    }

    fn note_handled(&self) {
        self.log.note_handled();
    }

    fn memory_usable_for(&self) -> Duration {
        self.log.memory_usable_for()
    }

    fn is_sole(&self, ino: Ino) -> bool {
        self.log.is_sole(ino)
    }

    fn is_unlogged_creation(&self, ino: Ino) -> bool {
        self.state.lock().queue.is_new(ino)
    }

    fn return_leases(&self, inos: &[Ino]) {
        self.log.return_leases(inos);
    }

    fn note_kernel(&self, time: Duration) {
        self.log.note_kernel(time);
    }

    fn reserve(&self, file: Ino) -> Option<Box<dyn ChangeSlot>> {
        let mut state = self.state.lock();
        let may_wait = self.is_usable() && self.log.is_sole(file) && !state.busy.contains_key(&file);
        if !may_wait || state.queue.len() >= MAX_UNLOGGED {
            return None;
        }
        let place = state.queue.open_slot(file);
        Some(Box::new(CommitPlace::new(self.this(), file, place)))
    }

    fn sync(&self) -> FsResult<'_, ()> {
        Box::pin(async move {
            let end = self.state.lock().queue.end();
            self.wait_logged(end).await?;
            self.state.lock().refused.take().map_or(Ok(()), Err)
        })
    }

    fn let_go(&self, inos: Vec<Ino>, keeps: bool) -> BoxFuture<'static, ()> {
        let (end, unlogged) = {
            let mut state = self.state.lock();
            let unlogged = inos.iter().any(|ino| state.queue.has_unlogged(*ino));
            if !keeps {
                state.loads.disturb(&inos);
                inos.iter().for_each(|ino| state.mirror.forget(*ino));
            }
            (state.queue.end(), unlogged)
        };
        if !unlogged {
            return Box::pin(std::future::ready(()));
        }
        let (mut logged, waits) = (self.logged.subscribe(), (self.urgency.wait(), self.await_place(end)));
        // Ends with the mount, and the leader waits only as long as the lease lasts.
        Box::pin(async move {
            drop(logged.wait_for(|logged| *logged >= end).await);
            drop(waits);
        })
    }

    fn leases_ended(&self, inos: &[Ino]) {
        let mut state = self.state.lock();
        let changed: Vec<Ino> = inos.iter().copied().filter(|ino| state.queue.has_unlogged(*ino)).collect();
        if changed.is_empty() {
            return;
        }
        let folders: Vec<String> =
            changed.iter().filter_map(|ino| state.paths.path(*ino)).take(SHOWN_FOLDERS).collect();
        warn_limited!(
            leases = changed.len(),
            folders = folders.join(", "),
            unlogged = state.queue.len(),
            "leases have ended under which programs changed something that is not logged: the mount was silent for too \
             long, or held too many. What contradicts the changes of other mounts is refused; an error in this log names it"
        );
    }

    fn unlogged(&self) -> UnloggedChanges {
        let state = self.state.lock();
        let count = state.queue.len() + state.queue.slots();
        UnloggedChanges { count, oldest: state.queue.oldest_age().unwrap_or_default() }
    }

    fn forget_all(&self) {
        let mut state = self.state.lock();
        state.loads.disturb_all();
        state.mirror = Mirror::default();
        state.numbers.follow(self.log.session());
    }
}
