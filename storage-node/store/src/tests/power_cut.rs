//! The power is cut, or the process killed, at every step of a random run: afterwards the store opens, holds what was
//! put durably, and does not hold what was deleted before a sync. The same holds when any operation on the disk fails;
//! the store goes on when the disk works again.

use std::collections::BTreeSet;

use chordfs_power_cut::{Disk, Random, Recording};

use super::*;

#[derive(Clone, Debug)]
enum Action {
    Put(Vec<ChunkRef>, Durability),
    Delete(Vec<ChunkRef>),
    Sync,
    Compact,
    Reopen,
}

/// What the store must and must not hold; other chunks may be there or not.
#[derive(Clone, Debug, Default)]
struct Promised {
    here: BTreeSet<(u64, u32)>,
    gone: BTreeSet<(u64, u32)>,
    /// Put, or deleted, and not synced since.
    put: BTreeSet<(u64, u32)>,
    deleted: BTreeSet<(u64, u32)>,
    /// Their put failed: they may be there or not.
    uncertain: BTreeSet<(u64, u32)>,
}

fn id(chunk: &ChunkRef) -> (u64, u32) {
    (chunk.id.version.0, chunk.id.index)
}

fn chunk_of((version, index): &(u64, u32)) -> ChunkRef {
    chunk("name", *index, *version)
}

impl Promised {
    fn begin(&mut self, action: &Action) {
        if let Action::Delete(chunks) = action {
            chunks.iter().map(id).for_each(|id| {
                self.here.remove(&id);
                self.put.remove(&id);
                self.uncertain.remove(&id);
                self.deleted.insert(id);
            });
        }
    }

    fn complete(&mut self, action: &Action) {
        match action {
            Action::Put(chunks, Durability::Disk) => {
                self.here.extend(chunks.iter().map(id));
                self.put.retain(|put| !self.here.contains(put));
                self.uncertain.retain(|uncertain| !self.here.contains(uncertain));
            }
            Action::Put(chunks, Durability::Memory) => {
                self.put.extend(chunks.iter().map(id));
                self.uncertain.retain(|uncertain| !self.put.contains(uncertain));
            }
            Action::Sync => {
                self.here.append(&mut self.put);
                self.gone.append(&mut self.deleted);
            }
            Action::Delete(_) | Action::Compact | Action::Reopen => {}
        }
    }

    fn fail(&mut self, action: &Action) {
        if let Action::Put(chunks, _) = action {
            let new = |id: &(u64, u32)| !self.here.contains(id) && !self.put.contains(id);
            let new: Vec<_> = chunks.iter().map(id).filter(new).collect();
            self.uncertain.extend(new);
        }
    }

    /// A deletion that could not be listed, or whose list could not be synced, is known only to the process.
    fn accept_undone_deletions(&mut self, store: &Store) {
        let back = |id: &(u64, u32)| store.has(&[chunk_of(id)])[0];
        self.uncertain.extend(std::mem::take(&mut self.deleted).into_iter().filter(back));
    }

    fn check(&self, store: &Store) {
        let here: Vec<ChunkRef> = self.here.iter().map(chunk_of).collect();
        let missing = |found: Vec<bool>| here.iter().zip(found).find(|(_, found)| !found).map(|(chunk, _)| id(chunk));
        assert_eq!(missing(present(store, &here)), None, "a chunk that was put durably is gone");
        let gone: Vec<ChunkRef> = self.gone.iter().map(chunk_of).collect();
        let back = gone.iter().zip(store.has(&gone)).find(|(_, found)| *found).map(|(chunk, _)| id(chunk));
        assert_eq!(back, None, "a chunk that was deleted before a sync is back");
    }

    /// Chunks that may be in the store.
    fn known(&self) -> Vec<(u64, u32)> {
        [&self.here, &self.put, &self.uncertain].into_iter().flatten().copied().collect()
    }
}

fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 3000, ..plain_options() }
}

fn choose(promised: &Promised, next: &mut u64, random: &mut Random) -> Action {
    let known = promised.known();
    match random.below(20) {
        0..8 => {
            *next += 1;
            let count = 1 + random.below(4) as u32;
            Action::Put(numbered("name", 1..=count, *next), random.chance(60).into())
        }
        8..13 if !known.is_empty() => {
            let from = random.below(known.len() as u64) as usize;
            Action::Delete(known[from..].iter().take(1 + random.below(8) as usize).map(chunk_of).collect())
        }
        13 | 14 => Action::Sync,
        15..18 => Action::Compact,
        18 => Action::Reopen,
        // Chunks that are here: they are durable when this returns.
        _ => Action::Put(known.iter().map(chunk_of).collect(), Durability::Disk),
    }
}

struct Node {
    dir: TempDir,
    recording: Recording,
    store: Option<Store>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let steps = self.recording.steps();
            eprintln!("last steps:\n{}", self.recording.describe(steps.saturating_sub(40), steps));
        }
    }
}

