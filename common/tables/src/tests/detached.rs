//! Work that one log entry leaves to later ones.

use chordfs_types::{
    chunk::ChunkRun,
    namespace::{MAX_COLLECTED_RUNS, MAX_HOLDS},
};

use super::*;
use crate::{
    detached::{HOLDS_STEP, STEP},
    orphan_chunks::MAX_EXAMINED_TO_COLLECT,
    work,
};

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

/// A database that is vacuumed in the middle used to stop all voters, because both sides of the cut were long.
#[test]
fn a_truncation_in_the_middle_of_many_extents_takes_effect_at_once() {
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 20, 1);
    fixture.truncate(ino, 200, None).unwrap();
    let kept = fixture.contents(ino);
    assert_eq!((kept.matches('v').count(), fixture.dead(), fixture.attr(ino).size), (10, "".into(), 200));
    fixture.write(ino, &[(20, 3, 2)]);
    // An extent is cut where two segments meet.
    let written = format!("{kept}, 20+1 v2, 21+2 v2");
    assert_eq!(fixture.contents(ino), written);
    purge_in_steps(&mut fixture);
    assert_eq!(fixture.contents(ino), written);
    assert_eq!(fixture.dead().matches('v').count(), 10);
    fixture.truncate(ino, 0, None).unwrap();
    purge_in_steps(&mut fixture);
    assert_eq!((fixture.contents(ino), fixture.tables.extents.len()), ("".into(), 0));
}

#[test]
fn a_commit_that_covers_many_extents_takes_effect_at_once() {
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 20, 1);
    fixture.write(ino, &[(4, 29, 2)]);
    assert_eq!(fixture.contents(ino), "1+1 v1, 3+1 v1, 4+29 v2, 33+1 v1, 35+1 v1, 37+1 v1, 39+1 v1");
    assert_eq!(fixture.dead(), "");
    fixture.write(ino, &[(2, 40, 3)]);
    purge_in_steps(&mut fixture);
    assert_eq!(fixture.contents(ino), "1+1 v1, 2+40 v3");
    assert_eq!(fixture.dead().matches('v').count(), 20);
}

#[test]
fn a_file_that_is_rewritten_in_order_remains_in_few_segments() {
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 100, 1);
    for number in 0..20 {
        fixture.write(ino, &[(10 * number + 1, 10, 2 + u64::from(number))]);
    }
    assert!(fixture.tables.places.len() <= 2, "{:?}", fixture.tables.places);
    purge_in_steps(&mut fixture);
    assert_eq!(fixture.tables.extents.len(), 20);
}

/// The rows that one entry touches are bounded, whatever is in the tables and in the entry.
#[test]
fn no_entry_touches_more_rows_than_its_own_and_a_bounded_number() {
    const FRAGMENTS: u32 = 50_000;
    let mut fixture = Fixture::new();
    let ino = fragmented(&mut fixture, "f", 0, 1);
    for at in (0..FRAGMENTS).step_by(1000) {
        let runs: Vec<_> = (at..at + 1000).map(|number| (2 * number + 1, 1, 1)).collect();
        fixture.write(ino, &runs);
    }
    let mut rows =
        |what: &str, limit: usize, entry: &dyn Fn(&mut Fixture)| check_rows(&mut fixture, what, limit, entry);
    let bound = 10 * STEP;
    rows("a truncation in the middle", bound, &|it| _ = it.truncate(ino, 10 * 70_000, None).unwrap());
    rows("a commit that covers most of it", bound, &|it| it.write(ino, &[(1000, 50_000, 2)]));
    let runs: Vec<_> = (0..MAX_COMMIT_RUNS as u32).map(|number| (52_001 + 8 * number, 7, 3)).collect();
    let own = 10 * MAX_COMMIT_RUNS;
    rows("a commit of many runs", bound + own, &|it| it.write(ino, &runs));
    rows("a step of the purge", bound, &|it| _ = it.purge(0));
    let run = ChunkRun { file: FileName::new("f").unwrap(), first: 1, count: u32::MAX - 1, version: Version(1) };
    let runs = vec![run; 100];
    let collect = Change::CollectOrphans { runs };
    rows("orphans to collect", MAX_EXAMINED_TO_COLLECT, &|it| _ = it.run_without_session(collect.clone()).unwrap());
    let discard = DiscardedRuns { file: FileName::new("f").unwrap(), runs: vec![extent((1, u32::MAX - 1, 1)); 100] };
    rows("discarded runs", MAX_EXAMINED_TO_COLLECT, &|it| {
        _ = it.run(Change::Discard { files: vec![discard.clone()] }).unwrap();
    });
    rows("an unlink", bound, &|it| _ = it.unlink("f", false).unwrap());
    rows("a purge", bound, &|it| _ = it.purge(i64::MAX));
}

#[test]
fn holding_and_releasing_many_files_touches_a_row_for_each() {
    let mut fixture = Fixture::new();
    let mut inos = vec![fragmented(&mut fixture, "f0", 100, 1)];
    inos.extend((1..MAX_HOLDS).map(|number| fixture.file(&format!("f{number}"))));
    for number in 0..MAX_HOLDS {
        fixture.unlink(&format!("f{number}"), false).unwrap();
    }
    let held = |inos: &[Ino]| Ok(Reply::Held { inos: inos.to_vec() });
    let (hold, release) = (Change::HoldOrphans { inos: inos.clone() }, Change::Release { inos: inos.clone() });
    check_rows(&mut fixture, "holding", MAX_HOLDS, &|it| assert_eq!(it.run(hold.clone()), held(&inos)));
    check_rows(&mut fixture, "releasing", MAX_HOLDS, &|it| assert_eq!(it.run(release.clone()), Ok(Reply::Done)));
    assert_eq!(fixture.tables.unheld.len(), MAX_HOLDS);
}

#[track_caller]
fn check_rows(fixture: &mut Fixture, what: &str, limit: usize, entry: &dyn Fn(&mut Fixture)) {
    work::take();
    entry(fixture);
    let touched = work::take();
    assert!(touched <= limit, "{what} touched {touched} rows, more than {limit}");
}

#[test]
fn requests_of_very_many_items_are_refused() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let runs = |count: usize| (0..count as u32).map(|number| extent((2 * number + 1, 1, 1))).collect::<Vec<_>>();
    let extents = runs(MAX_COMMIT_RUNS + 1);
    assert!(is_invalid(fixture.commit(ino, Commit { extents, size_at_least: 1 << 20, ..Commit::default() })));
    assert!(is_invalid(fixture.run(Change::Release { inos: vec![ino; MAX_HOLDS + 1] })));
    let file = FileName::new("f").unwrap();
    let files = vec![DiscardedRuns { file: file.clone(), runs: runs(MAX_COLLECTED_RUNS + 1) }];
    assert!(is_invalid(fixture.run(Change::Discard { files })));
    let run = ChunkRun { file, first: 1, count: 1, version: Version(1) };
    assert!(is_invalid(fixture.run(Change::CollectOrphans { runs: vec![run; MAX_COLLECTED_RUNS + 1] })));
}
