//! Contents: commit, truncate, the dead list, attributes.

use chordfs_types::chunk::ChunkRun;

use super::*;

fn file_of(runs: &[(u32, u32, u64)]) -> (Fixture, Ino) {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, runs);
    (fixture, ino)
}

#[test]
fn a_commit_splits_the_extents_that_it_covers_in_part() {
    let (mut fixture, ino) = file_of(&[(1, 10, 1)]);
    fixture.write(ino, &[(4, 3, 2)]);
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+3 v1, 4+3 v2, 7+4 v1".into(), "4+3 v1".into()));
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).mtime), (100, at(fixture.clock)));
    assert_eq!(fixture.feed, [FeedEvent::Inode { ino, contents: true }]);
    fixture.write(ino, &[(3, 9, 3)]);
    assert_eq!(fixture.contents(ino), "1+2 v1, 3+9 v3");
    assert_eq!(fixture.dead(), "4+3 v1, 3+1 v1, 4+3 v2, 7+4 v1");
}

#[test]
fn dead_runs_carry_the_name_of_their_file() {
    let (mut fixture, ino) = file_of(&[(1, 2, 1)]);
    fixture.rename((Ino::ROOT, "f"), (Ino::ROOT, "g"), RenameMode::Replace).unwrap();
    fixture.write(ino, &[(1, 2, 2)]);
    let Ok(Answer::Dead(dead)) = fixture.tables.query(&Query::Dead { before: 100, limit: 9 }) else { panic!() };
    let [(id, run)] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!((run.file.to_string(), run.first, run.count, run.version), ("f".into(), 1, 2, Version(1)));
    fixture.run_without_session(Change::ForgetDead { ids: vec![*id, 77] }).unwrap();
    assert_eq!(fixture.dead(), "");
}

#[test]
fn a_run_committed_in_pieces_becomes_one_extent() {
    let (mut fixture, ino) = file_of(&[(1, 2, 1), (5, 2, 1)]);
    fixture.write(ino, &[(3, 2, 1)]);
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+6 v1".into(), "".into()));
    fixture.write(ino, &[(7, 1, 2)]);
    assert_eq!(fixture.contents(ino), "1+6 v1, 7+1 v2");
}

#[test]
fn a_repeated_commit_puts_no_chunk_on_the_dead_list() {
    let (mut fixture, ino) = file_of(&[(1, 4, 1)]);
    fixture.write(ino, &[(2, 2, 1)]);
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+4 v1".into(), "".into()));
}

#[test]
fn a_partial_write_needs_its_base() {
    let (mut fixture, ino) = file_of(&[(1, 3, 1)]);
    let partial = |writes: &[ChunkWrite]| Commit { partial: writes.to_vec(), size_at_least: 50, ..Commit::default() };
    let before = fixture.tables.clone();
    for (base, index) in [(None, 2), (Some(9), 2), (Some(1), 4)] {
        let refused = fixture.commit(ino, partial(&[over(1, 2, Some(1)), over(index, 2, base)]));
        assert_eq!(refused, Err(FsError::Conflict { index }));
    }
    assert_eq!((&fixture.tables.extents, &fixture.tables.dead), (&before.extents, &before.dead));
    fixture.commit(ino, partial(&[over(2, 2, Some(1)), over(4, 2, None)])).unwrap();
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+1 v1, 2+1 v2, 3+1 v1, 4+1 v2".into(), "2+1 v1".into()));
}

#[test]
fn one_version_may_be_whole_and_partial_in_one_commit() {
    let (mut fixture, ino) = file_of(&[(1, 3, 1)]);
    let extents = vec![extent((4, 2, 2))];
    let both = Commit { extents, partial: vec![over(3, 2, Some(1))], size_at_least: 50, ..Commit::default() };
    fixture.commit(ino, both.clone()).unwrap();
    assert_eq!(fixture.contents(ino), "1+2 v1, 3+3 v2");
    assert!(is_invalid(fixture.commit(ino, Commit { partial: vec![over(4, 3, Some(2))], ..both })));
}

