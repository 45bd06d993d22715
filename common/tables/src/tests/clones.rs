//! Clones: what they share, and when it is dead. A random test compares files and dead chunks with a naive model.

use std::collections::{BTreeMap, BTreeSet};

use chordfs_types::{
    chunk::{ChunkId, ChunkRun},
    namespace::ClonedRun,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

impl Fixture {
    /// Clones `count` chunks; returns how many it were.
    fn clone_range(&mut self, from: (Ino, u32), to: (Ino, u32), count: u32) -> Result<u32, FsError> {
        let size_at_least = u64::from(to.1 - 1 + count) * 10;
        let size = |ino| self.tables.inode(ino).map_or(0, |inode| inode.attr.size);
        let change = Change::CloneRange {
            sizes: (size(from.0), size(to.0)),
            from: from.0,
            from_first: from.1,
            ino: to.0,
            first: to.1,
            count,
            chunk_bytes: 10,
            size_at_least,
        };
        match self.run(change)? {
            Reply::Cloned { attr, count } => {
                assert_eq!(attr, self.attr(to.0));
                Ok(count)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The chunks of a file as they are stored, found the way a reader finds them.
    fn stored(&self, ino: Ino) -> BTreeMap<u32, ChunkId> {
        let mut stored = BTreeMap::new();
        for extent in self.tables.extents_from(ino, 1) {
            let clone = self.describe(extent.version);
            for index in extent.first..=extent.first + (extent.count - 1) {
                let id = match &clone {
                    Some(clone) => clone.stored_chunk(index).expect("the clone has this chunk").id,
                    None => ChunkId { version: extent.version, index },
                };
                stored.insert(index, id);
            }
        }
        stored
    }

    fn describe(&self, version: Version) -> Option<ClonedRun> {
        match self.tables.query(&Query::Clones { versions: vec![version] }) {
            Ok(Answer::Clones(clones)) => clones.into_iter().next(),
            other => panic!("{other:?}"),
        }
    }

    fn stored_bytes(&self) -> u64 {
        match self.tables.query(&Query::StatFs) {
            Ok(Answer::StatFs { bytes, .. }) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

fn ids(chunks: &[(u32, (u64, u32))]) -> BTreeMap<u32, ChunkId> {
    chunks.iter().map(|(at, (version, index))| (*at, ChunkId { version: Version(*version), index: *index })).collect()
}

#[test]
fn a_clone_has_the_chunks_and_holes_of_its_source_and_takes_no_space() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    fixture.write(source, &[(1, 3, 7), (5, 2, 8)]);
    fixture.write(copy, &[(13, 3, 9)]);
    assert_eq!(fixture.clone_range((source, 2), (copy, 12), 4), Ok(4));
    let expected = ids(&[(12, (7, 2)), (13, (7, 3)), (15, (8, 5))]);
    assert_eq!(fixture.stored(copy), expected);
    assert_eq!((fixture.dead().as_str(), fixture.stored_bytes()), ("13+3 v9", 50));
    let attr = fixture.attr(copy);
    assert_eq!((attr.size, attr.holes, attr.stored_bytes()), (150, 12, 30));
    assert!(fixture.feed.contains(&FeedEvent::Inode { ino: copy, contents: true }));
}

#[test]
fn shared_chunks_are_dead_when_nobody_has_them_any_more() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    fixture.write(source, &[(1, 4, 7)]);
    fixture.clone_range((source, 1), (copy, 1), 4).unwrap();
    let again = fixture.file("again");
    fixture.clone_range((copy, 3), (again, 1), 2).unwrap();
    fixture.truncate(source, 0, None).unwrap();
    assert_eq!((fixture.dead().as_str(), fixture.stored_bytes()), ("", 40));
    fixture.unlink("copy", false).unwrap();
    fixture.purge(i64::MAX);
    assert_eq!((fixture.dead().as_str(), fixture.stored_bytes()), ("1+2 v7", 20));
    assert_eq!(fixture.stored(again), ids(&[(1, (7, 3)), (2, (7, 4))]));
    fixture.write(again, &[(1, 2, 9)]);
    assert_eq!((fixture.dead().as_str(), fixture.stored_bytes()), ("1+2 v7, 3+2 v7", 20));
    assert_eq!(fixture.tables.clones, Clones::default());
}

#[test]
fn chunks_that_were_cloned_are_no_orphans_and_never_become_current_again() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    fixture.write(source, &[(1, 4, 7)]);
    fixture.clone_range((source, 1), (copy, 1), 4).unwrap();
    fixture.truncate(source, 0, None).unwrap();
    let commit = Commit { extents: vec![extent((1, 4, 7))], size_at_least: 40, ..Commit::default() };
    assert_eq!(fixture.commit(source, commit), Err(FsError::Conflict { index: 1 }));
    let runs = vec![extent((1, 4, 7))];
    let unreferenced = fixture.tables.query(&Query::Unreferenced { runs });
    assert_eq!(unreferenced, Ok(Answer::Unreferenced { pieces: vec![], next: None }));
    let run = ChunkRun { file: fixture.attr(source).file, first: 1, count: 4, version: Version(7) };
    assert_eq!(fixture.run(Change::CollectOrphans { runs: vec![run] }), Ok(Reply::Collected { runs: 0 }));
}

#[test]
fn what_cannot_be_cloned_is_refused_and_changes_nothing() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    fixture.write(source, &[(1, 4, 7)]);
    let before = (fixture.contents(source), fixture.contents(copy));
    assert!(fixture.clone_range((source, 1), (source, 3), 4).is_err(), "onto itself");
    assert!(fixture.clone_range((source, 1), (copy, 1), 0).is_err(), "nothing");
    assert!(fixture.clone_range((source, u32::MAX), (copy, 1), 2).is_err(), "beyond the last chunk");
    assert!(fixture.clone_range((Ino(99), 1), (copy, 1), 1).is_err(), "from nowhere");
    assert!(fixture.clone_range((source, 1), (Ino::ROOT, 1), 1).is_err(), "into a directory");
    let other = NewNode { chunk_bytes: 20, ..node(FileKind::File) };
    let other = fixture.make(Ino::ROOT, "other", other).unwrap().ino;
    assert_eq!(fixture.clone_range((source, 1), (other, 1), 1), Err(FsError::Stale { ino: other }));
    assert_eq!(fixture.clone_range((other, 1), (copy, 1), 1), Err(FsError::Stale { ino: other }));
    assert_eq!((fixture.contents(source), fixture.contents(copy)), before);
    assert_eq!(fixture.clone_range((source, 1), (source, 5), 4), Ok(4), "beside itself");
}

#[test]
fn a_clone_is_refused_if_either_file_has_another_size_than_its_range_was_chosen_for() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    fixture.write(source, &[(1, 2, 7)]);
    let clone = |sizes| Change::CloneRange {
        from: source,
        from_first: 1,
        ino: copy,
        first: 1,
        count: 2,
        chunk_bytes: 10,
        size_at_least: 20,
        sizes,
    };
    for sizes in [(20, 1), (19, 0), (21, 0)] {
        assert_eq!(fixture.run(clone(sizes)), Err(FsError::Conflict { index: 1 }), "{sizes:?}");
    }
    assert_eq!(fixture.contents(copy), "");
    assert!(fixture.run(clone((20, 0))).is_ok());
}

#[test]
fn a_list_of_contents_has_the_chunks_as_they_are_stored() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    fixture.write(source, &[(1, 4, 7)]);
    fixture.write(copy, &[(1, 1, 8)]);
    fixture.clone_range((source, 2), (copy, 5), 2).unwrap();
    let file =
        |fixture: &Fixture, ino, of, run| FileContents { ino, file: fixture.attr(of).file, extents: vec![extent(run)] };
    let files = vec![
        file(&fixture, source, source, (1, 4, 7)),
        file(&fixture, copy, copy, (1, 1, 8)),
        file(&fixture, copy, source, (2, 2, 7)),
    ];
    assert_eq!(
        fixture.tables.query(&Query::Contents { ino: Ino::ROOT, first: 1 }),
        Ok(Answer::Contents { files, next: None })
    );
}

#[test]
fn very_many_extents_are_cloned_in_several_steps() {
    let mut fixture = Fixture::new();
    let (source, copy) = (fixture.file("source"), fixture.file("copy"));
    // Every second chunk is a hole.
    let runs: Vec<_> = (0..1500).map(|number| (2 * number + 2, 1, 7)).collect();
    fixture.write(source, &runs);
    assert_eq!(fixture.clone_range((source, 1), (copy, 1), 3000), Ok(2049));
    assert_eq!(fixture.attr(copy).size, 20490);
    assert_eq!(fixture.clone_range((source, 2050), (copy, 2050), 951), Ok(951));
    assert_eq!(fixture.stored(copy), fixture.stored(source));
}

/// A few files, and random changes of them.
struct World {
    fixture: Fixture,
    rng: StdRng,
    /// What is in each file as it is stored, by the number in the file.
    model: BTreeMap<Ino, BTreeMap<u32, ChunkId>>,
    /// All chunks that were ever in a file.
    used: BTreeSet<ChunkId>,
    next_version: u64,
    names: u32,
}

const CHUNKS: u32 = 12;

impl World {
    fn new(seed: u64) -> Self {
        let (fixture, rng) = (Fixture::new(), StdRng::seed_from_u64(seed));
        Self { fixture, rng, model: BTreeMap::new(), used: BTreeSet::new(), next_version: 1, names: 0 }
    }

    fn file(&mut self) -> Ino {
        let at = self.rng.random_range(0..self.model.len());
        *self.model.keys().nth(at).unwrap()
    }

    fn range(&mut self) -> (u32, u32) {
        let first = self.rng.random_range(1..=CHUNKS);
        (first, self.rng.random_range(1..=4))
    }

    fn step(&mut self) {
        let (first, count) = self.range();
        match self.rng.random_range(0..10) {
            _ if self.model.len() < 2 => self.create(),
            0 => self.create(),
            1..4 => {
                let (ino, version) = (self.file(), self.next_version);
                self.next_version += 1;
                self.fixture.write(ino, &[(first, count, version)]);
                for index in first..first + count {
                    let id = ChunkId { version: Version(version), index };
                    self.model.get_mut(&ino).unwrap().insert(index, id);
                    self.used.insert(id);
                }
            }
            4..7 => self.clone_some((first, count)),
            7 => {
                let ino = self.file();
                let punch = Change::PunchHole { ino, first, count, chunk_bytes: 10 };
                self.fixture.run(punch).unwrap();
                self.model.get_mut(&ino).unwrap().retain(|index, _| !(first..first + count).contains(index));
            }
            8 => {
                let ino = self.file();
                self.fixture.truncate(ino, u64::from(first - 1) * 10, None).unwrap();
                self.model.get_mut(&ino).unwrap().retain(|index, _| *index < first);
            }
            _ => {
                let ino = self.file();
                let name = self.fixture.attr(ino).file.to_string();
                self.fixture.unlink(&name, false).unwrap();
                self.model.remove(&ino);
            }
        }
        if self.rng.random_bool(0.3) {
            self.fixture.purge(i64::MAX);
        }
    }

    fn create(&mut self) {
        self.names += 1;
        let ino = self.fixture.file(&format!("f{}", self.names));
        self.model.insert(ino, BTreeMap::new());
    }

    fn clone_some(&mut self, (first, count): (u32, u32)) {
        let (from, to, from_first) = (self.file(), self.file(), self.rng.random_range(1..=CHUNKS));
        let overlaps = from == to && from_first < first + count && first < from_first + count;
        let cloned = self.fixture.clone_range((from, from_first), (to, first), count);
        assert_eq!(cloned.is_err(), overlaps, "{cloned:?}");
        if overlaps {
            return;
        }
        for after in 0..count {
            let found = self.model[&from].get(&(from_first + after)).copied();
            let target = self.model.get_mut(&to).unwrap();
            match found {
                Some(id) => drop(target.insert(first + after, id)),
                None => drop(target.remove(&(first + after))),
            }
        }
    }

    fn check(&self) {
        for (ino, expected) in &self.model {
            assert_eq!(&self.fixture.stored(*ino), expected, "{ino:?}");
            let attr = self.fixture.attr(*ino);
            assert_eq!(u64::from(attr.holes), attr.size / 10 - expected.len() as u64, "{ino:?}");
        }
        let had: BTreeSet<ChunkId> = self.model.values().flat_map(|chunks| chunks.values().copied()).collect();
        let tables = &self.fixture.tables;
        let dead: Vec<ChunkId> = tables.dead.values().flat_map(|dead| chunks_of(&dead.run)).collect();
        let all: BTreeSet<ChunkId> = dead.iter().copied().collect();
        assert_eq!(all.len(), dead.len(), "a chunk is dead twice");
        assert!(had.is_disjoint(&all), "a chunk is dead that a file has");
        for id in &had {
            let run = ChunkRun {
                file: tables.inodes[&Ino::ROOT].attr.file.clone(),
                first: id.index,
                count: 1,
                version: id.version,
            };
            assert!(tables.is_current(&run), "{id:?}");
        }
        if !tables.has_purgeable(u64::MAX) {
            let gone: BTreeSet<ChunkId> = self.used.difference(&had).copied().collect();
            assert_eq!(all, gone, "what no file has is dead");
            assert_eq!(self.fixture.stored_bytes(), had.len() as u64 * 10);
        }
    }
}

fn chunks_of(run: &ChunkRun) -> impl Iterator<Item = ChunkId> + use<> {
    let version = run.version;
    (run.first..run.first + run.count).map(move |index| ChunkId { version, index })
}

/// `CLONES_SEED` runs that seed alone.
#[test]
fn random_clones_agree_with_a_model() {
    let seeds = match std::env::var("CLONES_SEED") {
        Ok(seed) => vec![seed.parse().expect("CLONES_SEED is a number")],
        Err(_) => (0..300).collect(),
    };
    for seed in seeds {
        let mut world = World::new(seed);
        for step in 0..150 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                world.step();
                world.check();
            }));
            if let Err(panic) = outcome {
                eprintln!("CLONES_SEED={seed}, step {step}");
                std::panic::resume_unwind(panic);
            }
        }
        // In the end nothing is left.
        for ino in world.model.keys().copied().collect::<Vec<_>>() {
            world.fixture.truncate(ino, 0, None).unwrap();
            world.model.insert(ino, BTreeMap::new());
        }
        while world.fixture.tables.has_purgeable(u64::MAX) {
            world.fixture.purge(i64::MAX);
        }
        world.check();
        assert_eq!(world.fixture.tables.clones, Clones::default(), "CLONES_SEED={seed}");
    }
}