impl Node {
    fn new(disk: Option<Disk>) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let recording = match disk {
            Some(disk) => Recording::resume(disk, dir.path()),
            None => Recording::start(dir.path()),
        };
        Self { dir, recording, store: None }
    }

    fn start(disk: Option<Disk>) -> Self {
        let mut node = Self::new(disk);
        node.open().unwrap();
        node
    }

    /// The data folder and the folder that contains it are made by the first open.
    fn open(&mut self) -> Result<(), StoreError> {
        self.store = None;
        self.store = Some(Store::open(&DataFolder::open(self.dir.path().join("deep/data"))?, options())?);
        Ok(())
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn act(&mut self, action: &Action) -> Result<(), StoreError> {
        match action {
            Action::Put(chunks, durability) if !chunks.is_empty() => {
                self.store().put(&batch(chunks, 200), *durability).map(drop)
            }
            Action::Put(..) => Ok(()),
            Action::Delete(chunks) => {
                let runs: Vec<_> =
                    chunks.iter().map(|chunk| run("name", chunk.id.index, 1, chunk.id.version.0)).collect();
                self.store().delete(&runs).map(drop)
            }
            Action::Sync => self.store().sync(),
            Action::Compact => self.store().compact().map(drop),
            Action::Reopen => self.open(),
        }
    }
}

/// Starts on `disk` after a power cut or a kill, and once more after another power cut.
fn crash(disk: Disk, promised: &Promised, random: &mut Random) {
    let disk = if random.chance(30) { disk } else { disk.power_cut(random) };
    let mut node = Node::start(Some(disk));
    promised.check(node.store());
    let opened = node.recording.steps();
    let mut again = promised.clone();
    // What is found here is durable once it has been put again, and deleted once a deletion is synced.
    for chunk in promised.put.union(&promised.deleted).map(chunk_of) {
        let found = node.store().has(std::slice::from_ref(&chunk))[0];
        let actions = match random.below(3) {
            0 if found => vec![Action::Put(vec![chunk], Durability::Disk)],
            1 => vec![Action::Delete(vec![chunk]), Action::Sync],
            _ => vec![],
        };
        for action in &actions {
            again.begin(action);
            if let Action::Put(chunks, _) = action {
                again.deleted.retain(|deleted| !chunks.iter().any(|chunk| id(chunk) == *deleted));
            }
            node.act(action).unwrap();
            if let Action::Sync = action {
                again.put.clear();
                again.deleted.retain(|deleted| !node.store().has(&[chunk_of(deleted)])[0]);
            }
            again.complete(action);
        }
    }
    let end = node.recording.steps();
    node.store = None;
    promised.check(Node::start(Some(node.recording.disk_after(end).power_cut(random))).store());
    again.check(Node::start(Some(node.recording.disk_after(end).power_cut(random))).store());
    let cut = random.below(opened as u64 + 1) as usize;
    promised.check(Node::start(Some(node.recording.disk_after(cut).power_cut(random))).store());
}

/// Says in which crash an assertion failed.
struct Whereabouts<'a>(u64, usize, &'a Recording);

impl Drop for Whereabouts<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, step, recording) = self;
            eprintln!("seed {seed}, step {step}\nlast steps:\n{}", recording.describe(step.saturating_sub(40), *step));
        }
    }
}

fn sweep(seed: u64, actions: usize, images: usize) {
    let (mut random, mut next) = (Random::new(seed), 0);
    let mut node = Node::start(None);
    let mut promised = Promised::default();
    let mut moments = vec![(0, promised.clone())];
    for _ in 0..actions {
        let action = choose(&promised, &mut next, &mut random);
        promised.begin(&action);
        moments.push((node.recording.steps(), promised.clone()));
        node.act(&action).unwrap();
        promised.complete(&action);
        moments.push((node.recording.steps(), promised.clone()));
    }
    node.store = None;
    for step in 0..=node.recording.steps() {
        let (_, promised) = moments.iter().rfind(|(from, _)| *from <= step).expect("the first has step 0");
        for image in 0..images as u64 {
            let _whereabouts = Whereabouts(seed, step, &node.recording);
            let mut random = Random::new(seed ^ (step as u64) << 32 ^ image << 52);
            crash(node.recording.disk_after(step), promised, &mut random);
        }
    }
}

/// How the disk fails in a run: the operations from `from` up to, but not including, `to` fail with `errno`.
#[derive(Clone, Copy, Debug)]
struct Failure {
    from: usize,
    to: usize,
    errno: i32,
    /// After the failure the kernel drops what it could not write.
    evicts: bool,
}

impl Failure {
    /// Whether it hits one of these attempts.
    fn hits(self, attempts: std::ops::Range<usize>) -> bool {
        self.from < attempts.end && attempts.start < self.to
    }
}