#[test]
fn a_restart_drops_the_old_contents() {
    let (mut fixture, ino) = file_of(&[(1, 3, 1)]);
    let restart = |version, base| Commit {
        restart: Some(4000),
        extents: vec![extent((1, 1, version))],
        partial: vec![over(2, version, base)],
        size_at_least: 4001,
        ..Commit::default()
    };
    assert!(is_invalid(fixture.commit(ino, restart(1, None))), "the restart puts this version on the dead list");
    assert_eq!(fixture.commit(ino, restart(2, Some(1))), Err(FsError::Conflict { index: 2 }));
    fixture.commit(ino, restart(2, None)).unwrap();
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+2 v2".into(), "1+3 v1".into()));
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).chunk_bytes), (4001, 4000));
    assert_eq!(fixture.tables.query(&Query::StatFs), Ok(Answer::StatFs { inodes: 2, bytes: 8000 }));
    assert!(is_invalid(fixture.commit(ino, Commit { restart: Some(0), ..Commit::default() })));
}

/// A mount that was storing ten-byte chunks would have put them into a file of 4000-byte chunks.
#[test]
fn a_commit_for_chunks_of_another_size_is_refused() {
    let (mut fixture, ino) = file_of(&[(1, 3, 1)]);
    let commit = |chunk_bytes, version| Commit {
        chunk_bytes: Some(chunk_bytes),
        extents: vec![extent((1, 1, version))],
        size_at_least: 10,
        ..Commit::default()
    };
    fixture.commit(ino, commit(10, 2)).unwrap();
    let before = (fixture.contents(ino), fixture.dead(), fixture.attr(ino));
    assert_eq!(fixture.commit(ino, commit(4000, 3)), Err(FsError::Stale { ino }));
    assert_eq!((fixture.contents(ino), fixture.dead(), fixture.attr(ino)), before);
    fixture.commit(ino, Commit { restart: Some(4000), ..commit(10, 3) }).unwrap();
    assert_eq!(fixture.attr(ino).chunk_bytes, 4000);
    assert_eq!(fixture.commit(ino, commit(10, 4)), Err(FsError::Stale { ino }));
}

#[test]
fn malformed_commits_are_refused() {
    let (mut fixture, ino) = file_of(&[]);
    let mut refused = |runs: &[(u32, u32, u64)]| {
        let extents = runs.iter().copied().map(extent).collect();
        fixture.commit(ino, Commit { extents, size_at_least: 50, ..Commit::default() })
    };
    assert!(is_invalid(refused(&[(0, 1, 1)])), "chunk 0");
    assert!(is_invalid(refused(&[(1, 0, 1)])), "an empty run");
    assert!(is_invalid(refused(&[(3, 1, 1), (1, 1, 1)])), "descending");
    assert!(is_invalid(refused(&[(1, 2, 1), (2, 1, 2)])), "overlapping");
    assert!(is_invalid(refused(&[(1, 1, 0)])), "version 0");
    assert!(is_invalid(refused(&[(1, 1, 1 << 40)])), "a version that was never allocated");
    assert!(is_invalid(refused(&[(6, 1, 1)])), "beyond the end");
    assert_eq!(refused(&[(u32::MAX, 2, 1)]), Err(FsError::FileTooLarge));
    let dir = fixture.dir(Ino::ROOT, "d");
    let link = fixture.make(Ino::ROOT, "l", node(FileKind::Symlink)).unwrap().ino;
    assert_eq!(fixture.commit(dir, Commit::default()), Err(FsError::IsDirectory));
    assert!(is_invalid(fixture.commit(link, Commit::default())));
    assert_eq!(fixture.commit(Ino(99), Commit::default()), Err(FsError::Stale { ino: Ino(99) }));
}

