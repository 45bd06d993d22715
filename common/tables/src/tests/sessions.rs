//! Sessions: operations that are applied once, held files, versions.

use chordfs_types::namespace::{MAX_HOLDS, VersionBlock};

use super::*;

const ROOT: Ino = Ino::ROOT;

fn op(session: SessionId, sequence: u64, answered_below: u64, change: Change) -> NamespaceOp {
    NamespaceOp { origin: Some(OpId { session, sequence, answered_below }), now: at(50), change }
}

fn make(name: &str) -> Change {
    Change::Make { parent: ROOT, name: entry(name), node: node(FileKind::File), exclusive: true }
}

#[test]
fn a_repeated_operation_gets_its_first_reply_and_is_not_applied_again() {
    let mut fixture = Fixture::new();
    let session = fixture.session;
    for change in [make("a"), make("a"), Change::AllocateVersions { count: 3 }] {
        fixture.sequence += 1;
        let op = op(session, fixture.sequence, 1, change);
        let first = fixture.tables.apply(90, at(50), &op);
        let after = fixture.tables.clone();
        let second = fixture.tables.apply(91, at(50), &op);
        assert_eq!((first.reply, Vec::new()), (second.reply, second.feed));
        assert_eq!((fixture.tables.clone(), second.origin), (after, Some(session)));
    }
}

#[test]
fn replies_are_forgotten_once_the_session_has_received_them() {
    let mut fixture = Fixture::new();
    let session = fixture.session;
    let mut reply =
        |sequence, below, name: &str| fixture.tables.apply(90, at(50), &op(session, sequence, below, make(name))).reply;
    assert!(reply(1, 0, "a").is_ok());
    assert!(reply(3, 0, "c").is_ok(), "several are in flight");
    assert!(reply(2, 0, "b").is_ok(), "and may overtake each other");
    assert!(reply(4, 3, "d").is_ok());
    assert_eq!(reply(2, 0, "b"), Err(FsError::OutOfOrder));
    assert_eq!(reply(5, 6, "e"), Err(FsError::OutOfOrder), "below its own bound");
    assert!(reply(3, 3, "c").is_ok(), "still known");
    assert_eq!(fixture.tables.sessions[&session].replies().count(), 2);
}

#[test]
fn an_unknown_session_changes_nothing() {
    let mut fixture = Fixture::new();
    let before = fixture.tables.clone();
    let applied = fixture.tables.apply(9, at(50), &op(SessionId(44), 1, 0, make("a")));
    assert_eq!((applied.reply, fixture.tables), (Err(FsError::NoSession), before));
}