/// A run in which the disk fails for a while. Returns false if the run ended before.
fn run_with_failure(seed: u64, actions: usize, failure: Failure) -> bool {
    let (mut random, mut next) = (Random::new(seed), 0);
    let mut node = Node::new(None);
    node.recording.fail(failure.from, failure.to, failure.errno);
    let mut promised = Promised::default();
    open_again(&mut node, &promised);
    let mut evicts = failure.evicts;
    for _ in 0..actions {
        let action = choose(&promised, &mut next, &mut random);
        let before = node.recording.attempts();
        promised.begin(&action);
        let done = node.act(&action);
        let hit = failure.hits(before..node.recording.attempts());
        match (done, &action) {
            // The lists of dead records may follow later.
            (Ok(()), Action::Sync) if hit => promised.here.append(&mut promised.put),
            (Ok(()), _) => promised.complete(&action),
            (Err(error), _) => {
                assert!(hit || !matches!(action, Action::Reopen), "{action:?}: {error}");
                promised.fail(&action);
            }
        }
        if node.store.is_none() {
            open_again(&mut node, &promised);
        }
        if matches!(action, Action::Reopen) && node.recording.attempts() > failure.from {
            promised.accept_undone_deletions(node.store());
        }
        if hit && std::mem::take(&mut evicts) {
            node.recording.evict();
            promised.uncertain.append(&mut promised.put);
        }
        promised.check(node.store());
    }
    let (disk, attempts) = (node.recording.disk(), node.recording.attempts());
    node.recording.fail(0, 0, 0);
    settle(&node, &mut promised.clone());
    // As above: the next process may trust a list that could not be synced.
    promised.deleted.clear();
    crash(disk, &promised, &mut random);
    attempts > failure.from
}

/// Opens the store as often as the disk fails.
fn open_again(node: &mut Node, promised: &Promised) {
    let opened = (0..100).find_map(|_| node.open().ok());
    opened.expect("the store opens when the disk works again");
    promised.check(node.store());
}

/// The disk works again: the store is as good as new.
fn settle(node: &Node, promised: &mut Promised) {
    let idle = (0..1000).any(|_| matches!(node.store().compact(), Ok(None)));
    assert!(idle, "compaction does not end");
    node.store().sync().expect("a sync succeeds");
    let chunks: Vec<_> = promised.known().iter().map(chunk_of).chain(numbered("name", 1..=3, u64::MAX)).collect();
    node.store().put(&batch(&chunks, 200), Durability::Disk).expect("a put succeeds");
    promised.complete(&Action::Put(chunks, Durability::Disk));
    promised.check(node.store());
    let disk = node.recording.disk().power_cut(&mut Random::new(node.recording.steps() as u64));
    promised.check(Node::start(Some(disk)).store());
}

/// Counts the runs: every operation is the first that fails in one of them.
fn fail_each_operation(seed: u64, actions: usize, count: usize, errno: i32) {
    let failure = |from| Failure { from, to: from + count, errno, evicts: (from + seed as usize).is_multiple_of(3) };
    let failing = |from: &usize| {
        let failure = failure(*from);
        let _whereabouts = FailureWhereabouts(seed, failure);
        run_with_failure(seed, actions, failure)
    };
    let runs = (0..).take_while(failing).count();
    assert!(runs > actions, "{runs} operations");
}

/// Says in which run an assertion failed.
struct FailureWhereabouts(u64, Failure);

impl Drop for FailureWhereabouts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, {:?}", self.0, self.1);
        }
    }
}

#[test]
fn an_operation_that_fails_is_never_acknowledged_and_the_store_goes_on() {
    for seed in 0..2 {
        fail_each_operation(seed, 30, 1, libc::EIO);
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_does_no_harm() {
    for (seed, count) in [(0, 2), (1, 7), (2, 40)] {
        fail_each_operation(seed, 30, count, libc::ENOSPC);
    }
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_durable() {
    for seed in 0..3 {
        sweep(seed, 40, 1);
    }
}

/// Bug: a process was killed after it had named FORMAT and before that was durable. The next one found it and wrote the
/// uid, and a power cut then took FORMAT and kept the uid: the folder was refused for ever.
#[test]
fn a_folder_whose_first_open_was_interrupted_is_never_refused() {
    sweep(1_795_986_399, 0, 2);
}

/// How long the slow form goes on with other seeds.
const LONG_RUN: std::time::Duration = std::time::Duration::from_secs(5 * 60);

#[test]
#[ignore = "slow: power cuts at every step of other runs, for five minutes; SLOW_TESTS=1 tests/check.sh runs it"]
fn power_cuts_in_many_runs() {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let base: u64 = given.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let start = std::time::Instant::now();
    for seed in base.. {
        println!("SEED={seed}");
        sweep(seed, 80, 2);
        fail_each_operation(seed, 40, 1, libc::EIO);
        fail_each_operation(seed, 40, 1 + seed as usize % 20, [libc::EIO, libc::ENOSPC][seed as usize % 2]);
        if given.is_some() || start.elapsed() > LONG_RUN {
            return;
        }
    }
}
