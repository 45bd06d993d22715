//! Sessions: applied once, held files, versions.

use chordfs_types::namespace::VersionBlock;

use super::*;

const ROOT: Ino = Ino::ROOT;

fn op(session: SessionId, sequence: u64, answered_below: u64, change: Change) -> NamespaceOp {
    NamespaceOp { origin: Some(OpId { session, sequence, answered_below }), now: at(50), change }
}

fn make(name: &str) -> Change {
    Change::Make { parent: ROOT, name: entry(name), node: node(FileKind::File), exclusive: true }
}

#[test]
fn an_operation_sent_again_is_answered_again_and_not_done_again() {
    let mut shop = Shop::new();
    let session = shop.session;
    for change in [make("a"), make("a"), Change::AllocateVersions { count: 3 }] {
        shop.sequence += 1;
        let op = op(session, shop.sequence, 1, change);
        let first = shop.tables.apply(90, at(50), &op);
        let after = shop.tables.clone();
        let second = shop.tables.apply(91, at(50), &op);
        assert_eq!((first.reply, Vec::new()), (second.reply, second.feed));
        assert_eq!((shop.tables.clone(), second.origin), (after, Some(session)));
    }
}

#[test]
fn replies_are_forgotten_once_the_session_has_them() {
    let mut shop = Shop::new();
    let session = shop.session;
    let mut reply =
        |sequence, below, name: &str| shop.tables.apply(90, at(50), &op(session, sequence, below, make(name))).reply;
    assert!(reply(1, 0, "a").is_ok());
    assert!(reply(3, 0, "c").is_ok(), "several are in flight");
    assert!(reply(2, 0, "b").is_ok(), "and may overtake each other");
    assert!(reply(4, 3, "d").is_ok());
    assert_eq!(reply(2, 0, "b"), Err(FsError::OutOfOrder));
    assert_eq!(reply(5, 6, "e"), Err(FsError::OutOfOrder), "below its own bound");
    assert!(reply(3, 3, "c").is_ok(), "still known");
    assert_eq!(shop.tables.sessions[&session].replies().count(), 2);
}

#[test]
fn an_unknown_session_changes_nothing() {
    let mut shop = Shop::new();
    let before = shop.tables.clone();
    let applied = shop.tables.apply(9, at(50), &op(SessionId(44), 1, 0, make("a")));
    assert_eq!((applied.reply, shop.tables), (Err(FsError::NoSession), before));
}

#[test]
fn a_nonce_opens_one_session() {
    let mut shop = Shop::new();
    let open = |nonce| Change::OpenSession { nonce, client: "there".into() };
    let first = shop.alone(open(7)).unwrap();
    assert_eq!(shop.alone(open(7)), Ok(first.clone()));
    assert_ne!(shop.alone(open(8)), Ok(first.clone()));
    let Reply::Session { session, .. } = first else { panic!() };
    shop.alone(Change::CloseSession { session }).unwrap();
    assert_eq!(shop.alone(Change::CloseSession { session }), Err(FsError::NoSession));
    assert_ne!(shop.alone(open(7)), Ok(Reply::Done));
    assert_eq!(shop.tables.sessions().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn versions_are_handed_out_once_and_never_zero() {
    let mut shop = Shop::new();
    let Reply::Session { versions, .. } = shop.alone(Change::OpenSession { nonce: 1, client: "".into() }).unwrap()
    else {
        panic!()
    };
    assert_eq!(versions, VersionBlock { first: Version(1), count: 4096 });
    let next = shop.run(Change::AllocateVersions { count: 5 });
    assert_eq!(next, Ok(Reply::Versions(VersionBlock { first: Version(4097), count: 5 })));
    let next = shop.run(Change::AllocateVersions { count: 1 });
    assert_eq!(next, Ok(Reply::Versions(VersionBlock { first: Version(4102), count: 1 })));
    assert!(is_invalid(shop.run(Change::AllocateVersions { count: 0 })));
}

#[test]
fn a_held_file_outlives_its_name_until_it_is_released() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    shop.write(ino, &[(1, 2, 1)]);
    shop.unlink("f", true).unwrap();
    assert_eq!((shop.attr(ino).nlink, shop.purge(i64::MAX)), (0, 0));
    shop.write(ino, &[(2, 2, 2)]);
    shop.run(Change::Release { inos: vec![ino, Ino(99)] }).unwrap();
    let released = shop.clock;
    assert!(!shop.tables.has_purgeable(at(released)));
    assert_eq!(shop.purge(released), 0, "released not before then");
    assert!(shop.tables.has_purgeable(at(released + 1)));
    assert_eq!(shop.purge(released + 1), 1);
    assert_eq!(shop.dead(), "2+1 v1, 1+1 v1, 2+2 v2");
    assert_eq!(shop.tables.query(&Query::Open { ino }), Err(FsError::Stale { ino }));
    assert_eq!(shop.tables.query(&Query::StatFs), Ok(Answer::StatFs { inodes: 1, bytes: 0 }));
    assert_eq!(shop.run(Change::Hold { ino }), Err(FsError::Stale { ino }));
}

#[test]
fn another_session_may_hold_what_the_feed_told_it() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    shop.unlink("f", true).unwrap();
    let other = shop.open(2);
    shop.apply(Some(OpId { session: other, sequence: 1, answered_below: 0 }), Change::Hold { ino }).unwrap();
    shop.run(Change::Release { inos: vec![ino] }).unwrap();
    assert_eq!(shop.purge(i64::MAX), 0);
    shop.alone(Change::CloseSession { session: other }).unwrap();
    assert_eq!(shop.purge(i64::MAX), 1);
}

