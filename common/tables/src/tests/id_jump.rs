//! A namespace that continues from a state without the last operations allocates no number that they may have used.

use chordfs_types::chunk::ChunkRun;

use super::*;
use crate::id_jump::SPARED_FOR_SECS;

/// Allocates versions, an inode and a session for a mount.
fn allocate(fixture: &mut Fixture, name: &str) -> (u64, u64, u64) {
    let Ok(Reply::Versions(block)) = fixture.run(Change::AllocateVersions { count: 1000 }) else {
        panic!("no versions")
    };
    let ino = fixture.file(name).0;
    (block.first.0, ino, fixture.open(fixture.clock as u64 + 100).0)
}

/// The survivor of three voters lacked the last writes of the other two and allocated their versions again. Nodes then
/// had two chunks of one name and version with different contents.
#[test]
fn numbers_that_a_lost_majority_allocated_are_never_allocated_again() {
    let mut fixture = Fixture::new();
    allocate(&mut fixture, "known");
    let mut survivor = Fixture { tables: fixture.tables.clone(), feed: Vec::new(), ..fixture };
    let lost: Vec<_> = (0..50).map(|number| allocate(&mut fixture, &format!("lost {number}"))).collect();
    assert!(survivor.tables.jump_ids(IdJump::new(7), at(5)));
    let after: Vec<_> = (0..50).map(|number| allocate(&mut survivor, &format!("new {number}"))).collect();
    let last = lost.iter().copied().reduce(|a, b| (a.0.max(b.0), a.1.max(b.1), a.2.max(b.2))).unwrap();
    assert!(after.iter().all(|new| new.0 > last.0 + 5000 && new.1 > last.1 && new.2 > last.2), "{last:?} {after:?}");
}

#[test]
fn two_recoveries_from_two_folders_continue_from_different_numbers() {
    let mut first = Tables::new();
    let mut second = Tables::new();
    assert!(first.jump_ids(IdJump::new(1 << 45 | 1 << 39), at(5)) && second.jump_ids(IdJump::new(3), at(5)));
    let apart = |a: u64, b: u64| a.abs_diff(b) > 1 << 38;
    assert!(apart(first.next.version, second.next.version) && apart(first.next.ino, second.next.ino));
}

/// A mount has versions that the lost majority allocated, and has stored chunks under them; no other session gets them.
#[test]
fn a_mount_may_commit_versions_that_the_lost_majority_allocated() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let lost = fixture.tables.next.version + 5000;
    assert!(fixture.tables.jump_ids(IdJump::new(0), at(5)));
    fixture.write(ino, &[(1, 3, lost)]);
    assert_eq!(fixture.contents(ino), format!("1+3 v{lost}"));
}

#[test]
fn skipped_versions_are_not_collected_for_a_month() {
    let mut fixture = Fixture::new();
    let lost = Version(fixture.tables.next.version + 5000);
    assert!(fixture.tables.jump_ids(IdJump::new(0), at(5)));
    let collect = |fixture: &mut Fixture| {
        let run = ChunkRun { file: FileName::new("f").unwrap(), first: 1, count: 2, version: lost };
        fixture.run_without_session(Change::CollectOrphans { runs: vec![run] })
    };
    let asked = Query::Unreferenced { runs: vec![Extent { first: 1, count: 2, version: lost }] };
    let free = |fixture: &Fixture| match fixture.tables.query(&asked) {
        Ok(Answer::Unreferenced { pieces, .. }) => pieces.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((free(&fixture), collect(&mut fixture)), (0, Ok(Reply::Collected { runs: 0 })));
    fixture.clock = 6 + SPARED_FOR_SECS;
    assert_eq!((collect(&mut fixture), free(&fixture)), (Ok(Reply::Collected { runs: 1 }), 1));
}

/// Versions are allocated in blocks, long before they are used. So the last writes of the lost majority have versions
/// that the survivor knows, but in none of its files: to the survivor they look like garbage.
#[test]
fn chunks_with_versions_from_before_the_jump_are_not_collected_either() {
    let mut fixture = Fixture::new();
    let lost = Version(allocate(&mut fixture, "known").0);
    let mut survivor = Fixture { tables: fixture.tables.clone(), feed: Vec::new(), ..fixture };
    let run = || ChunkRun { file: FileName::new("f").unwrap(), first: 1, count: 2, version: lost };
    let collect = |fixture: &mut Fixture| fixture.run_without_session(Change::CollectOrphans { runs: vec![run()] });
    let asked = Query::Unreferenced { runs: vec![Extent { first: 1, count: 2, version: lost }] };
    assert!(survivor.tables.jump_ids(IdJump::new(7), at(survivor.clock)));
    let pieces = match survivor.tables.query(&asked) {
        Ok(Answer::Unreferenced { pieces, .. }) => pieces,
        other => panic!("{other:?}"),
    };
    assert_eq!((pieces, collect(&mut survivor)), (vec![], Ok(Reply::Collected { runs: 0 })));
    survivor.clock += SPARED_FOR_SECS + 2;
    assert_eq!(collect(&mut survivor), Ok(Reply::Collected { runs: 1 }));
}

#[test]
fn numbers_run_out_after_many_recoveries_and_do_not_wrap() {
    let mut tables = Tables::new();
    let jumps = (0..).take_while(|_| tables.jump_ids(IdJump::new(u64::MAX), at(5))).count();
    assert_eq!(jumps, 1 << 15);
    let before = tables.clone();
    assert!(!tables.jump_ids(IdJump::new(u64::MAX), at(5)));
    assert_eq!(tables, before);
}

/// After a recovery a mount that had the newest state of an open file refused each answer about it as older than that,
/// and programs got errors until the last of them had closed the file.
#[test]
fn an_inode_is_newer_after_the_jump_than_in_any_lost_operation() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let mut lost = Fixture { tables: fixture.tables.clone(), feed: Vec::new(), ..fixture };
    (0..100).for_each(|_| lost.write(ino, &[(1, 1, 1)]));
    for random in [7, 0] {
        let (before, jump) = (fixture.attr(ino).change, IdJump::new(random));
        assert!(fixture.tables.jump_ids(jump, at(5)));
        let after = fixture.attr(ino).change;
        assert!(after > lost.attr(ino).change, "the mount takes this state for the newer one");
        // The log continues behind the jump.
        assert_eq!(after, before + jump.others);
    }
    assert!(Tables::new().is_root_new());
    let mut new = Tables::new();
    assert!(new.jump_ids(IdJump::new(1), at(5)) && new.is_root_new(), "its owner is still to be set");
}
