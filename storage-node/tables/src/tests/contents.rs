//! Contents: commit, truncate, the dead list, attributes.

use chordfs_types::chunk::ChunkRun;

use super::*;

fn file_of(runs: &[(u32, u32, u64)]) -> (Shop, Ino) {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    shop.write(ino, runs);
    (shop, ino)
}

#[test]
fn a_commit_splits_what_it_covers() {
    let (mut shop, ino) = file_of(&[(1, 10, 1)]);
    shop.write(ino, &[(4, 3, 2)]);
    assert_eq!((shop.contents(ino), shop.dead()), ("1+3 v1, 4+3 v2, 7+4 v1".into(), "4+3 v1".into()));
    assert_eq!((shop.attr(ino).size, shop.attr(ino).mtime), (100, at(shop.clock)));
    assert_eq!(shop.feed, [FeedEvent::Inode { ino, contents: true }]);
    shop.write(ino, &[(3, 9, 3)]);
    assert_eq!(shop.contents(ino), "1+2 v1, 3+9 v3");
    assert_eq!(shop.dead(), "4+3 v1, 3+1 v1, 4+3 v2, 7+4 v1");
}

#[test]
fn the_dead_carry_the_name_of_their_file() {
    let (mut shop, ino) = file_of(&[(1, 2, 1)]);
    shop.rename((Ino::ROOT, "f"), (Ino::ROOT, "g"), RenameMode::Replace).unwrap();
    shop.write(ino, &[(1, 2, 2)]);
    let Ok(Answer::Dead(dead)) = shop.tables.query(&Query::Dead { before: at(100), limit: 9 }) else { panic!() };
    let [(id, run)] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!((run.file.to_string(), run.first, run.count, run.version), ("f".into(), 1, 2, Version(1)));
    shop.alone(Change::ForgetDead { ids: vec![*id, 77] }).unwrap();
    assert_eq!(shop.dead(), "");
}

#[test]
fn a_run_committed_in_pieces_becomes_one_extent() {
    let (mut shop, ino) = file_of(&[(1, 2, 1), (5, 2, 1)]);
    shop.write(ino, &[(3, 2, 1)]);
    assert_eq!((shop.contents(ino), shop.dead()), ("1+6 v1".into(), "".into()));
    shop.write(ino, &[(7, 1, 2)]);
    assert_eq!(shop.contents(ino), "1+6 v1, 7+1 v2");
}

#[test]
fn what_is_committed_again_does_not_die() {
    let (mut shop, ino) = file_of(&[(1, 4, 1)]);
    shop.write(ino, &[(2, 2, 1)]);
    assert_eq!((shop.contents(ino), shop.dead()), ("1+4 v1".into(), "".into()));
}

#[test]
fn a_partial_write_needs_its_base() {
    let (mut shop, ino) = file_of(&[(1, 3, 1)]);
    let partial = |writes: &[ChunkWrite]| Commit { partial: writes.to_vec(), size_at_least: 50, ..Commit::default() };
    let before = shop.tables.clone();
    for (base, index) in [(None, 2), (Some(9), 2), (Some(1), 4)] {
        let refused = shop.commit(ino, partial(&[over(1, 2, Some(1)), over(index, 2, base)]));
        assert_eq!(refused, Err(FsError::Conflict { index }));
    }
    assert_eq!((&shop.tables.extents, &shop.tables.dead), (&before.extents, &before.dead));
    shop.commit(ino, partial(&[over(2, 2, Some(1)), over(4, 2, None)])).unwrap();
    assert_eq!((shop.contents(ino), shop.dead()), ("1+1 v1, 2+1 v2, 3+1 v1, 4+1 v2".into(), "2+1 v1".into()));
}

