//! Names: make, link, unlink, rmdir, rename, publish, and the questions about them.

use super::*;

const ROOT: Ino = Ino::ROOT;

#[test]
fn make_reports_an_existing_name_or_returns_it() {
    let mut shop = Shop::new();
    let ino = shop.file("a");
    assert_eq!(shop.make(ROOT, "a", node(FileKind::File)), Err(FsError::Exists));
    let again = Change::Make { parent: ROOT, name: entry("a"), node: node(FileKind::File), exclusive: false };
    assert_eq!(shop.run(again), Ok(Reply::Entry { attr: shop.attr(ino), created: false }));
    assert_eq!(shop.feed, []);
}

#[test]
fn make_wants_a_parent_that_is_a_directory_and_still_there() {
    let mut shop = Shop::new();
    let file = shop.file("file");
    assert_eq!(shop.make(file, "a", node(FileKind::File)), Err(FsError::NotDirectory));
    let gone = shop.dir(ROOT, "gone");
    shop.run(Change::Rmdir { parent: ROOT, name: entry("gone") }).unwrap();
    assert_eq!(shop.make(gone, "a", node(FileKind::File)), Err(FsError::NoEntry));
    assert_eq!(shop.lookup(gone, "a"), Err(FsError::NoEntry));
}

#[test]
fn a_new_directory_counts_in_its_parent() {
    let mut shop = Shop::new();
    let ino = shop.dir(ROOT, "d");
    let (root, dir) = (shop.attr(ROOT), shop.attr(ino));
    assert_eq!((root.nlink, dir.nlink), (3, 2));
    assert_eq!((root.mtime, root.ctime, root.atime), (at(shop.clock), at(shop.clock), at(0)));
    assert_eq!((root.change, dir.change), (shop.clock as u64, shop.clock as u64));
}

#[test]
fn a_set_gid_directory_hands_its_group_on() {
    let mut shop = Shop::new();
    let team = NewNode { mode: 0o2775, gid: 50, ..node(FileKind::Directory) };
    let team = shop.make(ROOT, "team", team).unwrap().ino;
    let file = shop.make(team, "f", node(FileKind::File)).unwrap();
    let dir = shop.make(team, "d", node(FileKind::Directory)).unwrap();
    assert_eq!((file.gid, file.mode, dir.gid, dir.mode), (50, 0o755, 50, 0o2755));
}

#[test]
fn the_mode_and_device_number_keep_what_they_may() {
    let mut shop = Shop::new();
    let attr = shop.make(ROOT, "f", NewNode { mode: 0xffff, rdev: 9, ..node(FileKind::Fifo) }).unwrap();
    assert_eq!((attr.mode, attr.rdev, attr.chunk_bytes), (0o7777, 0, 0));
    assert_eq!(shop.make(ROOT, "c", NewNode { rdev: 9, ..node(FileKind::CharDevice) }).unwrap().rdev, 9);
}

#[test]
fn symlink_targets_have_bounds() {
    let mut shop = Shop::new();
    let mut link = |len: usize| {
        let target = Bytes::from(vec![b'x'; len]);
        shop.make(ROOT, &format!("l{len}"), NewNode { target, ..node(FileKind::Symlink) })
    };
    assert_eq!(link(0), Err(FsError::Name(NameError::Empty)));
    assert_eq!(link(4095).map(|attr| attr.size), Ok(4095));
    assert_eq!(link(4096), Err(FsError::Name(NameError::TooLong { len: 4096, limit: 4095 })));
    let targeted = NewNode { target: Bytes::from_static(b"x"), ..node(FileKind::File) };
    assert!(matches!(shop.make(ROOT, "f", targeted), Err(FsError::Invalid { .. })));
}

#[test]
fn a_file_keeps_the_path_at_which_it_was_made() {
    let mut shop = Shop::new();
    let d = shop.dir(ROOT, "d");
    let e = shop.dir(d, "e");
    let old = shop.make(e, "f", node(FileKind::File)).unwrap();
    shop.rename((d, "e"), (ROOT, "E"), RenameMode::Replace).unwrap();
    let new = shop.make(e, "f2", node(FileKind::File)).unwrap();
    assert_eq!((old.file.to_string(), new.file.to_string()), ("d/e/f".into(), "E/f2".into()));
    assert_eq!(shop.attr(old.ino).file, old.file);
}

