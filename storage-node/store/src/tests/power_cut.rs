//! The power is cut, or the process killed, at every step of a random run: afterwards the store opens, holds what was
//! put durably, and does not hold what was deleted before a sync.

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
                self.deleted.insert(id);
            });
        }
    }

    fn complete(&mut self, action: &Action) {
        match action {
            Action::Put(chunks, Durability::Disk) => {
                self.here.extend(chunks.iter().map(id));
                self.put.retain(|put| !self.here.contains(put));
            }
            Action::Put(chunks, Durability::Memory) => self.put.extend(chunks.iter().map(id)),
            Action::Sync => {
                self.here.append(&mut self.put);
                self.gone.append(&mut self.deleted);
            }
            Action::Delete(_) | Action::Compact | Action::Reopen => {}
        }
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
        self.here.union(&self.put).copied().collect()
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

impl Node {
    fn start(disk: Option<Disk>) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let recording = match disk {
            Some(disk) => Recording::resume(disk, dir.path()),
            None => Recording::start(dir.path()),
        };
        let store = Some(open(dir.path(), &options()));
        Self { dir, recording, store }
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
            Action::Reopen => {
                self.store = None;
                self.store = Some(Store::open(&DataFolder::open(self.dir.path()).unwrap(), options())?);
                Ok(())
            }
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

#[test]
fn a_power_cut_at_any_step_loses_nothing_durable() {
    for seed in 0..3 {
        sweep(seed, 40, 1);
    }
}

#[test]
#[ignore = "slow: power cuts at every step of a hundred runs; SLOW_TESTS=1 tests/check.sh runs it"]
fn power_cuts_in_many_runs() {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let base = given.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    println!("SEED={base}");
    for seed in base..base + 100 {
        sweep(seed, 80, 2);
    }
}