#[test]
fn one_version_may_be_whole_and_partial_in_one_commit() {
    let (mut shop, ino) = file_of(&[(1, 3, 1)]);
    let extents = vec![extent((4, 2, 2))];
    let both = Commit { extents, partial: vec![over(3, 2, Some(1))], size_at_least: 50, ..Commit::default() };
    shop.commit(ino, both.clone()).unwrap();
    assert_eq!(shop.contents(ino), "1+2 v1, 3+3 v2");
    assert!(is_invalid(shop.commit(ino, Commit { partial: vec![over(4, 3, Some(2))], ..both })));
}

#[test]
fn a_restart_forgets_what_was() {
    let (mut shop, ino) = file_of(&[(1, 3, 1)]);
    let restart = |version, base| Commit {
        restart: Some(4000),
        extents: vec![extent((1, 1, version))],
        partial: vec![over(2, version, base)],
        size_at_least: 4001,
        ..Commit::default()
    };
    assert!(is_invalid(shop.commit(ino, restart(1, None))), "its version is about to die");
    assert_eq!(shop.commit(ino, restart(2, Some(1))), Err(FsError::Conflict { index: 2 }));
    shop.commit(ino, restart(2, None)).unwrap();
    assert_eq!((shop.contents(ino), shop.dead()), ("1+2 v2".into(), "1+3 v1".into()));
    assert_eq!((shop.attr(ino).size, shop.attr(ino).chunk_bytes), (4001, 4000));
    assert_eq!(shop.tables.query(&Query::StatFs), Ok(Answer::StatFs { inodes: 2, bytes: 8000 }));
    assert!(is_invalid(shop.commit(ino, Commit { restart: Some(0), ..Commit::default() })));
}

/// A mount that had ten-byte chunks on their way would have put them into a file of 4000-byte chunks.
#[test]
fn a_commit_for_chunks_of_another_size_is_refused() {
    let (mut shop, ino) = file_of(&[(1, 3, 1)]);
    let commit = |chunk_bytes, version| Commit {
        chunk_bytes: Some(chunk_bytes),
        extents: vec![extent((1, 1, version))],
        size_at_least: 10,
        ..Commit::default()
    };
    shop.commit(ino, commit(10, 2)).unwrap();
    let before = (shop.contents(ino), shop.dead(), shop.attr(ino));
    assert_eq!(shop.commit(ino, commit(4000, 3)), Err(FsError::Stale { ino }));
    assert_eq!((shop.contents(ino), shop.dead(), shop.attr(ino)), before);
    shop.commit(ino, Commit { restart: Some(4000), ..commit(10, 3) }).unwrap();
    assert_eq!(shop.attr(ino).chunk_bytes, 4000);
    assert_eq!(shop.commit(ino, commit(10, 4)), Err(FsError::Stale { ino }));
}

#[test]
fn commits_that_make_no_sense_are_refused() {
    let (mut shop, ino) = file_of(&[]);
    let mut refused = |runs: &[(u32, u32, u64)]| {
        let extents = runs.iter().copied().map(extent).collect();
        shop.commit(ino, Commit { extents, size_at_least: 50, ..Commit::default() })
    };
    assert!(is_invalid(refused(&[(0, 1, 1)])), "chunk 0");
    assert!(is_invalid(refused(&[(1, 0, 1)])), "an empty run");
    assert!(is_invalid(refused(&[(3, 1, 1), (1, 1, 1)])), "descending");
    assert!(is_invalid(refused(&[(1, 2, 1), (2, 1, 2)])), "overlapping");
    assert!(is_invalid(refused(&[(1, 1, 0)])), "version 0");
    assert!(is_invalid(refused(&[(1, 1, 1 << 40)])), "a version that nobody was given");
    assert!(is_invalid(refused(&[(6, 1, 1)])), "beyond the end");
    assert_eq!(refused(&[(u32::MAX, 2, 1)]), Err(FsError::FileTooLarge));
    let dir = shop.dir(Ino::ROOT, "d");
    let link = shop.make(Ino::ROOT, "l", node(FileKind::Symlink)).unwrap().ino;
    assert_eq!(shop.commit(dir, Commit::default()), Err(FsError::IsDirectory));
    assert!(is_invalid(shop.commit(link, Commit::default())));
    assert_eq!(shop.commit(Ino(99), Commit::default()), Err(FsError::Stale { ino: Ino(99) }));
}

