//! Random programs on one mount, compared with tables to which each change is applied at once: every answer is the
//! same, and so is the tree when everything is logged. Meanwhile other mounts come and go, so that leases are recalled
//! and granted again at any moment.
//!
//! `WRITE_BACK_SEED` repeats one run, `WRITE_BACK_SEEDS` says how many there are.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;
use chordfs_tables::Tables;
use chordfs_types::namespace::{
    Attr, Commit, Extent, FileKind, NamespaceOp, OpId, OpenedEntry, RenameMode, SessionId, SetAttr, Truncate,
    VersionBlock,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::samples_test::name;

const STEPS: usize = 400;

/// A log that applies what it is given, to tables of its own.
struct FakeLog {
    tables: Mutex<Tables>,
    index: AtomicU64,
    session: SessionId,
    versions: AtomicU64,
    /// Inodes that other mounts use.
    shared: Mutex<HashSet<Ino>>,
    operations: AtomicU64,
    /// No list is logged while somebody has it.
    standstill: tokio::sync::Mutex<()>,
}

impl FakeLog {
    fn new() -> Self {
        let mut tables = Tables::new();
        let (session, versions) = open_session(&mut tables);
        Self {
            tables: Mutex::new(tables),
            index: AtomicU64::new(1),
            session,
            versions: AtomicU64::new(versions.first.0),
            shared: Mutex::default(),
            operations: AtomicU64::new(0),
            standstill: tokio::sync::Mutex::default(),
        }
    }

    fn apply_at(&self, index: u64, now: Time, change: Change) -> Result<Reply, FsError> {
        let sequence = self.operations.fetch_add(1, SeqCst) + 1;
        let origin = Some(OpId { session: self.session, sequence, answered_below: sequence });
        let op = NamespaceOp { origin, now, change };
        let reply = self.tables.lock().apply(index, now, &op).reply;
        trace(|| format!("logged at {index}: {:?} -> {reply:?}", op.change));
        reply
    }

    fn next_index(&self) -> u64 {
        self.index.fetch_add(1, SeqCst) + 1
    }
}

impl NamespaceClient for FakeLog {
    fn apply(&self, change: Change) -> FsResult<'_, Reply> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.apply_at(self.next_index(), Time::now(), change)
        })
    }

    fn query(&self, query: Query) -> FsResult<'_, Answer> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.tables.lock().query(&query)
        })
    }

    fn next_version(&self) -> FsResult<'_, Version> {
        Box::pin(std::future::ready(Ok(Version(self.versions.fetch_add(1, SeqCst)))))
    }

    fn is_sole(&self, ino: Ino) -> bool {
        !self.shared.lock().contains(&ino)
    }
}

impl ChangeLog for FakeLog {
    fn apply_list(&self, changes: Vec<(Time, Change)>, _inos: Vec<Ino>) -> FsResult<'_, Vec<Result<Reply, FsError>>> {
        Box::pin(async move {
            let _passes = self.standstill.lock().await;
            tokio::task::yield_now().await;
            let index = self.next_index();
            Ok(changes.into_iter().map(|(now, change)| self.apply_at(index, now, change)).collect())
        })
    }

    fn note_created(&self, _ino: Ino) {}

    fn session(&self) -> SessionId {
        self.session
    }
}

fn open_session(tables: &mut Tables) -> (SessionId, VersionBlock) {
    let change = Change::OpenSession { nonce: 7, client: "test".to_owned(), holds_leases: true };
    let op = NamespaceOp { origin: None, now: Time::default(), change };
    match tables.apply(1, Time::default(), &op).reply {
        Ok(Reply::Session { session, versions }) => (session, versions),
        other => panic!("no session: {other:?}"),
    }
}

