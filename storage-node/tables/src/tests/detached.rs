//! Work that one log entry leaves to later ones.

use super::*;
use crate::detached::{HOLDS_STEP, STEP};

/// A file whose every second chunk is written, so that it has `count` extents.
fn fragmented(fixture: &mut Fixture, name: &str, count: u32, version: u64) -> Ino {
    let ino = fixture.file(name);
    let runs: Vec<_> = (0..count).map(|number| (2 * number + 1, 1, version)).collect();
    fixture.write(ino, &runs);
    ino
}

/// How many runs each entry puts on the dead list, until nothing is left to do.
fn purge_in_steps(fixture: &mut Fixture) -> Vec<usize> {
    let mut steps = Vec::new();
    while fixture.tables.has_purgeable(u64::MAX) {
        let before = fixture.tables.dead.len();
        fixture.purge(i64::MAX);
        steps.push(fixture.tables.dead.len() - before);
    }
    steps
}

/// The removal of a database file with a million extents used to stop all voters for five seconds.
#[test]
fn a_removed_file_is_taken_apart_in_steps() {
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 4 * STEP as u32, 1);
    fixture.unlink("f", false).unwrap();
    assert_eq!(fixture.purge(i64::MAX), 1);
    assert_eq!(fixture.tables.query(&Query::Open { ino }), Err(FsError::Stale { ino }));
    assert_eq!(purge_in_steps(&mut fixture), [STEP; 4]);
    assert_eq!(fixture.tables.query(&Query::StatFs), Ok(Answer::StatFs { inodes: 1, bytes: 0 }));
    assert!(fixture.tables.extents.is_empty() && fixture.tables.versions.is_empty());
}

#[test]
fn many_removed_files_share_the_steps() {
    let mut fixture = Fixture::new();
    for number in 0..10 {
        fragmented(&mut fixture, &format!("f{number}"), 2, 10 + number);
        fixture.unlink(&format!("f{number}"), false).unwrap();
    }
    let steps = purge_in_steps(&mut fixture);
    assert!(steps.iter().all(|dead| *dead <= STEP) && steps.iter().sum::<usize>() == 20, "{steps:?}");
}

#[test]
fn a_truncation_that_cuts_many_extents_takes_effect_at_once() {
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 20, 1);
    fixture.truncate(ino, 30, None).unwrap();
    assert_eq!(
        (fixture.contents(ino), fixture.dead(), fixture.attr(ino).size),
        ("1+1 v1, 3+1 v1".into(), "".into(), 30)
    );
    let again = |chunk| Commit { extents: vec![extent((chunk, 1, 1))], size_at_least: 400, ..Commit::default() };
    assert_eq!(fixture.commit(ino, again(7)), Err(FsError::Conflict { index: 7 }), "it will be deleted");
    fixture.write(ino, &[(7, 1, 2)]);
    assert_eq!(purge_in_steps(&mut fixture), [STEP; 6]);
    assert_eq!(fixture.contents(ino), "1+1 v1, 3+1 v1, 7+1 v2");
    assert_eq!(fixture.commit(ino, again(7)), Err(FsError::Conflict { index: 7 }), "it is on the dead list");
    fixture.truncate(ino, 0, None).unwrap();
    assert_eq!(fixture.contents(ino), "");
}

#[test]
fn detached_chunks_are_not_collected_as_orphans_a_second_time() {
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 8, 1);
    fixture.truncate(ino, 0, None).unwrap();
    let run =
        chordfs_types::chunk::ChunkRun { file: FileName::new("f").unwrap(), first: 1, count: 1, version: Version(1) };
    let collected = fixture.run_without_session(Change::CollectOrphans { runs: vec![run] });
    assert_eq!(collected, Ok(Reply::Collected { runs: 0 }));
}

#[test]
fn a_session_with_many_holds_ends_at_once_and_releases_them_in_steps() {
    let mut fixture = Fixture::new();
    let count = HOLDS_STEP + 5;
    for number in 0..count {
        fixture.file(&format!("f{number}"));
        fixture.unlink(&format!("f{number}"), true).unwrap();
    }
    fixture.run_without_session(Change::CloseSession { session: fixture.session }).unwrap();
    assert!(fixture.tables.unheld.is_empty() && !fixture.tables.has_session(fixture.session));
    fixture.run_without_session(Change::PurgeOrphans { before: 0, limit: 0 }).unwrap();
    assert_eq!(fixture.tables.unheld.len(), HOLDS_STEP);
    fixture.run_without_session(Change::PurgeOrphans { before: 0, limit: 0 }).unwrap();
    assert_eq!(fixture.tables.unheld.len(), count);
    assert!(!fixture.tables.has_leftovers());
}
