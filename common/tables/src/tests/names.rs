//! Names: make, link, unlink, rmdir, rename, publish, and the queries for them.

use chordfs_types::{chunk::NameError, namespace::MAX_LISTED_EXTENTS};

use super::*;

const ROOT: Ino = Ino::ROOT;

#[test]
fn make_reports_an_existing_name_or_returns_it() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    assert_eq!(fixture.make(ROOT, "a", node(FileKind::File)), Err(FsError::Exists));
    let again = Change::Make { parent: ROOT, name: entry("a"), node: node(FileKind::File), exclusive: false };
    assert_eq!(fixture.run(again), Ok(Reply::Entry { attr: fixture.attr(ino), created: false }));
    assert_eq!(fixture.feed, []);
}

#[test]
fn make_needs_an_existing_parent_directory() {
    let mut fixture = Fixture::new();
    let file = fixture.file("file");
    assert_eq!(fixture.make(file, "a", node(FileKind::File)), Err(FsError::NotDirectory));
    let gone = fixture.dir(ROOT, "gone");
    fixture.run(Change::Rmdir { parent: ROOT, name: entry("gone") }).unwrap();
    assert_eq!(fixture.make(gone, "a", node(FileKind::File)), Err(FsError::NoEntry));
    assert_eq!(fixture.lookup(gone, "a"), Err(FsError::NoEntry));
}

#[test]
fn a_new_directory_counts_in_its_parent() {
    let mut fixture = Fixture::new();
    let ino = fixture.dir(ROOT, "d");
    let (root, dir) = (fixture.attr(ROOT), fixture.attr(ino));
    assert_eq!((root.nlink, dir.nlink), (3, 2));
    assert_eq!((root.mtime, root.ctime, root.atime), (at(fixture.clock), at(fixture.clock), at(0)));
    assert_eq!((root.change, dir.change), (fixture.clock as u64, fixture.clock as u64));
}

#[test]
fn a_set_gid_directory_hands_its_group_on() {
    let mut fixture = Fixture::new();
    let team = NewNode { mode: 0o2775, gid: 50, ..node(FileKind::Directory) };
    let team = fixture.make(ROOT, "team", team).unwrap().ino;
    let file = fixture.make(team, "f", node(FileKind::File)).unwrap();
    let dir = fixture.make(team, "d", node(FileKind::Directory)).unwrap();
    assert_eq!((file.gid, file.mode, dir.gid, dir.mode), (50, 0o755, 50, 0o2755));
}

#[test]
fn the_mode_and_device_number_keep_only_valid_bits() {
    let mut fixture = Fixture::new();
    let attr = fixture.make(ROOT, "f", NewNode { mode: 0xffff, rdev: 9, ..node(FileKind::Fifo) }).unwrap();
    assert_eq!((attr.mode, attr.rdev, attr.chunk_bytes), (0o7777, 0, 0));
    assert_eq!(fixture.make(ROOT, "c", NewNode { rdev: 9, ..node(FileKind::CharDevice) }).unwrap().rdev, 9);
}

#[test]
fn symlink_targets_have_bounds() {
    let mut fixture = Fixture::new();
    let mut link = |len: usize| {
        let target = Bytes::from(vec![b'x'; len]);
        fixture.make(ROOT, &format!("l{len}"), NewNode { target, ..node(FileKind::Symlink) })
    };
    assert_eq!(link(0), Err(FsError::Name(NameError::Empty)));
    assert_eq!(link(4095).map(|attr| attr.size), Ok(4095));
    assert_eq!(link(4096), Err(FsError::Name(NameError::TooLong { len: 4096, limit: 4095 })));
    let targeted = NewNode { target: Bytes::from_static(b"x"), ..node(FileKind::File) };
    assert!(matches!(fixture.make(ROOT, "f", targeted), Err(FsError::Invalid { .. })));
}

#[test]
fn a_file_keeps_the_path_at_which_it_was_made() {
    let mut fixture = Fixture::new();
    let d = fixture.dir(ROOT, "d");
    let e = fixture.dir(d, "e");
    let old = fixture.make(e, "f", node(FileKind::File)).unwrap();
    fixture.rename((d, "e"), (ROOT, "E"), RenameMode::Replace).unwrap();
    let new = fixture.make(e, "f2", node(FileKind::File)).unwrap();
    assert_eq!((old.file.to_string(), new.file.to_string()), ("d/e/f".into(), "E/f2".into()));
    assert_eq!(fixture.attr(old.ino).file, old.file);
}