/// One run: a mount, and the model to which it is compared. Inodes are those of the model; the mount's differ.
struct Run {
    rng: StdRng,
    log: Arc<FakeLog>,
    mount: Arc<WriteBack>,
    model: Tables,
    model_session: SessionId,
    step: u64,
    /// From the model's inodes to the mount's.
    inos: BTreeMap<Ino, Ino>,
    commits: Vec<tokio::task::JoinHandle<Result<Reply, FsError>>>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let log = Arc::new(FakeLog::new());
        let mut model = Tables::new();
        let (model_session, _) = open_session(&mut model);
        let inos = BTreeMap::from([(Ino::ROOT, Ino::ROOT)]);
        let (rng, mount) = (StdRng::seed_from_u64(seed), WriteBack::start(log.clone(), Arc::default()));
        Self { rng, log, mount, model, model_session, step: 0, inos, commits: Vec::new() }
    }

    async fn play(mut self) {
        for _ in 0..STEPS {
            for _ in 0..self.rng.random_range(0..4) {
                tokio::task::yield_now().await;
            }
            match self.rng.random_range(0..20) {
                0 => self.begin_sharing().await,
                1 | 2 => self.end_sharing(),
                3..=6 => self.ask().await,
                7 => self.write(),
                8 => self.open().await,
                9 => self.open_in_advance().await,
                _ => self.change().await,
            }
        }
        for commit in self.commits.drain(..) {
            commit.await.expect("the task ends").expect("committed");
        }
        assert_eq!(self.mount.sync().await, Ok(()));
        assert_eq!(self.mount.unlogged_inos(), []);
        let (logged, model) = (tree(&self.log.tables.lock()), tree(&self.model));
        assert_eq!(logged, model);
    }

    /// Another mount begins to use an inode.
    async fn begin_sharing(&mut self) {
        let ino = self.any_ino().1;
        self.log.shared.lock().insert(ino);
        trace(|| format!("{ino:?} is shared"));
        self.mount.let_go(vec![ino], false).await;
        assert!(
            !self.mount.unlogged_inos().contains(&ino) || !self.commits.is_empty(),
            "it was let go while it is unlogged"
        );
    }

    fn end_sharing(&mut self) {
        self.log.shared.lock().clear();
    }

    async fn ask(&mut self) {
        let (model, mount) = self.any_ino();
        let name = self.any_name();
        let queries = |ino: Ino| {
            [
                Query::Lookup { parent: ino, name: name.clone() },
                Query::GetAttr { ino },
                Query::ReadDir { ino, after: None },
                Query::ReadLink { ino },
            ]
        };
        let which = self.rng.random_range(0..4);
        let (expected, query) = (self.model.query(&queries(model)[which]), queries(mount)[which].clone());
        let answer = self.mount.query(query.clone()).await;
        assert_eq!(self.described(answer, false), self.described(expected, true), "step {}: {query:?}", self.step);
    }

    async fn change(&mut self) {
        let (model_change, mount_change) = self.any_change();
        let expected = self.apply_to_model(model_change.clone());
        let reply = self.mount.apply(mount_change.clone()).await;
        if let (Ok(Reply::Entry { attr: model, created: true }), Ok(Reply::Entry { attr: mount, .. })) =
            (&expected, &reply)
            && !self.inos.contains_key(&model.ino)
        {
            self.inos.insert(model.ino, mount.ino);
        }
        trace(|| format!("step {}: {mount_change:?} -> {reply:?}", self.step));
        let (reply, expected) = (self.described_reply(reply, false), self.described_reply(expected, true));
        assert_eq!(reply, expected, "step {}: {mount_change:?}, in the model {model_change:?}", self.step);
    }

    /// Asks for the contents of a file of which everything is logged: they are those in the log.
    async fn open(&mut self) {
        let ino = self.any_ino().1;
        if self.mount.unlogged_inos().contains(&ino) {
            return;
        }
        let expected = self.log.tables.lock().query(&Query::Open { ino });
        if let (Ok(Answer::Open { extents: expected, .. }), Ok(Answer::Open { extents, .. })) =
            (expected, self.mount.query(Query::Open { ino }).await)
        {
            assert_eq!(extents, expected, "step {}: {ino:?}", self.step);
        }
    }

    /// Opens the files of a directory in advance. Some may be left out; those that are told are as they are.
    async fn open_in_advance(&mut self) {
        let (model, mount) = self.any_ino();
        let answer = self.mount.query(Query::OpenEntries { ino: mount, after: None, limit: 9 }).await;
        let Ok(Answer::OpenedEntries { entries, .. }) = answer else { return };
        for OpenedEntry { entry, extents } in entries {
            let expected = self.model.query(&Query::Lookup { parent: model, name: entry.name.clone() });
            let told = self.described(Ok(Answer::Attr(entry.attr.clone())), false);
            assert_eq!(told, self.described(expected, true), "step {}: {}", self.step, entry.name);
            let logged = self.log.tables.lock().query(&Query::Open { ino: entry.attr.ino });
            if let (Some(told), Ok(Answer::Open { extents, .. })) = (extents, logged) {
                assert_eq!(told, extents, "step {}: {}", self.step, entry.name);
            }
        }
    }

    /// Writes a chunk of a file, and closes it.
    fn write(&mut self) {
        let (model, mount) = self.any_ino();
        let is_file = self.model.known_attr(model).is_some_and(|attr| attr.kind == FileKind::File && attr.nlink > 0);
        if !is_file {
            return;
        }
        let Some(slot) = self.mount.reserve(mount) else { return };
        let version = Version(self.log.versions.fetch_add(1, SeqCst));
        let extents = vec![Extent { first: 1, count: 1, version }];
        let commit = Commit { extents, size_at_least: 10, ..Commit::default() };
        // Both sessions are given versions from the same number on.
        self.apply_to_model(Change::Commit { ino: model, commit: commit.clone() }).expect("committed");
        let delay = self.rng.random_range(0..20);
        let owner = self.mount.clone();
        self.commits.push(tokio::spawn(async move {
            for _ in 0..delay {
                tokio::task::yield_now().await;
            }
            let reply = slot.apply(Change::Commit { ino: mount, commit }, true).await;
            if let (Ok(Reply::Attr(told)), Ok(Answer::Attr(now))) =
                (&reply, owner.query(Query::GetAttr { ino: mount }).await)
            {
                let is_as_told = (told.nlink, told.mode) == (now.nlink, now.mode);
                assert!(is_as_told || now.change > told.change, "told {told:?} while it is {now:?}");
            }
            reply
        }));
    }

    fn apply_to_model(&mut self, change: Change) -> Result<Reply, FsError> {
        self.step += 1;
        let origin = Some(OpId { session: self.model_session, sequence: self.step, answered_below: self.step });
        let op = NamespaceOp { origin, now: Time::default(), change };
        self.model.apply(self.step + 1, Time::default(), &op).reply
    }

    /// One change in the inodes of the model, and in those of the mount.
    fn any_change(&mut self) -> (Change, Change) {
        let ((parent, at), (new_parent, new_at)) = (self.any_ino(), self.any_ino());
        let (name, new_name) = (self.any_name(), self.any_name());
        let node = self.any_node();
        let exclusive = self.rng.random();
        let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][self.rng.random_range(0..3)];
        let truncate = self.rng.random_ratio(1, 4).then_some(Truncate { size: 0, tail: None });
        let set = SetAttr { mode: Some(self.rng.random_range(0..0o1000)), truncate, ..SetAttr::default() };
        let kind = self.rng.random_range(0..10);
        let build = |parent: Ino, new_parent: Ino| match kind {
            0..=4 => Change::Make { parent, name: name.clone(), node: node.clone(), exclusive },
            5 => Change::Unlink { parent, name: name.clone(), hold: false },
            6 => Change::Rmdir { parent, name: name.clone() },
            7 => Change::Link { ino: new_parent, parent, name: name.clone() },
            8 => Change::SetAttr { ino: parent, set: set.clone() },
            _ => {
                Change::Rename { parent, name: name.clone(), new_parent, new_name: new_name.clone(), mode, hold: false }
            }
        };
        (build(parent, new_parent), build(at, new_at))
    }

    fn any_node(&mut self) -> NewNode {
        let kind =
            [FileKind::File, FileKind::File, FileKind::Directory, FileKind::Symlink][self.rng.random_range(0..4)];
        let target = if kind == FileKind::Symlink { Bytes::from_static(b"target") } else { Bytes::new() };
        let mode = if self.rng.random_ratio(1, 8) { 0o2755 } else { 0o755 };
        NewNode { kind, mode, uid: 1, gid: 2, rdev: 0, chunk_bytes: 4096, target }
    }

    fn any_ino(&mut self) -> (Ino, Ino) {
        // The root often, so that there is something to collide with.
        let number = self.rng.random_range(0..self.inos.len() + 2);
        self.inos.iter().nth(number).map_or((Ino::ROOT, Ino::ROOT), |(model, mount)| (*model, *mount))
    }

    fn any_name(&mut self) -> EntryName {
        name(["a", "b", "c", "d"][self.rng.random_range(0..4)])
    }

    /// What a program sees of an inode, beside times and the size, which its open files decide as long as they are not
    /// committed.
    fn seen(&self, attr: &Attr, of_model: bool) -> String {
        let ino = if of_model { self.inos.get(&attr.ino).copied().unwrap_or(attr.ino) } else { attr.ino };
        let Attr { kind, mode, nlink, uid, gid, .. } = attr;
        format!("{ino:?} {kind:?} {mode:o} {nlink} {uid} {gid}")
    }

    fn described(&self, answer: Result<Answer, FsError>, of_model: bool) -> String {
        match answer {
            Ok(Answer::Attr(attr)) => self.seen(&attr, of_model),
            Ok(Answer::Entries { entries, more, .. }) => {
                let entries =
                    entries.iter().map(|entry| format!("{} {}", entry.name, self.seen(&entry.attr, of_model)));
                format!("{:?} {more}", entries.collect::<Vec<_>>())
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => kind_of(&error),
        }
    }

    fn described_reply(&self, reply: Result<Reply, FsError>, of_model: bool) -> String {
        match reply {
            Ok(Reply::Entry { attr, created }) => format!("{} {created}", self.seen(&attr, of_model)),
            Ok(Reply::Attr(attr) | Reply::Removed { attr: Some(attr) }) => self.seen(&attr, of_model),
            Ok(other) => format!("{other:?}"),
            Err(error) => kind_of(&error),
        }
    }
}

