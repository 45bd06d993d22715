//! Chunks whose data is in the log.

use chordfs_types::{chunk::ChunkId, namespace::LoggedChunk};

use super::*;

fn id(version: u64, index: u32) -> ChunkId {
    ChunkId { version: Version(version), index }
}

/// A commit of one run, with the data of all its chunks.
fn with_data(ino: Ino, run: (u32, u32, u64)) -> Change {
    let run = extent(run);
    let commit = Commit { extents: vec![run], size_at_least: (run.end() - 1) * 10, ..Commit::default() };
    let chunks = run.range().map(|index| LoggedChunk { id: id(run.version.0, index as u32), data: data(index) });
    Change::CommitWithData { ino, commit, chunks: chunks.collect() }
}

fn data(index: u64) -> Bytes {
    Bytes::from(vec![index as u8; 10])
}

impl Fixture {
    fn kept(&self) -> Vec<ChunkId> {
        self.tables.chunks_to_place(u64::MAX).map(|(id, ..)| id).collect()
    }
}

#[test]
fn data_is_kept_until_it_is_forgotten_or_its_chunk_is_replaced() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.run(with_data(ino, (1, 4, 1))).unwrap();
    assert_eq!(fixture.contents(ino), "1+4 v1");
    assert_eq!(fixture.kept(), [id(1, 1), id(1, 2), id(1, 3), id(1, 4)]);
    let ids = vec![id(1, 2), id(1, 9), id(1, 4)];
    let kept = |index: u64| LoggedChunk { id: id(1, index as u32), data: data(index) };
    let answer = fixture.tables.query(&Query::LoggedChunks { ids });
    assert_eq!(answer, Ok(Answer::LoggedChunks(vec![kept(2), kept(4)])));
    fixture.write(ino, &[(2, 1, 2)]);
    fixture.truncate(ino, 30, None).unwrap();
    assert_eq!(fixture.kept(), [id(1, 1), id(1, 3)]);
    fixture.run_without_session(Change::ForgetLogged { chunks: vec![id(1, 3), id(5, 5)] }).unwrap();
    assert_eq!(fixture.kept(), [id(1, 1)]);
    fixture.unlink("f", false).unwrap();
    fixture.purge(100);
    assert_eq!((fixture.kept(), fixture.tables.logged_totals()), (vec![], (0, 0)));
}

/// A reader may have looked up the version just before it was replaced.
#[test]
fn replaced_data_stays_for_readers_until_its_chunk_is_forgotten_or_the_space_is_needed() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let readable = |fixture: &Fixture, id: ChunkId| {
        let answer = fixture.tables.query(&Query::LoggedChunks { ids: vec![id] });
        matches!(answer, Ok(Answer::LoggedChunks(found)) if found.len() == 1)
    };
    fixture.run(with_data(ino, (1, 1, 1))).unwrap();
    fixture.run(with_data(ino, (1, 1, 2))).unwrap();
    assert!(readable(&fixture, id(1, 1)) && readable(&fixture, id(2, 1)));
    assert_eq!(fixture.kept(), [id(2, 1)], "a replaced chunk is not stored");
    let Ok(Answer::Dead(dead)) = fixture.tables.query(&Query::Dead { before: 100, limit: 9 }) else { panic!() };
    fixture.run_without_session(Change::ForgetDead { ids: dead.iter().map(|(id, _)| *id).collect() }).unwrap();
    assert!(!readable(&fixture, id(1, 1)) && readable(&fixture, id(2, 1)));
    for version in 3..20 {
        fixture.run(with_data(ino, (1, 1, version))).unwrap();
    }
    assert!(readable(&fixture, id(18, 1)) && !readable(&fixture, id(3, 1)), "the oldest make room");
    assert_eq!(fixture.kept(), [id(19, 1)]);
}

#[test]
fn chunks_are_placed_with_the_name_of_their_file_when_they_are_old_enough() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.run(with_data(ino, (1, 2, 1))).unwrap();
    let first = fixture.clock as u64;
    fixture.rename((Ino::ROOT, "f"), (Ino::ROOT, "g"), RenameMode::Replace).unwrap();
    fixture.run(with_data(ino, (3, 1, 2))).unwrap();
    let due: Vec<(ChunkId, String, Bytes)> = fixture
        .tables
        .chunks_to_place(first + 1)
        .map(|(id, file, data)| (id, file.to_string(), data.clone()))
        .collect();
    assert_eq!(due, [(id(1, 1), "f".into(), data(1)), (id(1, 2), "f".into(), data(2))]);
}

#[test]
fn data_of_other_chunks_and_too_much_of_it_are_refused() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let Change::CommitWithData { commit, .. } = with_data(ino, (1, 2, 1)) else { panic!() };
    for (bad, bytes) in [(id(1, 3), 10), (id(2, 1), 10), (id(1, 1), 11)] {
        let chunks = vec![LoggedChunk { id: bad, data: Bytes::from(vec![0; bytes]) }];
        let refused = fixture.run(Change::CommitWithData { ino, commit: commit.clone(), chunks });
        assert!(is_invalid(refused), "{bad:?} of {bytes} bytes");
    }
    assert_eq!((fixture.contents(ino), fixture.kept()), (String::new(), vec![]));
}

#[test]
fn a_full_log_refuses_data_and_takes_commits_without_it() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let mut refused = None;
    for index in 1..1000 {
        if let Err(error) = fixture.run(with_data(ino, (index, 1, u64::from(index)))) {
            refused = Some((index, error));
            break;
        }
    }
    let Some((index, FsError::LogFull)) = refused else { panic!("{refused:?}") };
    fixture.write(ino, &[(index, 1, u64::from(index))]);
    fixture.run_without_session(Change::ForgetLogged { chunks: fixture.kept() }).unwrap();
    fixture.run(with_data(ino, (index, 1, 2000))).unwrap();
    assert_eq!(fixture.kept(), [id(2000, index)]);
}

#[test]
fn a_repeated_commit_keeps_its_data_once() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.run(with_data(ino, (1, 2, 1))).unwrap();
    let totals = fixture.tables.logged_totals();
    fixture.run(with_data(ino, (1, 2, 1))).unwrap();
    assert_eq!(fixture.tables.logged_totals(), totals);
}