#[test]
fn a_path_longer_than_a_name_may_be_is_refused() {
    let mut shop = Shop::new();
    let long = "x".repeat(255);
    let deepest = (0..15).fold(ROOT, |parent, _| shop.dir(parent, &long));
    // 15 * 256 bytes and 255 more are 4095.
    assert!(shop.make(deepest, &"y".repeat(255), node(FileKind::File)).is_ok());
    let deeper = shop.dir(deepest, "z");
    let refused = shop.make(deeper, &"y".repeat(254), node(FileKind::File));
    assert_eq!(refused, Err(FsError::Name(NameError::TooLong { len: 4096, limit: 4095 })));
    assert!(shop.make(deeper, &"y".repeat(253), node(FileKind::File)).is_ok());
}

#[test]
fn links_count_and_directories_have_none() {
    let mut shop = Shop::new();
    let ino = shop.file("a");
    let Ok(Reply::Entry { attr, created: true }) = shop.link(ino, "b") else { panic!() };
    assert_eq!((attr.nlink, attr.ctime), (2, at(shop.clock)));
    assert_eq!(shop.link(ino, "b"), Err(FsError::Exists));
    let dir = shop.dir(ROOT, "d");
    assert!(matches!(shop.link(dir, "e"), Err(FsError::NotPermitted { .. })));
    assert_eq!(shop.link(Ino(99), "e"), Err(FsError::Stale { ino: Ino(99) }));
}

#[test]
fn links_have_a_limit() {
    let mut shop = Shop::new();
    let (ino, dir) = (shop.file("a"), shop.dir(ROOT, "d"));
    for full in [ino, dir] {
        Arc::make_mut(shop.tables.inodes.get_mut(&full).unwrap()).attr.nlink = MAX_LINKS;
    }
    assert_eq!(shop.link(ino, "b"), Err(FsError::TooManyLinks));
    assert_eq!(shop.make(dir, "x", node(FileKind::Directory)), Err(FsError::TooManyLinks));
    shop.dir(ROOT, "e");
    assert_eq!(shop.rename((ROOT, "e"), (dir, "e"), RenameMode::Replace), Err(FsError::TooManyLinks));
    assert!(shop.make(dir, "f", node(FileKind::File)).is_ok());
}

#[test]
fn unlink_is_for_non_directories_and_rmdir_for_empty_directories() {
    let mut shop = Shop::new();
    let dir = shop.dir(ROOT, "d");
    shop.file("f");
    shop.dir(dir, "inner");
    let mut rmdir = |parent, name| shop.run(Change::Rmdir { parent, name: entry(name) });
    assert_eq!(rmdir(ROOT, "f"), Err(FsError::NotDirectory));
    assert_eq!(rmdir(ROOT, "d"), Err(FsError::NotEmpty));
    assert_eq!(rmdir(ROOT, "none"), Err(FsError::NoEntry));
    assert_eq!(rmdir(dir, "inner"), Ok(Reply::Done));
    assert_eq!(shop.attr(dir).nlink, 2);
    assert_eq!(shop.unlink("d", false), Err(FsError::IsDirectory));
    assert_eq!(shop.unlink("none", false), Err(FsError::NoEntry));
}

#[test]
fn unlink_tells_what_is_left() {
    let mut shop = Shop::new();
    let ino = shop.file("a");
    shop.link(ino, "b").unwrap();
    let Ok(Reply::Removed { attr: Some(attr) }) = shop.unlink("a", false) else { panic!() };
    assert_eq!((attr.ino, attr.nlink, attr.ctime), (ino, 1, at(shop.clock)));
    let inode = |ino| FeedEvent::Inode { ino, contents: false };
    assert_eq!(shop.feed, [FeedEvent::Entry { parent: ROOT, name: entry("a") }, inode(ROOT), inode(ino)]);
    shop.unlink("b", false).unwrap();
    assert!(shop.feed.contains(&FeedEvent::Orphaned { ino }));
}