#[test]
fn a_file_ends_at_the_last_chunk_number() {
    let (mut fixture, ino) = file_of(&[]);
    let most = u64::from(u32::MAX) * 10;
    let up_to = |size_at_least, runs: &[_]| Commit {
        extents: runs.iter().copied().map(extent).collect(),
        size_at_least,
        ..Commit::default()
    };
    assert_eq!(fixture.commit(ino, up_to(most + 1, &[])), Err(FsError::FileTooLarge));
    assert_eq!(fixture.truncate(ino, most + 1, None), Err(FsError::FileTooLarge));
    fixture.commit(ino, up_to(most, &[(1, u32::MAX, 1)])).unwrap();
    fixture.commit(ino, up_to(most, &[(u32::MAX, 1, 2)])).unwrap();
    assert_eq!(fixture.contents(ino), "1+4294967294 v1, 4294967295+1 v2");
    fixture.truncate(ino, 10, None).unwrap();
    assert_eq!((fixture.contents(ino), fixture.attr(ino).size), ("1+1 v1".into(), 10));
}

#[test]
fn a_truncation_at_a_chunk_boundary_needs_no_tail() {
    let (mut fixture, ino) = file_of(&[(1, 5, 1)]);
    fixture.truncate(ino, 30, None).unwrap();
    assert_eq!((fixture.contents(ino), fixture.dead(), fixture.attr(ino).size), ("1+3 v1".into(), "4+2 v1".into(), 30));
    assert_eq!(fixture.feed, [FeedEvent::Inode { ino, contents: true }]);
    fixture.truncate(ino, 95, None).unwrap();
    assert_eq!((fixture.contents(ino), fixture.attr(ino).size), ("1+3 v1".into(), 95));
    fixture.truncate(ino, 45, None).unwrap();
    assert_eq!(fixture.attr(ino).size, 45, "inside a hole");
}

#[test]
fn a_truncation_inside_a_chunk_needs_the_chunk_stored_again() {
    let (mut fixture, ino) = file_of(&[(1, 5, 1)]);
    assert!(is_invalid(fixture.truncate(ino, 25, None)));
    assert!(is_invalid(fixture.truncate(ino, 25, Some(over(2, 2, Some(1))))), "not the chunk that is cut");
    assert!(is_invalid(fixture.truncate(ino, 30, Some(over(3, 2, Some(1))))), "no chunk is cut");
    assert!(is_invalid(fixture.truncate(ino, 25, Some(over(3, 1 << 40, Some(1))))), "no such version");
    assert_eq!(fixture.truncate(ino, 25, Some(over(3, 2, None))), Err(FsError::Conflict { index: 3 }));
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+5 v1".into(), "".into()));
    fixture.truncate(ino, 25, Some(over(3, 2, Some(1)))).unwrap();
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+2 v1, 3+1 v2".into(), "4+2 v1, 3+1 v1".into()));
    let dir = fixture.dir(Ino::ROOT, "d");
    assert_eq!(fixture.truncate(dir, 0, None), Err(FsError::IsDirectory));
}