#[test]
fn a_nonce_opens_one_session() {
    let mut fixture = Fixture::new();
    let open = |nonce| Change::OpenSession { nonce, client: "there".into(), holds_leases: false };
    let first = fixture.run_without_session(open(7)).unwrap();
    assert_eq!(fixture.run_without_session(open(7)), Ok(first.clone()));
    assert_ne!(fixture.run_without_session(open(8)), Ok(first.clone()));
    let Reply::Session { session, .. } = first else { panic!() };
    fixture.run_without_session(Change::CloseSession { session }).unwrap();
    assert_eq!(fixture.run_without_session(Change::CloseSession { session }), Err(FsError::NoSession));
    assert_ne!(fixture.run_without_session(open(7)), Ok(Reply::Done));
    assert_eq!(fixture.tables.sessions().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn the_sessions_that_may_hold_leases_are_those_that_were_opened_so() {
    let mut fixture = Fixture::new();
    for (nonce, holds_leases) in [(2, false), (3, true), (4, false), (5, true), (2, true), (5, false)] {
        fixture.run_without_session(Change::OpenSession { nonce, client: "there".into(), holds_leases }).unwrap();
    }
    let holders = |tables: &Tables| tables.potential_lease_holders().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!(holders(&fixture.tables), [1, 3, 5], "opening a session again does not change it");
    let described = fixture.tables.session_descriptions().map(|session| session.holds_leases);
    assert_eq!(described.collect::<Vec<_>>(), [true, false, true, false, true]);
    fixture.run_without_session(Change::CloseSession { session: SessionId(3) }).unwrap();
    let bytes = postcard::to_stdvec(&fixture.tables).unwrap();
    assert_eq!(holders(&postcard::from_bytes(&bytes).unwrap()), [1, 5], "snapshots keep it");
}

#[test]
fn a_suspended_session_holds_nothing_and_can_still_change_everything() {
    let mut fixture = Fixture::new();
    let session = SessionId(1);
    let ino = fixture.file("a");
    fixture.unlink("a", true).unwrap();
    assert_eq!(fixture.tables.session_descriptions().next().unwrap().held_inodes, 1);
    assert!(fixture.tables.is_to_be_suspended(session));
    fixture.run_without_session(Change::SuspendSession { session }).unwrap();
    assert!(fixture.tables.is_suspended(session) && !fixture.tables.is_to_be_suspended(session));
    assert_eq!(fixture.tables.session_descriptions().next().unwrap().held_inodes, 0);
    assert_eq!(fixture.tables.potential_lease_holders().count(), 0, "no new leader waits for it");
    assert!(fixture.run(make("b")).is_ok());
    assert!(fixture.run(Change::HoldOrphans { inos: vec![ino] }).is_ok());
    assert!(fixture.tables.is_to_be_suspended(session), "it has taken a hold");
    fixture.run_without_session(Change::ResumeSession { session }).unwrap();
    assert_eq!(fixture.tables.potential_lease_holders().count(), 1);
    assert_eq!(fixture.run_without_session(Change::ResumeSession { session: SessionId(9) }), Err(FsError::NoSession));
}

#[test]
fn versions_are_allocated_once_and_never_zero() {
    let mut fixture = Fixture::new();
    let open = Change::OpenSession { nonce: 1, client: "".into(), holds_leases: false };
    let Reply::Session { versions, .. } = fixture.run_without_session(open).unwrap() else { panic!() };
    assert_eq!(versions, VersionBlock { first: Version(1), count: 4096 });
    let next = fixture.run(Change::AllocateVersions { count: 5 });
    assert_eq!(next, Ok(Reply::Versions(VersionBlock { first: Version(4097), count: 5 })));
    let next = fixture.run(Change::AllocateVersions { count: 1 });
    assert_eq!(next, Ok(Reply::Versions(VersionBlock { first: Version(4102), count: 1 })));
    assert!(is_invalid(fixture.run(Change::AllocateVersions { count: 0 })));
}

#[test]
fn a_held_file_outlives_its_name_until_it_is_released() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, &[(1, 2, 1)]);
    fixture.unlink("f", true).unwrap();
    assert_eq!((fixture.attr(ino).nlink, fixture.purge(i64::MAX)), (0, 0));
    fixture.write(ino, &[(2, 2, 2)]);
    fixture.run(Change::Release { inos: vec![ino, Ino(99)] }).unwrap();
    let released = fixture.clock;
    assert!(!fixture.tables.has_purgeable(released as u64));
    assert_eq!(fixture.purge(released), 0, "it was not released before that time");
    assert!(fixture.tables.has_purgeable(released as u64 + 1));
    assert_eq!(fixture.purge(released + 1), 1);
    assert_eq!(fixture.dead(), "2+1 v1, 1+1 v1, 2+2 v2");
    assert_eq!(fixture.tables.query(&Query::Open { ino }), Err(FsError::Stale { ino }));
    assert_eq!(fixture.tables.query(&Query::StatFs), Ok(Answer::StatFs { inodes: 1, bytes: 0 }));
    assert_eq!(fixture.run(Change::Hold { ino }), Err(FsError::Stale { ino }));
}

#[test]
fn another_session_may_hold_a_file_that_the_feed_reported_orphaned() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.unlink("f", true).unwrap();
    let other = fixture.open(2);
    fixture.apply(Some(OpId { session: other, sequence: 1, answered_below: 0 }), Change::Hold { ino }).unwrap();
    fixture.run(Change::Release { inos: vec![ino] }).unwrap();
    assert_eq!(fixture.purge(i64::MAX), 0);
    fixture.run_without_session(Change::CloseSession { session: other }).unwrap();
    assert_eq!(fixture.purge(i64::MAX), 1);
}