#[test]
fn the_name_of_what_lies_very_deep_is_the_end_of_its_path() {
    let mut fixture = Fixture::new();
    let long = "x".repeat(255);
    let deepest = (0..15).fold(ROOT, |parent, _| fixture.dir(parent, &long));
    // 15 * 256 bytes and 255 more are 4095.
    let whole = fixture.make(deepest, &"y".repeat(255), node(FileKind::File)).unwrap();
    assert_eq!(whole.file.as_bytes().len(), 4095);
    let deeper = fixture.dir(deepest, "z");
    let file = |fixture: &mut Fixture, len: usize| {
        let made = fixture.make(deeper, &"y".repeat(len), node(FileKind::File));
        made.unwrap().file.to_string()
    };
    assert_eq!(file(&mut fixture, 253).len(), 4095);
    // The first directory is left out.
    let name = file(&mut fixture, 254);
    assert_eq!(name.len(), 4096 - 256);
    assert!(name.starts_with(&format!("{long}/")) && name.ends_with(&format!("/z/{}", "y".repeat(254))));
}

#[test]
fn links_count_and_directories_have_none() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    let Ok(Reply::Entry { attr, created: true }) = fixture.link(ino, "b") else { panic!() };
    assert_eq!((attr.nlink, attr.ctime), (2, at(fixture.clock)));
    assert_eq!(fixture.link(ino, "b"), Err(FsError::Exists));
    let dir = fixture.dir(ROOT, "d");
    assert!(matches!(fixture.link(dir, "e"), Err(FsError::NotPermitted { .. })));
    assert_eq!(fixture.link(Ino(99), "e"), Err(FsError::Stale { ino: Ino(99) }));
}

#[test]
fn links_have_a_limit() {
    let mut fixture = Fixture::new();
    let (ino, dir) = (fixture.file("a"), fixture.dir(ROOT, "d"));
    for full in [ino, dir] {
        Arc::make_mut(fixture.tables.inodes.get_mut(&full).unwrap()).attr.nlink = MAX_LINKS;
    }
    assert_eq!(fixture.link(ino, "b"), Err(FsError::TooManyLinks));
    assert_eq!(fixture.make(dir, "x", node(FileKind::Directory)), Err(FsError::TooManyLinks));
    fixture.dir(ROOT, "e");
    assert_eq!(fixture.rename((ROOT, "e"), (dir, "e"), RenameMode::Replace), Err(FsError::TooManyLinks));
    assert!(fixture.make(dir, "f", node(FileKind::File)).is_ok());
}

#[test]
fn unlink_is_for_non_directories_and_rmdir_for_empty_directories() {
    let mut fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    fixture.file("f");
    fixture.dir(dir, "inner");
    let mut rmdir = |parent, name| fixture.run(Change::Rmdir { parent, name: entry(name) });
    assert_eq!(rmdir(ROOT, "f"), Err(FsError::NotDirectory));
    assert_eq!(rmdir(ROOT, "d"), Err(FsError::NotEmpty));
    assert_eq!(rmdir(ROOT, "none"), Err(FsError::NoEntry));
    assert_eq!(rmdir(dir, "inner"), Ok(Reply::Done));
    assert_eq!(fixture.attr(dir).nlink, 2);
    assert_eq!(fixture.unlink("d", false), Err(FsError::IsDirectory));
    assert_eq!(fixture.unlink("none", false), Err(FsError::NoEntry));
}

#[test]
fn unlink_returns_the_remaining_link_count() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    fixture.link(ino, "b").unwrap();
    let Ok(Reply::Removed { attr: Some(attr) }) = fixture.unlink("a", false) else { panic!() };
    assert_eq!((attr.ino, attr.nlink, attr.ctime), (ino, 1, at(fixture.clock)));
    let inode = |ino| FeedEvent::Inode { ino, contents: false };
    assert_eq!(fixture.feed, [FeedEvent::Entry { parent: ROOT, name: entry("a") }, inode(ROOT), inode(ino)]);
    fixture.unlink("b", false).unwrap();
    assert!(fixture.feed.contains(&FeedEvent::Orphaned { ino }));
}

#[test]
fn an_inode_that_is_no_file_is_removed_with_its_last_name() {
    let mut fixture = Fixture::new();
    let link = fixture.make(ROOT, "l", node(FileKind::Symlink)).unwrap().ino;
    fixture.unlink("l", true).unwrap();
    assert_eq!(fixture.tables.query(&Query::GetAttr { ino: link }), Err(FsError::Stale { ino: link }));
    assert!(fixture.tables.orphans.is_empty());
}