/// Grace periods used to count from a clock, the mount's at first and then the leader's. A clock that was behind, or a
/// new leader whose clock was ahead of the old one's, made them zero.
#[test]
fn grace_periods_count_from_the_place_in_the_log() {
    let (mut fixture, ino) = file_of(&[(1, 1, 1)]);
    let mut apply = |index: u64, now, logged, change| {
        let origin = Some(OpId { session: fixture.session, sequence: index.min(1000), answered_below: 0 });
        fixture.tables.apply(index, logged, &NamespaceOp { origin, now, change }).reply
    };
    let extents = vec![extent((1, 1, 2))];
    let commit = Change::Commit { ino, commit: Commit { extents, size_at_least: 10, ..Commit::default() } };
    for index in [1000, 1001] {
        let Ok(Reply::Attr(attr)) = apply(index, at(5), at(50), commit.clone()) else { panic!() };
        assert_eq!((attr.mtime, attr.ctime), (at(5), at(5)), "files have the times of their mounts");
    }
    let unlink = Change::Unlink { parent: Ino::ROOT, name: entry("f"), hold: false };
    apply(900, at(5000), at(-9_999), unlink).unwrap();
    let dead = |before| match fixture.tables.query(&Query::Dead { before, limit: 9 }) {
        Ok(Answer::Dead(dead)) => dead.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((dead(1000), dead(1001)), (0, 1), "a retry does not move it");
    assert_eq!((fixture.tables.has_purgeable(900), fixture.tables.has_purgeable(901)), (false, true));
}

/// If a version became current again after it was replaced, it would be deleted while it is read.
#[test]
fn dead_chunks_never_become_current_again() {
    let (mut fixture, ino) = file_of(&[(1, 5, 1)]);
    fixture.write(ino, &[(2, 2, 2)]);
    let before = fixture.tables.clone();
    let again = |runs: &[(u32, u32, u64)]| {
        let extents = runs.iter().copied().map(extent).collect();
        Commit { extents, size_at_least: 50, ..Commit::default() }
    };
    assert_eq!(fixture.commit(ino, again(&[(1, 5, 1)])), Err(FsError::Conflict { index: 2 }));
    assert_eq!(fixture.commit(ino, again(&[(3, 3, 1)])), Err(FsError::Conflict { index: 3 }));
    let partial = Commit { partial: vec![over(3, 1, Some(2))], ..Commit::default() };
    assert_eq!(fixture.commit(ino, partial), Err(FsError::Conflict { index: 3 }));
    assert_eq!(fixture.truncate(ino, 15, Some(over(2, 1, Some(2)))), Err(FsError::Conflict { index: 2 }));
    assert_eq!((&fixture.tables.extents, &fixture.tables.dead), (&before.extents, &before.dead));
    fixture.write(ino, &[(4, 2, 1), (6, 1, 1)]);
    assert_eq!(fixture.contents(ino), "1+1 v1, 2+2 v2, 4+3 v1", "the rest of a run is not dead");
}

#[test]
fn a_version_belongs_to_one_file() {
    let (mut fixture, ino) = file_of(&[(1, 2, 1)]);
    let other = fixture.file("g");
    let same = Commit { extents: vec![extent((3, 1, 1))], size_at_least: 50, ..Commit::default() };
    assert_eq!(fixture.commit(other, same.clone()), Err(FsError::Conflict { index: 3 }));
    fixture.commit(ino, same).unwrap();
}

#[test]
fn attributes_change_one_by_one() {
    let (mut fixture, ino) = file_of(&[]);
    let before = fixture.attr(ino);
    let set = SetAttr { mode: Some(0o14_600), atime: Some(at(77)), ..SetAttr::default() };
    let Ok(Reply::Attr(attr)) = fixture.run(Change::SetAttr { ino, set }) else { panic!() };
    let ctime = at(fixture.clock);
    assert_eq!(attr, Attr { mode: 0o4600, atime: at(77), ctime, change: attr.change, ..before.clone() });
    assert!(attr.change > before.change);
    assert_eq!(fixture.feed, [FeedEvent::Inode { ino, contents: false }]);
    let set = SetAttr { ctime: Some(at(5)), ..SetAttr::default() };
    fixture.run(Change::SetAttr { ino, set }).unwrap();
    assert_eq!(fixture.attr(ino).ctime, at(5));
}

#[test]
fn the_change_counter_grows_also_when_the_log_index_does_not() {
    let (mut fixture, ino) = file_of(&[]);
    let op = NamespaceOp { origin: None, now: at(9), change: Change::SetAttr { ino, set: SetAttr::default() } };
    let changes = [3, 3, 3].map(|index| {
        fixture.tables.apply(index, at(9), &op).reply.unwrap();
        fixture.attr(ino).change
    });
    assert!(changes.is_sorted_by(|a, b| a < b), "{changes:?}");
}

#[test]
fn extents_are_listed_in_pages() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let runs: Vec<_> = (0..PAGE_ITEMS + 5).map(|n| (n * 3 + 1, 2, u64::from(n) + 1)).collect();
    fixture.write(ino, &runs);
    let page = |from| match fixture.tables.query(&Query::Extents { ino, from }) {
        Ok(Answer::Extents { extents, more }) => (extents[0].first, extents.len() as u32, more),
        other => panic!("{other:?}"),
    };
    assert_eq!(page(0), (1, PAGE_ITEMS, true));
    assert_eq!(page(5), (4, PAGE_ITEMS, true), "an extent that only reaches there");
    assert_eq!(page(6), (7, PAGE_ITEMS, true), "a hole");
    assert_eq!(page(3 * 5 + 1), (16, PAGE_ITEMS, false));
}