#[test]
fn what_is_no_file_goes_with_its_last_name() {
    let mut shop = Shop::new();
    let link = shop.make(ROOT, "l", node(FileKind::Symlink)).unwrap().ino;
    shop.unlink("l", true).unwrap();
    assert_eq!(shop.tables.query(&Query::GetAttr { ino: link }), Err(FsError::Stale { ino: link }));
    assert!(shop.tables.orphans.is_empty());
}

#[test]
fn rename_moves_a_directory_with_its_dots() {
    let mut shop = Shop::new();
    let (a, b) = (shop.dir(ROOT, "a"), shop.dir(ROOT, "b"));
    let moved = shop.dir(a, "moved");
    assert_eq!(shop.rename((a, "moved"), (b, "here"), RenameMode::Replace), Ok(Reply::Removed { attr: None }));
    assert_eq!((shop.attr(a).nlink, shop.attr(b).nlink, shop.attr(moved).ctime), (2, 3, at(shop.clock)));
    let Ok(Answer::Entries { parent, .. }) = shop.tables.query(&Query::ReadDir { ino: moved, after: None }) else {
        panic!()
    };
    assert_eq!(parent, b);
}

#[test]
fn rename_refuses_to_put_a_directory_into_itself() {
    let mut shop = Shop::new();
    let a = shop.dir(ROOT, "a");
    let b = shop.dir(a, "b");
    let c = shop.dir(b, "c");
    for (to, mode) in [(a, RenameMode::Replace), (c, RenameMode::NoReplace)] {
        assert_eq!(shop.rename((ROOT, "a"), (to, "x"), mode), Err(FsError::IntoItself));
    }
    assert_eq!(shop.rename((ROOT, "a"), (b, "c"), RenameMode::Exchange), Err(FsError::IntoItself));
    assert_eq!(shop.rename((b, "c"), (ROOT, "a"), RenameMode::Exchange), Err(FsError::IntoItself));
    assert_eq!(shop.rename((b, "c"), (ROOT, "a"), RenameMode::Replace), Err(FsError::NotEmpty));
}

#[test]
fn rename_replaces_like_with_like() {
    let mut shop = Shop::new();
    let (dir, full) = (shop.dir(ROOT, "dir"), shop.dir(ROOT, "full"));
    shop.dir(full, "x");
    let (_, old) = (shop.file("file"), shop.file("old"));
    let mut rename = |from, to| shop.rename((ROOT, from), (ROOT, to), RenameMode::Replace);
    assert_eq!(rename("dir", "file"), Err(FsError::NotDirectory));
    assert_eq!(rename("file", "dir"), Err(FsError::IsDirectory));
    assert_eq!(rename("dir", "full"), Err(FsError::NotEmpty));
    assert_eq!(rename("none", "dir"), Err(FsError::NoEntry));
    let Ok(Reply::Removed { attr: Some(replaced) }) = rename("file", "old") else { panic!() };
    assert_eq!((replaced.ino, replaced.nlink), (old, 0));
    let Ok(Reply::Removed { attr: Some(replaced) }) = rename("full", "dir") else { panic!() };
    assert_eq!((replaced.ino, replaced.nlink), (dir, 0));
    assert_eq!((shop.lookup(ROOT, "dir"), shop.attr(ROOT).nlink), (Ok(full), 3));
}

#[test]
fn rename_onto_another_name_of_the_same_inode_does_nothing() {
    let mut shop = Shop::new();
    let ino = shop.file("a");
    shop.link(ino, "b").unwrap();
    let before = shop.attr(ino);
    for mode in [RenameMode::Replace, RenameMode::Exchange] {
        assert_eq!(shop.rename((ROOT, "a"), (ROOT, "b"), mode), Ok(Reply::Removed { attr: None }));
    }
    assert_eq!(shop.rename((ROOT, "a"), (ROOT, "b"), RenameMode::NoReplace), Err(FsError::Exists));
    assert_eq!((shop.attr(ino), shop.lookup(ROOT, "a")), (before, Ok(ino)));
}