#[test]
fn a_file_ends_at_the_last_chunk_number() {
    let (mut shop, ino) = file_of(&[]);
    let most = u64::from(u32::MAX) * 10;
    let up_to = |size_at_least, runs: &[_]| Commit {
        extents: runs.iter().copied().map(extent).collect(),
        size_at_least,
        ..Commit::default()
    };
    assert_eq!(shop.commit(ino, up_to(most + 1, &[])), Err(FsError::FileTooLarge));
    assert_eq!(shop.truncate(ino, most + 1, None), Err(FsError::FileTooLarge));
    shop.commit(ino, up_to(most, &[(1, u32::MAX, 1)])).unwrap();
    shop.commit(ino, up_to(most, &[(u32::MAX, 1, 2)])).unwrap();
    assert_eq!(shop.contents(ino), "1+4294967294 v1, 4294967295+1 v2");
    shop.truncate(ino, 10, None).unwrap();
    assert_eq!((shop.contents(ino), shop.attr(ino).size), ("1+1 v1".into(), 10));
}

#[test]
fn cutting_at_the_edge_of_a_chunk_needs_no_tail() {
    let (mut shop, ino) = file_of(&[(1, 5, 1)]);
    shop.truncate(ino, 30, None).unwrap();
    assert_eq!((shop.contents(ino), shop.dead(), shop.attr(ino).size), ("1+3 v1".into(), "4+2 v1".into(), 30));
    assert_eq!(shop.feed, [FeedEvent::Inode { ino, contents: true }]);
    shop.truncate(ino, 95, None).unwrap();
    assert_eq!((shop.contents(ino), shop.attr(ino).size), ("1+3 v1".into(), 95));
    shop.truncate(ino, 45, None).unwrap();
    assert_eq!(shop.attr(ino).size, 45, "inside a hole");
}

#[test]
fn cutting_inside_a_chunk_needs_it_stored_anew() {
    let (mut shop, ino) = file_of(&[(1, 5, 1)]);
    assert!(is_invalid(shop.truncate(ino, 25, None)));
    assert!(is_invalid(shop.truncate(ino, 25, Some(over(2, 2, Some(1))))), "not the chunk that is cut");
    assert!(is_invalid(shop.truncate(ino, 30, Some(over(3, 2, Some(1))))), "no chunk is cut");
    assert!(is_invalid(shop.truncate(ino, 25, Some(over(3, 1 << 40, Some(1))))), "no such version");
    assert_eq!(shop.truncate(ino, 25, Some(over(3, 2, None))), Err(FsError::Conflict { index: 3 }));
    assert_eq!((shop.contents(ino), shop.dead()), ("1+5 v1".into(), "".into()));
    shop.truncate(ino, 25, Some(over(3, 2, Some(1)))).unwrap();
    assert_eq!((shop.contents(ino), shop.dead()), ("1+2 v1, 3+1 v2".into(), "4+2 v1, 3+1 v1".into()));
    let dir = shop.dir(Ino::ROOT, "d");
    assert_eq!(shop.truncate(dir, 0, None), Err(FsError::IsDirectory));
}