#[test]
fn contents_of_all_files_are_listed_in_pages() {
    let mut fixture = Fixture::new();
    let many: Vec<_> = (0..PAGE_ITEMS).map(|n| (n * 3 + 1, 2, u64::from(n) + 10)).collect();
    let (a, empty, b) = (fixture.file("a"), fixture.file("empty"), fixture.file("b"));
    fixture.write(a, &[(1, 5, 1)]);
    fixture.write(b, &many);
    let page = |fixture: &Fixture, (ino, first)| match fixture.tables.query(&Query::Contents { ino, first }) {
        Ok(Answer::Contents { files, next }) => {
            let runs = |file: &FileContents| (file.ino, file.file.to_string(), file.extents.len() as u32);
            (files.iter().map(runs).collect::<Vec<_>>(), next)
        }
        other => panic!("{other:?}"),
    };
    let last = PAGE_ITEMS * 3 - 2;
    let (files, next) = page(&fixture, (Ino(0), 0));
    assert_eq!(files, [(a, "a".into(), 1), (b, "b".into(), PAGE_ITEMS - 1)]);
    assert_eq!(next, Some((b, last)));
    assert_eq!(page(&fixture, (b, last)), (vec![(b, "b".into(), 1)], None));
    assert_eq!(page(&fixture, (empty, 1)).0[0].0, b);
    // The file was rewritten between two pages, in one run that begins before the second page.
    fixture.write(b, &[(1, last + 1, 2)]);
    assert_eq!(page(&fixture, (b, last)), (vec![(b, "b".into(), 1)], None));
}

/// The unreferenced parts of these runs, and the number of pages of the answer.
fn free_of(tables: &Tables, runs: &[(u32, u32, u64)]) -> (String, u32) {
    let mut runs: Vec<Extent> = runs.iter().copied().map(extent).collect();
    let (mut free, mut pages) = (Vec::new(), 0);
    loop {
        let Ok(Answer::Unreferenced { pieces, next }) = tables.query(&Query::Unreferenced { runs: runs.clone() })
        else {
            panic!("the query is answered otherwise")
        };
        free.extend(pieces);
        pages += 1;
        let Some((number, chunk)) = next else { break };
        runs.drain(..number as usize);
        runs[0].count -= chunk - runs[0].first;
        runs[0].first = chunk;
    }
    (shown(free.into_iter().map(|run| (run.first, run.count, run.version))), pages)
}