#[test]
fn rename_moves_a_directory_with_its_dots() {
    let mut fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    let moved = fixture.dir(a, "moved");
    assert_eq!(fixture.rename((a, "moved"), (b, "here"), RenameMode::Replace), Ok(Reply::Removed { attr: None }));
    assert_eq!((fixture.attr(a).nlink, fixture.attr(b).nlink, fixture.attr(moved).ctime), (2, 3, at(fixture.clock)));
    let Ok(Answer::Entries { parent, .. }) = fixture.tables.query(&Query::ReadDir { ino: moved, after: None }) else {
        panic!()
    };
    assert_eq!(parent, b);
}

#[test]
fn rename_refuses_to_put_a_directory_into_itself() {
    let mut fixture = Fixture::new();
    let a = fixture.dir(ROOT, "a");
    let b = fixture.dir(a, "b");
    let c = fixture.dir(b, "c");
    for (to, mode) in [(a, RenameMode::Replace), (c, RenameMode::NoReplace)] {
        assert_eq!(fixture.rename((ROOT, "a"), (to, "x"), mode), Err(FsError::IntoItself));
    }
    assert_eq!(fixture.rename((ROOT, "a"), (b, "c"), RenameMode::Exchange), Err(FsError::IntoItself));
    assert_eq!(fixture.rename((b, "c"), (ROOT, "a"), RenameMode::Exchange), Err(FsError::IntoItself));
    assert_eq!(fixture.rename((b, "c"), (ROOT, "a"), RenameMode::Replace), Err(FsError::NotEmpty));
}

#[test]
fn rename_replaces_like_with_like() {
    let mut fixture = Fixture::new();
    let (dir, full) = (fixture.dir(ROOT, "dir"), fixture.dir(ROOT, "full"));
    fixture.dir(full, "x");
    let (_, old) = (fixture.file("file"), fixture.file("old"));
    let mut rename = |from, to| fixture.rename((ROOT, from), (ROOT, to), RenameMode::Replace);
    assert_eq!(rename("dir", "file"), Err(FsError::NotDirectory));
    assert_eq!(rename("file", "dir"), Err(FsError::IsDirectory));
    assert_eq!(rename("dir", "full"), Err(FsError::NotEmpty));
    assert_eq!(rename("none", "dir"), Err(FsError::NoEntry));
    let Ok(Reply::Removed { attr: Some(replaced) }) = rename("file", "old") else { panic!() };
    assert_eq!((replaced.ino, replaced.nlink), (old, 0));
    let Ok(Reply::Removed { attr: Some(replaced) }) = rename("full", "dir") else { panic!() };
    assert_eq!((replaced.ino, replaced.nlink), (dir, 0));
    assert_eq!((fixture.lookup(ROOT, "dir"), fixture.attr(ROOT).nlink), (Ok(full), 3));
}

#[test]
fn rename_onto_another_name_of_the_same_inode_does_nothing() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    fixture.link(ino, "b").unwrap();
    let before = fixture.attr(ino);
    for mode in [RenameMode::Replace, RenameMode::Exchange] {
        assert_eq!(fixture.rename((ROOT, "a"), (ROOT, "b"), mode), Ok(Reply::Removed { attr: None }));
    }
    assert_eq!(fixture.rename((ROOT, "a"), (ROOT, "b"), RenameMode::NoReplace), Err(FsError::Exists));
    assert_eq!((fixture.attr(ino), fixture.lookup(ROOT, "a")), (before, Ok(ino)));
}

#[test]
fn exchange_swaps_any_two() {
    let mut fixture = Fixture::new();
    let (dir, file) = (fixture.dir(ROOT, "d"), fixture.file("f"));
    let inner = fixture.dir(dir, "inner");
    assert_eq!(fixture.rename((dir, "inner"), (ROOT, "f"), RenameMode::Exchange), Ok(Reply::Removed { attr: None }));
    assert_eq!((fixture.lookup(ROOT, "f"), fixture.lookup(dir, "inner")), (Ok(inner), Ok(file)));
    assert_eq!((fixture.attr(ROOT).nlink, fixture.attr(dir).nlink), (4, 2));
    assert_eq!(fixture.rename((ROOT, "f"), (ROOT, "none"), RenameMode::Exchange), Err(FsError::NoEntry));
}

#[test]
fn publish_replaces_a_file_with_an_unnamed_one() {
    let mut fixture = Fixture::new();
    let old = fixture.file("f");
    fixture.dir(ROOT, "d");
    let file = FileName::new("f").unwrap();
    let unnamed = Change::MakeUnnamed { file, node: node(FileKind::File) };
    let Ok(Reply::Entry { attr, .. }) = fixture.run(unnamed) else { panic!() };
    let publish = |ino, name| Change::Publish { ino, parent: ROOT, name: entry(name) };
    assert_eq!(fixture.run(publish(attr.ino, "d")), Err(FsError::IsDirectory));
    let Ok(Reply::Removed { attr: Some(replaced) }) = fixture.run(publish(attr.ino, "f")) else { panic!() };
    assert_eq!((replaced.ino, replaced.nlink, fixture.attr(attr.ino).nlink), (old, 0, 1));
    assert!(fixture.feed.contains(&FeedEvent::Orphaned { ino: old }));
    assert!(is_invalid(fixture.run(publish(attr.ino, "g"))), "it has a name already");
    assert_eq!(fixture.run(publish(old, "g")), Err(FsError::NoEntry), "no session holds it");
    assert_eq!((fixture.purge(i64::MAX), fixture.lookup(ROOT, "f")), (1, Ok(attr.ino)));
}