#[test]
fn many_files_are_held_at_once_and_those_without_a_name_are_reported() {
    let mut fixture = Fixture::new();
    let (removed, named) = (fixture.file("removed"), fixture.file("named"));
    let other = fixture.open(2);
    fixture.unlink("removed", false).unwrap();
    let origin = OpId { session: other, sequence: 1, answered_below: 0 };
    let hold = Change::HoldOrphans { inos: vec![named, removed, Ino(99)] };
    assert_eq!(fixture.apply(Some(origin), hold), Ok(Reply::Held { inos: vec![removed] }));
    assert_eq!(fixture.purge(i64::MAX), 0);
    fixture.unlink("named", false).unwrap();
    assert_eq!(fixture.purge(i64::MAX), 1, "it had a name when it was to be held");
    let too_many = Change::HoldOrphans { inos: vec![removed; MAX_HOLDS + 1] };
    assert!(is_invalid(fixture.run(too_many)));
}

#[test]
fn holding_a_file_that_has_a_name_has_no_effect() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.run(Change::Hold { ino }).unwrap();
    fixture.unlink("f", false).unwrap();
    assert_eq!(fixture.purge(i64::MAX), 1);
}

#[test]
fn an_unnamed_file_is_purged_after_its_session_closes_unless_it_was_linked() {
    let mut fixture = Fixture::new();
    let unnamed = || Change::MakeUnnamed { file: FileName::new("t").unwrap(), node: node(FileKind::File) };
    let inos = [0; 2].map(|_| match fixture.run(unnamed()) {
        Ok(Reply::Entry { attr, created: true }) => (attr.nlink, attr.ino).1,
        other => panic!("{other:?}"),
    });
    fixture.link(inos[0], "kept").unwrap();
    fixture.run_without_session(Change::CloseSession { session: fixture.session }).unwrap();
    assert_eq!((fixture.purge(i64::MAX), fixture.lookup(ROOT, "kept")), (1, Ok(inos[0])));
}

#[test]
fn only_its_holder_may_link_an_unnamed_file() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.unlink("f", true).unwrap();
    fixture.open(2);
    let other = Some(OpId { session: SessionId(2), sequence: 1, answered_below: 0 });
    let link = Change::Link { ino, parent: ROOT, name: entry("g") };
    assert_eq!(fixture.apply(other, link.clone()), Err(FsError::NoEntry));
    assert!(fixture.run(link).is_ok());
    assert!(fixture.tables.orphans.is_empty());
}

#[test]
fn changes_that_hold_files_need_a_session() {
    let mut fixture = Fixture::new();
    let file = FileName::new("t").unwrap();
    assert!(is_invalid(fixture.run_without_session(Change::MakeUnnamed { file, node: node(FileKind::File) })));
    assert!(is_invalid(fixture.run_without_session(Change::Hold { ino: ROOT })));
    assert!(is_invalid(fixture.run_without_session(Change::Release { inos: vec![] })));
}

#[test]
fn tables_come_back_from_their_bytes_and_damage_is_an_error() {
    let mut fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let ino = fixture.file("f");
    fixture.make(dir, "l", node(FileKind::Symlink)).unwrap();
    fixture.write(ino, &[(1, 9, 1), (20, 1, 2)]);
    fixture.write(ino, &[(3, 1, 3)]);
    fixture.unlink("f", true).unwrap();
    let bytes = postcard::to_stdvec(&fixture.tables).unwrap();
    assert_eq!(postcard::from_bytes::<Tables>(&bytes).unwrap(), fixture.tables);
    for len in 0..bytes.len() {
        assert!(postcard::from_bytes::<Tables>(&bytes[..len]).is_err(), "cut at {len}");
    }
    // The length of the first table, as large as it can be.
    let huge = [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &bytes[1..]].concat();
    assert!(postcard::from_bytes::<Tables>(&huge).is_err());
}

#[test]
fn a_clone_does_not_see_later_changes() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    let snapshot = fixture.tables.clone();
    fixture.write(ino, &[(1, 1, 1)]);
    fixture.unlink("f", false).unwrap();
    let Ok(Answer::Open { attr, extents, .. }) = snapshot.query(&Query::Open { ino }) else { panic!() };
    assert_eq!((attr.nlink, extents), (1, vec![]));
}