/// A node that was away still has chunks that were overwritten meanwhile. Only whole versions used to count: one chunk
/// of a write that was still current kept the rest for ever.
#[test]
fn single_chunks_of_a_version_are_unreferenced() {
    let (mut fixture, ino) = file_of(&[(1, 5, 1)]);
    let all = [(1, 9, 1), (1, 9, 2), (u32::MAX, 1, 3)];
    let free = |fixture: &Fixture| free_of(&fixture.tables, &all).0;
    let max = u32::MAX;
    assert_eq!(free(&fixture), format!("6+4 v1, 1+9 v2, {max}+1 v3"));
    fixture.write(ino, &[(2, 3, 2)]);
    assert_eq!(free(&fixture), format!("2+3 v1, 6+4 v1, 1+1 v2, 5+5 v2, {max}+1 v3"));
    fixture.write(ino, &[(1, 1, 2)]);
    assert_eq!(free(&fixture), format!("1+4 v1, 6+4 v1, 5+5 v2, {max}+1 v3"));
    assert_eq!(free_of(&fixture.tables, &[(2, 1, 1), (5, 1, 1), (4, 2, 2)]).0, "2+1 v1, 5+1 v2", "only queried chunks");
    assert!(is_invalid(
        fixture.tables.query(&Query::Unreferenced { runs: vec![extent((0, 1, 1))] }).map(|_| Reply::Done)
    ));
}

/// A file keeps its chunks while it has any name or holder, whether it was linked, renamed or unlinked.
#[test]
fn chunks_of_files_with_any_name_or_holder_are_referenced() {
    let (mut fixture, ino) = file_of(&[(1, 5, 1)]);
    fixture.link(ino, "other").unwrap();
    fixture.rename((Ino::ROOT, "other"), (Ino::ROOT, "third"), RenameMode::Replace).unwrap();
    for name in ["f", "third"] {
        assert_eq!(free_of(&fixture.tables, &[(1, 5, 1)]).0, "", "before {name} is unlinked");
        fixture.unlink(name, true).unwrap();
    }
    assert_eq!(free_of(&fixture.tables, &[(1, 5, 1)]).0, "", "held open");
    assert_eq!(collect(&mut fixture, &[(1, 5, 1)]), Ok(Reply::Collected { runs: 0 }));
    fixture.run(Change::Release { inos: vec![ino] }).unwrap();
    assert_eq!(fixture.purge(i64::MAX), 1);
    assert_eq!(free_of(&fixture.tables, &[(1, 5, 1)]).0, "1+5 v1");
    assert_eq!(collect(&mut fixture, &[(1, 5, 1)]), Ok(Reply::Collected { runs: 0 }), "it is on the dead list already");
}

/// A query about a file of many extents takes several pages, so that other requests do not wait for long.
#[test]
fn a_query_about_a_fragmented_file_is_answered_in_pages() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let count: u32 = 40_000;
    fixture.write(ino, &[(1, 2 * count, 1)]);
    let every_other: Vec<_> = (0..count).map(|number| (2 * number + 1, 1, 2)).collect();
    fixture.write(ino, &every_other);
    let (free, pages) = free_of(&fixture.tables, &[(1, 2 * count, 1), (1, 2 * count, 2)]);
    assert_eq!(free.split(", ").count() as u32, 2 * count);
    assert!(free.starts_with("1+1 v1, 3+1 v1, ") && free.ends_with(&format!("{}+1 v2", 2 * count)));
    assert_eq!(pages, 5);
}