#[test]
fn directories_are_listed_in_pages_and_in_the_order_of_bytes() {
    let mut fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let count = PAGE_ITEMS as usize + 10;
    (0..count).rev().for_each(|n| drop(fixture.make(dir, &format!("{n:05}"), node(FileKind::Fifo)).unwrap()));
    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let Ok(Answer::Entries { entries, more, .. }) = fixture.tables.query(&Query::ReadDir { ino: dir, after })
        else {
            panic!()
        };
        names.extend(entries.into_iter().map(|entry| entry.name));
        (after, pages) = (names.last().cloned(), pages + 1);
        if !more {
            break;
        }
    }
    assert_eq!((names.len(), pages, names.is_sorted()), (count, 2, true));
}

#[test]
fn a_page_of_long_paths_is_short() {
    let mut fixture = Fixture::new();
    let deepest = (0..14).fold(ROOT, |parent, _| fixture.dir(parent, &"x".repeat(255)));
    (0..200).for_each(|n| drop(fixture.make(deepest, &format!("{n:0250}"), node(FileKind::Fifo)).unwrap()));
    let answer = fixture.tables.query(&Query::ReadDir { ino: deepest, after: None }).unwrap();
    let Answer::Entries { entries, more: true, .. } = &answer else { panic!("all in one page") };
    assert!(entries.len() > 100);
    assert!(chordfs_types::namespace::encode(&answer).len() <= 513 * 1024);
}

#[test]
fn paths_resolve_without_following_symlinks() {
    let mut fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let link = fixture.make(dir, "l", node(FileKind::Symlink)).unwrap().ino;
    let resolve =
        |path: &[&str]| fixture.tables.query(&Query::Resolve { path: path.iter().map(|name| entry(name)).collect() });
    assert_eq!(resolve(&[]), Ok(Answer::Attr(fixture.attr(ROOT))));
    assert_eq!(resolve(&["d", "l"]), Ok(Answer::Attr(fixture.attr(link))));
    assert_eq!(resolve(&["d", "l", "x"]), Err(FsError::NotDirectory));
    assert_eq!(resolve(&["d", "x"]), Err(FsError::NoEntry));
    assert_eq!(fixture.tables.query(&Query::ReadLink { ino: link }), Ok(Answer::Target(Bytes::from_static(b"there"))));
    assert!(matches!(fixture.tables.query(&Query::ReadLink { ino: dir }), Err(FsError::Invalid { .. })));
}

#[test]
fn entries_are_listed_with_the_extents_of_files_that_have_few() {
    let mut fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let few = fixture.make(dir, "few", node(FileKind::File)).unwrap().ino;
    let many = fixture.make(dir, "many", node(FileKind::File)).unwrap().ino;
    fixture.dir(dir, "sub");
    // Every second chunk, each with a version of its own.
    let runs = |count: u32, version: u64| -> Vec<(u32, u32, u64)> {
        (0..count).map(|at| (1 + 2 * at, 1, version + u64::from(at))).collect()
    };
    let most = MAX_LISTED_EXTENTS as u32;
    fixture.write(few, &runs(most, 1));
    fixture.write(many, &runs(most + 1, 100));
    let listed: Vec<Extent> = runs(most, 1).into_iter().map(extent).collect();
    let query = |after, limit| match fixture.tables.query(&Query::OpenEntries { ino: dir, after, limit }) {
        Ok(Answer::OpenedEntries { entries, more }) => (entries, more),
        other => panic!("{other:?}"),
    };
    let (entries, more) = query(None, 2);
    let found: Vec<_> = entries.iter().map(|opened| (opened.entry.attr.clone(), opened.extents.clone())).collect();
    let expected = [(fixture.attr(few), Some(listed)), (fixture.attr(many), None)];
    assert_eq!((&found[..], more), (&expected[..], true));
    let (rest, more) = query(Some(entry("many")), 2);
    let found: Vec<_> = rest.iter().map(|opened| (opened.entry.name.clone(), opened.extents.clone())).collect();
    assert_eq!((found, more), (vec![(entry("sub"), None)], false));
}