#[test]
fn holding_what_has_a_name_means_nothing() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    shop.run(Change::Hold { ino }).unwrap();
    shop.unlink("f", false).unwrap();
    assert_eq!(shop.purge(i64::MAX), 1);
}

#[test]
fn a_nameless_file_ends_with_its_session_unless_it_got_a_name() {
    let mut shop = Shop::new();
    let unnamed = || Change::MakeUnnamed { file: FileName::new("t").unwrap(), node: node(FileKind::File) };
    let inos = [0; 2].map(|_| match shop.run(unnamed()) {
        Ok(Reply::Entry { attr, created: true }) => (attr.nlink, attr.ino).1,
        other => panic!("{other:?}"),
    });
    shop.link(inos[0], "kept").unwrap();
    shop.alone(Change::CloseSession { session: shop.session }).unwrap();
    assert_eq!((shop.purge(i64::MAX), shop.lookup(ROOT, "kept")), (1, Ok(inos[0])));
}

#[test]
fn only_its_holder_may_name_a_nameless_file() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    shop.unlink("f", true).unwrap();
    shop.open(2);
    let other = Some(OpId { session: SessionId(2), sequence: 1, answered_below: 0 });
    let link = Change::Link { ino, parent: ROOT, name: entry("g") };
    assert_eq!(shop.apply(other, link.clone()), Err(FsError::NoEntry));
    assert!(shop.run(link).is_ok());
    assert!(shop.tables.orphans.is_empty());
}

#[test]
fn what_belongs_to_a_session_needs_one() {
    let mut shop = Shop::new();
    let file = FileName::new("t").unwrap();
    assert!(is_invalid(shop.alone(Change::MakeUnnamed { file, node: node(FileKind::File) })));
    assert!(is_invalid(shop.alone(Change::Hold { ino: ROOT })));
    assert!(is_invalid(shop.alone(Change::Release { inos: vec![] })));
}

#[test]
fn tables_come_back_from_their_bytes_and_damage_is_an_error() {
    let mut shop = Shop::new();
    let dir = shop.dir(ROOT, "d");
    let ino = shop.file("f");
    shop.make(dir, "l", node(FileKind::Symlink)).unwrap();
    shop.write(ino, &[(1, 9, 1), (20, 1, 2)]);
    shop.write(ino, &[(3, 1, 3)]);
    shop.unlink("f", true).unwrap();
    let bytes = postcard::to_stdvec(&shop.tables).unwrap();
    assert_eq!(postcard::from_bytes::<Tables>(&bytes).unwrap(), shop.tables);
    // The skipped ranges come last, one byte while there are none, and older snapshots end before them.
    assert_eq!(postcard::from_bytes::<Tables>(&bytes[..bytes.len() - 1]).unwrap(), shop.tables);
    for len in 0..bytes.len() - 1 {
        assert!(postcard::from_bytes::<Tables>(&bytes[..len]).is_err(), "cut at {len}");
    }
    // The length of the first table, as large as it can be.
    let huge = [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &bytes[1..]].concat();
    assert!(postcard::from_bytes::<Tables>(&huge).is_err());
}

#[test]
fn a_clone_does_not_see_later_changes() {
    let mut shop = Shop::new();
    let ino = shop.file("f");
    let snapshot = shop.tables.clone();
    shop.write(ino, &[(1, 1, 1)]);
    shop.unlink("f", false).unwrap();
    let Ok(Answer::Open { attr, extents, .. }) = snapshot.query(&Query::Open { ino }) else { panic!() };
    assert_eq!((attr.nlink, extents), (1, vec![]));
}