fn kind_of(error: &FsError) -> String {
    match error {
        FsError::Stale { .. } => "stale".to_owned(),
        other => format!("{other:?}"),
    }
}

/// All paths with what is at them.
fn tree(tables: &Tables) -> Vec<String> {
    let (mut lines, mut todo) = (Vec::new(), vec![(Ino::ROOT, String::new())]);
    while let Some((directory, path)) = todo.pop() {
        let Ok(Answer::Entries { entries, .. }) = tables.query(&Query::ReadDir { ino: directory, after: None }) else {
            panic!("{path} cannot be listed");
        };
        for entry in entries {
            let (attr, path) = (entry.attr, format!("{path}/{}", entry.name));
            if attr.kind == FileKind::Directory {
                todo.push((attr.ino, path.clone()));
            }
            let Attr { kind, mode, nlink, size, gid, .. } = attr;
            lines.push(format!("{path} {kind:?} {mode:o} {nlink} {size} {gid}"));
        }
    }
    lines.sort();
    lines
}

/// Prints a line when one seed is repeated.
fn trace(line: impl Fn() -> String) {
    if number("WRITE_BACK_SEED").is_some() {
        println!("{}", line());
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn answers_are_those_of_a_namespace_that_logs_each_change_at_once() {
    let seeds = match number("WRITE_BACK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WRITE_BACK_SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        println!("WRITE_BACK_SEED={seed}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async { Run::new(seed).play().await });
    }
}

fn node(kind: FileKind) -> NewNode {
    NewNode { kind, mode: 0o755, uid: 1, gid: 2, rdev: 0, chunk_bytes: 4096, target: Bytes::new() }
}

fn make(parent: Ino, text: &str, kind: FileKind) -> Change {
    Change::Make { parent, name: name(text), node: node(kind), exclusive: true }
}

/// A mount that has numbers for inodes and knows the root directory.
async fn mount_that_knows_the_root(log: &Arc<FakeLog>) -> Arc<WriteBack> {
    let mount = WriteBack::start(log.clone(), Arc::default());
    mount.apply(make(Ino::ROOT, "first", FileKind::File)).await.expect("made by the leader");
    while !mount.state.lock().mirror.is_complete(Ino::ROOT) || mount.state.lock().numbers.begin_fetch() {
        tokio::task::yield_now().await;
    }
    mount
}

async fn made(mount: &WriteBack, change: Change) -> Ino {
    match mount.apply(change).await {
        Ok(Reply::Entry { attr, .. }) => attr.ino,
        other => panic!("not made: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_answered_while_nothing_is_logged() {
    let log = Arc::new(FakeLog::new());
    let mount = mount_that_knows_the_root(&log).await;
    let standstill = log.standstill.lock().await;
    let folder = made(&mount, make(Ino::ROOT, "folder", FileKind::Directory)).await;
    let file = made(&mount, make(folder, "file", FileKind::File)).await;
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    mount.apply(Change::SetAttr { ino: file, set }).await.expect("set");
    let (parent, new_parent, hold) = (folder, Ino::ROOT, false);
    let (name_there, new_name, mode) = (name("file"), name("moved"), RenameMode::Replace);
    mount.apply(Change::Rename { parent, name: name_there, new_parent, new_name, mode, hold }).await.expect("renamed");
    mount.apply(Change::Rmdir { parent: Ino::ROOT, name: name("folder") }).await.expect("removed");
    mount.apply(Change::Unlink { parent: Ino::ROOT, name: name("first"), hold }).await.expect("removed");
    assert!(mount.reserve(file).is_some(), "its contents may be logged later, too");
    assert_eq!(tree(&log.tables.lock()).len(), 1, "only the first file is in the log");
    drop(standstill);
    mount.sync().await.expect("logged");
    assert_eq!(tree(&log.tables.lock()), ["/moved File 600 1 0 2"]);
}

#[tokio::test(start_paused = true)]
async fn programs_wait_when_too_many_changes_are_not_logged() {
    let log = Arc::new(FakeLog::new());
    let mount = mount_that_knows_the_root(&log).await;
    let standstill = log.standstill.lock().await;
    let set = |mode| Change::SetAttr { ino: Ino::ROOT, set: SetAttr { mode: Some(mode), ..SetAttr::default() } };
    for number in 0..super::MAX_UNLOGGED {
        mount.apply(set((number % 512) as u16)).await.expect("set");
    }
    assert_eq!(NamespaceClient::unlogged(&*mount).count, super::MAX_UNLOGGED);
    let waiting = tokio::spawn({
        let (mount, change) = (mount.clone(), set(0o700));
        async move { mount.apply(change).await.map(drop) }
    });
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(!waiting.is_finished() && mount.reserve(Ino::ROOT).is_none());
    drop(standstill);
    waiting.await.expect("no panic").expect("set");
    mount.sync().await.expect("logged");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_refused_after_it_was_answered_is_told_once_and_forgotten() {
    let log = Arc::new(FakeLog::new());
    let mount = mount_that_knows_the_root(&log).await;
    let told = Arc::new(AtomicU64::new(0));
    let count = told.clone();
    mount.on_refusal(move || {
        count.fetch_add(1, SeqCst);
    });
    let standstill = log.standstill.lock().await;
    let here = made(&mount, make(Ino::ROOT, "name", FileKind::File)).await;
    // This mount's lease has run out meanwhile, and another one was there first.
    let theirs = log.apply_at(log.next_index(), Time::now(), make(Ino::ROOT, "name", FileKind::Directory));
    let Ok(Reply::Entry { attr: theirs, .. }) = theirs else { panic!("not made: {theirs:?}") };
    drop(standstill);
    assert_eq!(mount.sync().await, Err(FsError::Exists));
    assert_eq!((mount.sync().await, told.load(SeqCst)), (Ok(()), 1));
    let found = mount.query(Query::Lookup { parent: Ino::ROOT, name: name("name") }).await;
    assert!(matches!(&found, Ok(Answer::Attr(attr)) if attr.ino == theirs.ino && attr.ino != here), "{found:?}");
}

/// A file that was made and not logged, with a place that is kept for its contents.
async fn made_with_slot(mount: &WriteBack, text: &str) -> (Ino, Box<dyn ChangeSlot>) {
    let file = made(mount, make(Ino::ROOT, text, FileKind::File)).await;
    (file, mount.reserve(file).expect("a place"))
}

#[tokio::test(start_paused = true)]
async fn contents_that_a_program_waits_for_are_logged_in_one_list_with_what_is_before_them() {
    let log = Arc::new(FakeLog::new());
    let mount = mount_that_knows_the_root(&log).await;
    let _waits = mount.urgency.wait();
    let (file, slot) = made_with_slot(&mount, "file").await;
    let lists = log.index.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let version = Version(log.versions.fetch_add(1, SeqCst));
    let commit =
        Commit { extents: vec![Extent { first: 1, count: 1, version }], size_at_least: 10, ..Commit::default() };
    slot.apply(Change::Commit { ino: file, commit }, true).await.expect("committed");
    assert_eq!(log.index.load(SeqCst), lists + 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_waits_for_contents_only_for_a_moment_and_never_while_somebody_waits_for_less() {
    let log = Arc::new(FakeLog::new());
    let mount = mount_that_knows_the_root(&log).await;
    let begun = tokio::time::Instant::now();
    let (_, _slot) = made_with_slot(&mount, "urgent").await;
    let place = mount.state.lock().queue.awaited_slot().expect("a slot");
    mount.wait_logged(place).await.expect("logged");
    assert_eq!(begun.elapsed(), Duration::ZERO, "a program waits for the change before the contents");
    drop(_slot);
    let _waits = mount.urgency.wait();
    let (file, _slot) = made_with_slot(&mount, "file").await;
    let is_logged = || log.tables.lock().known_attr(file).is_some();
    while !is_logged() {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(1) && waited < Duration::from_millis(4), "{waited:?}");
}