/// Mounts' clocks used to decide how long a reader was given: one that was behind had its garbage deleted at once.
#[test]
fn grace_periods_count_from_when_the_leader_logged_the_change() {
    let (mut shop, ino) = file_of(&[(1, 1, 1)]);
    let mut apply = |now, logged, sequence, change| {
        let origin = Some(OpId { session: shop.session, sequence, answered_below: 0 });
        shop.tables.apply(sequence, logged, &NamespaceOp { origin, now, change }).reply
    };
    let extents = vec![extent((1, 1, 2))];
    let commit = Change::Commit { ino, commit: Commit { extents, size_at_least: 10, ..Commit::default() } };
    for logged in [50, 90] {
        let Ok(Reply::Attr(attr)) = apply(at(5), at(logged), 1000, commit.clone()) else { panic!() };
        assert_eq!((attr.mtime, attr.ctime), (at(5), at(5)), "files have the times of their mounts");
    }
    let unlink = Change::Unlink { parent: Ino::ROOT, name: entry("f"), hold: false };
    apply(at(5000), at(60), 1001, unlink).unwrap();
    let dead = |before| match shop.tables.query(&Query::Dead { before: at(before), limit: 9 }) {
        Ok(Answer::Dead(dead)) => dead.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((dead(50), dead(51)), (0, 1), "a retry does not move it");
    assert_eq!((shop.tables.has_purgeable(at(60)), shop.tables.has_purgeable(at(61))), (false, true));
}

/// Committed once more after it was replaced, a version would be deleted from under its readers.
#[test]
fn what_is_dead_stays_dead() {
    let (mut shop, ino) = file_of(&[(1, 5, 1)]);
    shop.write(ino, &[(2, 2, 2)]);
    let before = shop.tables.clone();
    let again = |runs: &[(u32, u32, u64)]| {
        let extents = runs.iter().copied().map(extent).collect();
        Commit { extents, size_at_least: 50, ..Commit::default() }
    };
    assert_eq!(shop.commit(ino, again(&[(1, 5, 1)])), Err(FsError::Conflict { index: 2 }));
    assert_eq!(shop.commit(ino, again(&[(3, 3, 1)])), Err(FsError::Conflict { index: 3 }));
    let partial = Commit { partial: vec![over(3, 1, Some(2))], ..Commit::default() };
    assert_eq!(shop.commit(ino, partial), Err(FsError::Conflict { index: 3 }));
    assert_eq!(shop.truncate(ino, 15, Some(over(2, 1, Some(2)))), Err(FsError::Conflict { index: 2 }));
    assert_eq!((&shop.tables.extents, &shop.tables.dead), (&before.extents, &before.dead));
    shop.write(ino, &[(4, 2, 1), (6, 1, 1)]);
    assert_eq!(shop.contents(ino), "1+1 v1, 2+2 v2, 4+3 v1", "the rest of a run is not dead");
}

#[test]
fn a_version_belongs_to_one_file() {
    let (mut shop, ino) = file_of(&[(1, 2, 1)]);
    let other = shop.file("g");
    let same = Commit { extents: vec![extent((3, 1, 1))], size_at_least: 50, ..Commit::default() };
    assert_eq!(shop.commit(other, same.clone()), Err(FsError::Conflict { index: 3 }));
    shop.commit(ino, same).unwrap();
}

#[test]
fn attributes_change_one_by_one() {
    let (mut shop, ino) = file_of(&[]);
    let before = shop.attr(ino);
    let set = SetAttr { mode: Some(0o14_600), atime: Some(at(77)), ..SetAttr::default() };
    let Ok(Reply::Attr(attr)) = shop.run(Change::SetAttr { ino, set }) else { panic!() };
    let ctime = at(shop.clock);
    assert_eq!(attr, Attr { mode: 0o4600, atime: at(77), ctime, change: attr.change, ..before.clone() });
    assert!(attr.change > before.change);
    assert_eq!(shop.feed, [FeedEvent::Inode { ino, contents: false }]);
    let set = SetAttr { ctime: Some(at(5)), ..SetAttr::default() };
    shop.run(Change::SetAttr { ino, set }).unwrap();
    assert_eq!(shop.attr(ino).ctime, at(5));
}

#[test]
fn the_change_counter_grows_also_when_the_log_index_does_not() {
    let (mut shop, ino) = file_of(&[]);
    let op = NamespaceOp { origin: None, now: at(9), change: Change::SetAttr { ino, set: SetAttr::default() } };
    let changes = [3, 3, 3].map(|index| {
        shop.tables.apply(index, at(9), &op).reply.unwrap();
        shop.attr(ino).change
    });
    assert!(changes.is_sorted_by(|a, b| a < b), "{changes:?}");
}

#[test]
fn extents_are_told_in_pages() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    let runs: Vec<_> = (0..PAGE_ITEMS + 5).map(|n| (n * 3 + 1, 2, u64::from(n) + 1)).collect();
    shop.write(ino, &runs);
    let page = |from| match shop.tables.query(&Query::Extents { ino, from }) {
        Ok(Answer::Extents { extents, more }) => (extents[0].first, extents.len() as u32, more),
        other => panic!("{other:?}"),
    };
    assert_eq!(page(0), (1, PAGE_ITEMS, true));
    assert_eq!(page(5), (4, PAGE_ITEMS, true), "an extent that only reaches there");
    assert_eq!(page(6), (7, PAGE_ITEMS, true), "a hole");
    assert_eq!(page(3 * 5 + 1), (16, PAGE_ITEMS, false));
}