#[test]
fn dead_runs_are_listed_oldest_first_after_their_grace_period() {
    let (mut fixture, ino) = file_of(&[(1, 3, 1)]);
    let versions = [2, 3, 4].map(|version| {
        fixture.write(ino, &[(1, 3, version)]);
        fixture.clock
    });
    let dead = |before: i64, limit| match fixture.tables.query(&Query::Dead { before: before as u64, limit }) {
        Ok(Answer::Dead(dead)) => dead.into_iter().map(|(_, run)| run.version.0).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(dead(versions[0], 9), [0; 0]);
    assert_eq!(dead(versions[2], 9), [1, 2]);
    assert_eq!(dead(versions[2] + 1, 2), [1, 2]);
}

fn collect(fixture: &mut Fixture, runs: &[(u32, u32, u64)]) -> Result<Reply, FsError> {
    let run = |&(first, count, version): &(u32, u32, u64)| ChunkRun {
        file: FileName::new("f").unwrap(),
        first,
        count,
        version: Version(version),
    };
    fixture.run_without_session(Change::CollectOrphans { runs: runs.iter().map(run).collect() })
}

#[test]
fn only_chunks_that_no_file_has_are_collected() {
    let (mut fixture, ino) = file_of(&[(1, 10, 1)]);
    fixture.write(ino, &[(4, 3, 2)]);
    assert_eq!(collect(&mut fixture, &[(1, 12, 1), (1, 12, 1), (4, 3, 2)]), Ok(Reply::Collected { runs: 1 }));
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+3 v1, 4+3 v2, 7+4 v1".into(), "4+3 v1, 11+2 v1".into()));
    assert_eq!(collect(&mut fixture, &[(u32::MAX, 1, 3), (1, u32::MAX, 4)]), Ok(Reply::Collected { runs: 2 }));
    assert!(is_invalid(collect(&mut fixture, &[(0, 1, 5)])) && is_invalid(collect(&mut fixture, &[(2, u32::MAX, 5)])));
}

/// A laptop slept for hours between storing chunks and committing them. The chunks are gone, so the commit must fail.
#[test]
fn a_commit_after_the_collection_is_refused() {
    let (mut fixture, ino) = file_of(&[(1, 1, 1)]);
    collect(&mut fixture, &[(2, 2, 7)]).unwrap();
    let late = Commit { extents: vec![extent((2, 2, 7))], size_at_least: 30, ..Commit::default() };
    assert_eq!(fixture.commit(ino, late.clone()), Err(FsError::Conflict { index: 2 }));
    let Ok(Answer::Dead(dead)) = fixture.tables.query(&Query::Dead { before: 100, limit: 9 }) else { panic!() };
    fixture.run_without_session(Change::ForgetDead { ids: dead.iter().map(|(id, _)| *id).collect() }).unwrap();
    assert_eq!(fixture.commit(ino, late), Err(FsError::Conflict { index: 2 }), "also after the nodes have deleted it");
}

/// One leader's clock was a month ahead, and an operation that it logged made every retired version usable again.
#[test]
fn a_clock_that_jumps_makes_no_retired_version_usable() {
    let (mut fixture, ino) = file_of(&[(1, 1, 1)]);
    collect(&mut fixture, &[(2, 2, 7)]).unwrap();
    let Ok(Answer::Dead(dead)) = fixture.tables.query(&Query::Dead { before: 100, limit: 9 }) else { panic!() };
    fixture.run_without_session(Change::ForgetDead { ids: dead.iter().map(|(id, _)| *id).collect() }).unwrap();
    fixture.clock += 31 * 24 * 3600;
    collect(&mut fixture, &[(1, 1, 8)]).unwrap();
    let late = Commit { extents: vec![extent((2, 2, 7))], size_at_least: 30, ..Commit::default() };
    assert_eq!(fixture.commit(ino, late), Err(FsError::Conflict { index: 2 }));
}

/// The commit of a mount was applied, and its answer was lost. Another mount replaced the chunk, and the nodes deleted
/// it. The first mount sent its commit again, and the file named a chunk that no node had.
#[test]
fn a_version_that_was_deleted_never_becomes_current_again() {
    let (mut fixture, ino) = file_of(&[(1, 2, 1)]);
    fixture.write(ino, &[(1, 1, 2)]);
    forget_all_dead(&mut fixture);
    for run in [(1, 1, 1), (3, 1, 1)] {
        let again = Commit { extents: vec![extent(run)], size_at_least: 30, ..Commit::default() };
        assert_eq!(fixture.commit(ino, again), Err(FsError::Conflict { index: run.0 }));
    }
    assert_eq!(fixture.contents(ino), "1+1 v2, 2+1 v1", "its other chunks stay");
}

fn forget_all_dead(fixture: &mut Fixture) {
    let ids: Vec<u64> = fixture.tables.dead.keys().copied().collect();
    fixture.run_without_session(Change::ForgetDead { ids }).unwrap();
}

fn discard(fixture: &mut Fixture, runs: &[(u32, u32, u64)]) -> Result<Reply, FsError> {
    let runs = runs.iter().copied().map(extent).collect();
    fixture.run(Change::Discard { files: vec![DiscardedRuns { file: FileName::new("f").unwrap(), runs }] })
}

/// Chunks that were written again before their commit stayed on the nodes for an hour and more.
#[test]
fn a_session_discards_chunks_that_it_will_not_commit() {
    let (mut fixture, ino) = file_of(&[(1, 3, 1)]);
    assert_eq!(discard(&mut fixture, &[(1, 5, 1), (2, 1, 2), (2, 1, 2)]), Ok(Reply::Collected { runs: 2 }));
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+3 v1".into(), "4+2 v1, 2+1 v2".into()));
    assert_eq!(discard(&mut fixture, &[(1, 5, 1), (2, 1, 2)]), Ok(Reply::Collected { runs: 0 }), "sent again");
    let late = Commit { extents: vec![extent((2, 1, 2))], size_at_least: 30, ..Commit::default() };
    assert_eq!(fixture.commit(ino, late.clone()), Err(FsError::Conflict { index: 2 }));
    forget_all_dead(&mut fixture);
    assert_eq!(fixture.commit(ino, late), Err(FsError::Conflict { index: 2 }));
    assert!(is_invalid(discard(&mut fixture, &[(0, 1, 5)])));
}

#[test]
fn a_session_discards_only_its_own_versions() {
    let mut fixture = Fixture::new();
    fixture.open(2);
    let theirs = u64::from(SESSION_VERSIONS) + 1;
    assert_eq!(discard(&mut fixture, &[(1, 1, theirs)]), Ok(Reply::Collected { runs: 0 }));
    let Ok(Reply::Versions(block)) = fixture.run(Change::AllocateVersions { count: 5 }) else { panic!("no versions") };
    assert_eq!(discard(&mut fixture, &[(1, 1, block.first.0 + 4)]), Ok(Reply::Collected { runs: 1 }));
    assert!(is_invalid(fixture.run_without_session(Change::Discard { files: Vec::new() })));
}

/// A part of a write was committed, and the rest an hour later: the second commit fails, and the part stays.
#[test]
fn the_rest_of_a_version_is_refused_when_single_chunks_of_it_were_collected() {
    let (mut fixture, ino) = file_of(&[(1, 3, 7)]);
    assert_eq!(collect(&mut fixture, &[(4, 1, 7)]), Ok(Reply::Collected { runs: 1 }));
    let rest = Commit { extents: vec![extent((5, 2, 7))], size_at_least: 60, ..Commit::default() };
    assert_eq!(fixture.commit(ino, rest), Err(FsError::Conflict { index: 5 }));
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+3 v7".into(), "4+1 v7".into()));
    fixture.write(ino, &[(2, 1, 8)]);
    assert_eq!((fixture.contents(ino), fixture.dead()), ("1+1 v7, 2+1 v8, 3+1 v7".into(), "4+1 v7, 2+1 v7".into()));
}

/// Such versions belong to another namespace, or to an earlier state of this one that was lost.
#[test]
fn versions_that_were_never_allocated_are_left_alone() {
    let (mut fixture, _) = file_of(&[(1, 1, 1)]);
    let next = fixture.tables.next.version;
    assert_eq!(collect(&mut fixture, &[(1, 9, 0), (1, 9, next)]), Ok(Reply::Collected { runs: 0 }));
    assert_eq!(collect(&mut fixture, &[(1, 9, next - 1)]), Ok(Reply::Collected { runs: 1 }));
    assert_eq!(fixture.dead(), format!("1+9 v{}", next - 1));
}