#[test]
fn exchange_swaps_any_two() {
    let mut shop = Shop::new();
    let (dir, file) = (shop.dir(ROOT, "d"), shop.file("f"));
    let inner = shop.dir(dir, "inner");
    assert_eq!(shop.rename((dir, "inner"), (ROOT, "f"), RenameMode::Exchange), Ok(Reply::Removed { attr: None }));
    assert_eq!((shop.lookup(ROOT, "f"), shop.lookup(dir, "inner")), (Ok(inner), Ok(file)));
    assert_eq!((shop.attr(ROOT).nlink, shop.attr(dir).nlink), (4, 2));
    assert_eq!(shop.rename((ROOT, "f"), (ROOT, "none"), RenameMode::Exchange), Err(FsError::NoEntry));
}

#[test]
fn publish_puts_a_nameless_file_in_place_of_another() {
    let mut shop = Shop::new();
    let old = shop.file("f");
    shop.dir(ROOT, "d");
    let file = FileName::new("f").unwrap();
    let unnamed = Change::MakeUnnamed { file, node: node(FileKind::File) };
    let Ok(Reply::Entry { attr, .. }) = shop.run(unnamed) else { panic!() };
    let publish = |ino, name| Change::Publish { ino, parent: ROOT, name: entry(name) };
    assert_eq!(shop.run(publish(attr.ino, "d")), Err(FsError::IsDirectory));
    let Ok(Reply::Removed { attr: Some(replaced) }) = shop.run(publish(attr.ino, "f")) else { panic!() };
    assert_eq!((replaced.ino, replaced.nlink, shop.attr(attr.ino).nlink), (old, 0, 1));
    assert!(shop.feed.contains(&FeedEvent::Orphaned { ino: old }));
    assert!(is_invalid(shop.run(publish(attr.ino, "g"))), "it has a name already");
    assert_eq!(shop.run(publish(old, "g")), Err(FsError::NoEntry), "nobody holds it");
    assert_eq!((shop.purge(i64::MAX), shop.lookup(ROOT, "f")), (1, Ok(attr.ino)));
}

#[test]
fn directories_are_listed_in_pages_and_in_the_order_of_bytes() {
    let mut shop = Shop::new();
    let dir = shop.dir(ROOT, "d");
    let count = PAGE_ITEMS as usize + 10;
    (0..count).rev().for_each(|n| drop(shop.make(dir, &format!("{n:05}"), node(FileKind::Fifo)).unwrap()));
    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let Ok(Answer::Entries { entries, more, .. }) = shop.tables.query(&Query::ReadDir { ino: dir, after }) else {
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
    let mut shop = Shop::new();
    let deepest = (0..14).fold(ROOT, |parent, _| shop.dir(parent, &"x".repeat(255)));
    (0..200).for_each(|n| drop(shop.make(deepest, &format!("{n:0250}"), node(FileKind::Fifo)).unwrap()));
    let answer = shop.tables.query(&Query::ReadDir { ino: deepest, after: None }).unwrap();
    let Answer::Entries { entries, more: true, .. } = &answer else { panic!("all in one page") };
    assert!(entries.len() > 100);
    assert!(chordfs_types::namespace::encode(&answer).len() <= 513 * 1024);
}

#[test]
fn paths_resolve_without_following() {
    let mut shop = Shop::new();
    let dir = shop.dir(ROOT, "d");
    let link = shop.make(dir, "l", node(FileKind::Symlink)).unwrap().ino;
    let resolve =
        |path: &[&str]| shop.tables.query(&Query::Resolve { path: path.iter().map(|name| entry(name)).collect() });
    assert_eq!(resolve(&[]), Ok(Answer::Attr(shop.attr(ROOT))));
    assert_eq!(resolve(&["d", "l"]), Ok(Answer::Attr(shop.attr(link))));
    assert_eq!(resolve(&["d", "l", "x"]), Err(FsError::NotDirectory));
    assert_eq!(resolve(&["d", "x"]), Err(FsError::NoEntry));
    assert_eq!(shop.tables.query(&Query::ReadLink { ino: link }), Ok(Answer::Target(Bytes::from_static(b"there"))));
    assert!(matches!(shop.tables.query(&Query::ReadLink { ino: dir }), Err(FsError::Invalid { .. })));
}