#[test]
fn contents_of_all_files_are_told_in_pages() {
    let mut shop = Shop::new();
    let many: Vec<_> = (0..PAGE_ITEMS).map(|n| (n * 3 + 1, 2, u64::from(n) + 10)).collect();
    let (a, empty, b) = (shop.file("a"), shop.file("empty"), shop.file("b"));
    shop.write(a, &[(1, 5, 1)]);
    shop.write(b, &many);
    let page = |shop: &Shop, (ino, first)| match shop.tables.query(&Query::Contents { ino, first }) {
        Ok(Answer::Contents { files, next }) => {
            let runs = |file: &FileContents| (file.ino, file.file.to_string(), file.extents.len() as u32);
            (files.iter().map(runs).collect::<Vec<_>>(), next)
        }
        other => panic!("{other:?}"),
    };
    let last = PAGE_ITEMS * 3 - 2;
    let (files, next) = page(&shop, (Ino(0), 0));
    assert_eq!(files, [(a, "a".into(), 1), (b, "b".into(), PAGE_ITEMS - 1)]);
    assert_eq!(next, Some((b, last)));
    assert_eq!(page(&shop, (b, last)), (vec![(b, "b".into(), 1)], None));
    assert_eq!(page(&shop, (empty, 1)).0[0].0, b);
    // Rewritten between two pages, in one run that begins before the second.
    shop.write(b, &[(1, last + 1, 2)]);
    assert_eq!(page(&shop, (b, last)), (vec![(b, "b".into(), 1)], None));
}

