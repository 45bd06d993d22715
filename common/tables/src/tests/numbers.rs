//! Inode numbers that a session chooses.

use chordfs_types::namespace::InoBlock;

use super::*;

fn numbered(ino: u64, name: &str) -> Change {
    Change::MakeNumbered {
        ino: Ino(ino),
        file: FileName::new(format!("chosen {ino}")).unwrap(),
        parent: Ino::ROOT,
        name: entry(name),
        node: node(FileKind::File),
    }
}

/// Tables whose session has the numbers 2 to 4 and 5 to 9.
fn with_numbers() -> Fixture {
    let mut fixture = Fixture::new();
    for (first, count) in [(2, 3), (5, 5)] {
        let block = InoBlock { first: Ino(first), count };
        assert_eq!(fixture.run(Change::AllocateInos { count }), Ok(Reply::Inos(block)));
    }
    fixture
}

#[test]
fn a_block_is_nobody_elses_and_its_numbers_are_used_once_and_ascend() {
    let mut fixture = with_numbers();
    assert_eq!(fixture.file("other"), Ino(10), "numbers of a block are skipped");
    let Ok(Reply::Entry { attr, created: true }) = fixture.run(numbered(3, "a")) else { panic!() };
    assert_eq!((attr.ino, attr.nlink, attr.file), (Ino(3), 1, FileName::new("chosen 3").unwrap()));
    for used_or_skipped in [2, 3] {
        assert!(is_invalid(fixture.run(numbered(used_or_skipped, "b"))), "{used_or_skipped}");
    }
    assert!(fixture.run(numbered(4, "b")).is_ok());
    assert!(fixture.run(numbered(7, "c")).is_ok());
    for not_left in [4, 5, 6, 7, 10, 11, u64::MAX] {
        assert!(is_invalid(fixture.run(numbered(not_left, "d"))), "{not_left}");
    }
    fixture.unlink("c", false).unwrap();
    assert!(is_invalid(fixture.run(numbered(7, "c"))), "not even when it is free again");
    assert!(fixture.run(numbered(9, "d")).is_ok());
    assert!(fixture.tables.sessions[&fixture.session].inos.is_empty(), "used-up blocks are dropped");
}

#[test]
fn a_refused_creation_uses_no_number_and_follows_the_rules_of_every_creation() {
    let mut fixture = with_numbers();
    assert!(fixture.run(numbered(4, "a")).is_ok());
    assert_eq!(fixture.run(numbered(6, "a")), Err(FsError::Exists));
    let without_chunks = Change::MakeNumbered {
        ino: Ino(6),
        file: FileName::new("f").unwrap(),
        parent: Ino::ROOT,
        name: entry("b"),
        node: NewNode { chunk_bytes: 0, ..node(FileKind::File) },
    };
    assert!(is_invalid(fixture.run(without_chunks)));
    assert!(fixture.run(numbered(5, "b")).is_ok());
}

#[test]
fn numbers_belong_to_one_session() {
    let mut fixture = with_numbers();
    let other = fixture.open(2);
    let origin = Some(OpId { session: other, sequence: 1, answered_below: 0 });
    assert!(is_invalid(fixture.apply(origin, numbered(2, "a"))));
    assert!(is_invalid(fixture.run_without_session(numbered(2, "a"))));
    assert!(fixture.run(numbered(2, "a")).is_ok());
}

#[test]
fn blocks_of_no_or_very_many_numbers_and_very_many_blocks_are_refused() {
    let mut fixture = Fixture::new();
    for count in [0, 65_537, u32::MAX] {
        assert!(is_invalid(fixture.run(Change::AllocateInos { count })), "{count}");
    }
    assert!(is_invalid(fixture.run_without_session(Change::AllocateInos { count: 1 })));
    assert!(fixture.run(Change::AllocateInos { count: 65_536 }).is_ok());
    let next = fixture.tables.next.ino;
    assert_eq!(next, 2 + 65_536);
    for _ in 1..64 {
        fixture.run(Change::AllocateInos { count: 1 }).unwrap();
    }
    assert!(is_invalid(fixture.run(Change::AllocateInos { count: 1 })));
    assert_eq!(fixture.tables.next.ino, next + 63);
}