/// What no file has of these runs; the number of pages that it took.
fn free_of(tables: &Tables, runs: &[(u32, u32, u64)]) -> (String, u32) {
    let mut runs: Vec<Extent> = runs.iter().copied().map(extent).collect();
    let (mut free, mut pages) = (Vec::new(), 0);
    loop {
        let Ok(Answer::Unreferenced { pieces, next }) = tables.query(&Query::Unreferenced { runs: runs.clone() })
        else {
            panic!("it is answered")
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

/// A node that was away has what was overwritten there. Only whole versions used to count: one chunk that a file still
/// had of a write kept the rest for ever.
#[test]
fn single_chunks_of_a_version_are_unreferenced() {
    let (mut shop, ino) = file_of(&[(1, 5, 1)]);
    let all = [(1, 9, 1), (1, 9, 2), (u32::MAX, 1, 3)];
    let free = |shop: &Shop| free_of(&shop.tables, &all).0;
    let max = u32::MAX;
    assert_eq!(free(&shop), format!("6+4 v1, 1+9 v2, {max}+1 v3"));
    shop.write(ino, &[(2, 3, 2)]);
    assert_eq!(free(&shop), format!("2+3 v1, 6+4 v1, 1+1 v2, 5+5 v2, {max}+1 v3"));
    shop.write(ino, &[(1, 1, 2)]);
    assert_eq!(free(&shop), format!("1+4 v1, 6+4 v1, 5+5 v2, {max}+1 v3"));
    assert_eq!(free_of(&shop.tables, &[(2, 1, 1), (5, 1, 1), (4, 2, 2)]).0, "2+1 v1, 5+1 v2", "no more than asked");
    assert!(is_invalid(shop.tables.query(&Query::Unreferenced { runs: vec![extent((0, 1, 1))] }).map(|_| Reply::Done)));
}

/// Held open, linked, renamed: what a file has is its own until the last of it goes.
#[test]
fn what_can_be_reached_by_any_way_is_referenced() {
    let (mut shop, ino) = file_of(&[(1, 5, 1)]);
    shop.link(ino, "other").unwrap();
    shop.rename((Ino::ROOT, "other"), (Ino::ROOT, "third"), RenameMode::Replace).unwrap();
    for name in ["f", "third"] {
        assert_eq!(free_of(&shop.tables, &[(1, 5, 1)]).0, "", "before {name} goes");
        shop.unlink(name, true).unwrap();
    }
    assert_eq!(free_of(&shop.tables, &[(1, 5, 1)]).0, "", "held open");
    assert_eq!(collect(&mut shop, &[(1, 5, 1)]), Ok(Reply::Collected { runs: 0 }));
    shop.run(Change::Release { inos: vec![ino] }).unwrap();
    assert_eq!(shop.purge(i64::MAX), 1);
    assert_eq!(free_of(&shop.tables, &[(1, 5, 1)]).0, "1+5 v1");
    assert_eq!(collect(&mut shop, &[(1, 5, 1)]), Ok(Reply::Collected { runs: 0 }), "it is on its way out");
}

/// A file of many extents costs as many pages, not one long look while everybody waits.
#[test]
fn a_question_about_a_torn_file_is_answered_in_pages() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    let count: u32 = 40_000;
    shop.write(ino, &[(1, 2 * count, 1)]);
    let every_other: Vec<_> = (0..count).map(|number| (2 * number + 1, 1, 2)).collect();
    shop.write(ino, &every_other);
    let (told, pages) = free_of(&shop.tables, &[(1, 2 * count, 1), (1, 2 * count, 2)]);
    assert_eq!(told.split(", ").count() as u32, 2 * count);
    assert!(told.starts_with("1+1 v1, 3+1 v1, ") && told.ends_with(&format!("{}+1 v2", 2 * count)));
    assert_eq!(pages, 5);
}

#[test]
fn only_the_long_dead_are_told_oldest_first() {
    let (mut shop, ino) = file_of(&[(1, 3, 1)]);
    let versions = [2, 3, 4].map(|version| {
        shop.write(ino, &[(1, 3, version)]);
        shop.clock
    });
    let dead = |before, limit| match shop.tables.query(&Query::Dead { before: at(before), limit }) {
        Ok(Answer::Dead(dead)) => dead.into_iter().map(|(_, run)| run.version.0).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(dead(versions[0], 9), [0; 0]);
    assert_eq!(dead(versions[2], 9), [1, 2]);
    assert_eq!(dead(versions[2] + 1, 2), [1, 2]);
}

fn collect(shop: &mut Shop, runs: &[(u32, u32, u64)]) -> Result<Reply, FsError> {
    let run = |&(first, count, version): &(u32, u32, u64)| ChunkRun {
        file: FileName::new("f").unwrap(),
        first,
        count,
        version: Version(version),
    };
    shop.alone(Change::CollectOrphans { runs: runs.iter().map(run).collect() })
}

#[test]
fn only_chunks_that_no_file_has_are_collected() {
    let (mut shop, ino) = file_of(&[(1, 10, 1)]);
    shop.write(ino, &[(4, 3, 2)]);
    assert_eq!(collect(&mut shop, &[(1, 12, 1), (1, 12, 1), (4, 3, 2)]), Ok(Reply::Collected { runs: 1 }));
    assert_eq!((shop.contents(ino), shop.dead()), ("1+3 v1, 4+3 v2, 7+4 v1".into(), "4+3 v1, 11+2 v1".into()));
    assert_eq!(collect(&mut shop, &[(u32::MAX, 1, 3), (1, u32::MAX, 4)]), Ok(Reply::Collected { runs: 2 }));
    assert!(is_invalid(collect(&mut shop, &[(0, 1, 5)])) && is_invalid(collect(&mut shop, &[(2, u32::MAX, 5)])));
}

/// A laptop sleeps for hours between storing and committing. Its chunks are gone, so it has to be told.
#[test]
fn a_commit_that_comes_after_the_collection_is_refused() {
    let (mut shop, ino) = file_of(&[(1, 1, 1)]);
    collect(&mut shop, &[(2, 2, 7)]).unwrap();
    let late = Commit { extents: vec![extent((2, 2, 7))], size_at_least: 30, ..Commit::default() };
    assert_eq!(shop.commit(ino, late.clone()), Err(FsError::Conflict { index: 2 }));
    let Ok(Answer::Dead(dead)) = shop.tables.query(&Query::Dead { before: at(100), limit: 9 }) else { panic!() };
    shop.alone(Change::ForgetDead { ids: dead.iter().map(|(id, _)| *id).collect() }).unwrap();
    assert_eq!(shop.commit(ino, late), Err(FsError::Conflict { index: 2 }), "also when the nodes have deleted it");
}

/// One leader's clock was a month ahead, and an operation that it logged made every retired version usable again.
#[test]
fn a_clock_that_jumps_makes_no_retired_version_usable() {
    let (mut shop, ino) = file_of(&[(1, 1, 1)]);
    collect(&mut shop, &[(2, 2, 7)]).unwrap();
    let Ok(Answer::Dead(dead)) = shop.tables.query(&Query::Dead { before: at(100), limit: 9 }) else { panic!() };
    shop.alone(Change::ForgetDead { ids: dead.iter().map(|(id, _)| *id).collect() }).unwrap();
    shop.clock += 31 * 24 * 3600;
    collect(&mut shop, &[(1, 1, 8)]).unwrap();
    let late = Commit { extents: vec![extent((2, 2, 7))], size_at_least: 30, ..Commit::default() };
    assert_eq!(shop.commit(ino, late), Err(FsError::Conflict { index: 2 }));
}

/// A part of a write is committed, the rest an hour later: it is an error for the writer, and the part stays.
#[test]
fn the_rest_of_a_version_is_refused_when_single_chunks_of_it_were_collected() {
    let (mut shop, ino) = file_of(&[(1, 3, 7)]);
    assert_eq!(collect(&mut shop, &[(4, 1, 7)]), Ok(Reply::Collected { runs: 1 }));
    let rest = Commit { extents: vec![extent((5, 2, 7))], size_at_least: 60, ..Commit::default() };
    assert_eq!(shop.commit(ino, rest), Err(FsError::Conflict { index: 5 }));
    assert_eq!((shop.contents(ino), shop.dead()), ("1+3 v7".into(), "4+1 v7".into()));
    shop.write(ino, &[(2, 1, 8)]);
    assert_eq!((shop.contents(ino), shop.dead()), ("1+1 v7, 2+1 v8, 3+1 v7".into(), "4+1 v7, 2+1 v7".into()));
}

/// They belong to another namespace, or to what this one knew before it lost its state.
#[test]
fn versions_that_were_never_allocated_are_left_alone() {
    let (mut shop, _) = file_of(&[(1, 1, 1)]);
    let next = shop.tables.next.version;
    assert_eq!(collect(&mut shop, &[(1, 9, 0), (1, 9, next)]), Ok(Reply::Collected { runs: 0 }));
    assert_eq!(collect(&mut shop, &[(1, 9, next - 1)]), Ok(Reply::Collected { runs: 1 }));
    assert_eq!(shop.dead(), format!("1+9 v{}", next - 1));
}
