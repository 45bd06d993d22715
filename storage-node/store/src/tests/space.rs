//! A full disk: a put is refused and changes nothing, deleting works and frees space, and dead space is freed.

use std::time::Duration;

use super::*;
use crate::writing::space::disk_id;

#[test]
fn a_full_store_refuses_and_stays_whole() {
    let options = StoreOptions { capacity_bytes: Some(20_000), segment_bytes: 6000, ..plain_options() };
    let mut fixture = Fixture::new(options);
    let chunks = numbered("a", 1..=100, 1);
    let mut stored = 0;
    let error = loop {
        match fixture.store().put(&batch(&chunks[stored..stored + 2], 1000), (stored % 4 == 0).into()) {
            Ok(_) => stored += 2,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert_eq!(stored, 18, "1033 bytes each");
    let expected: Vec<bool> = (0..100).map(|at| at < stored).collect();
    for _ in 0..2 {
        assert_eq!(present(fixture.store(), &chunks), expected);
        assert!(fixture.store().stats().free_bytes < 2066);
        assert!(fixture.store().put(&batch(&chunks[50..52], 1000), Durability::Memory).is_err());
        fixture.reopen();
    }
    assert_eq!(fixture.store().delete(&[run("a", 1, 10, 1)]).unwrap(), 10);
    while fixture.store().compact_step().unwrap() {}
    assert_eq!(fixture.store().put(&batch(&chunks[50..52], 1000), Durability::Disk).unwrap().stored, 2);
    assert_eq!(present(fixture.reopen(), &chunks[10..18]), [true; 8]);
}

#[test]
fn a_chunk_that_is_here_can_be_put_again_on_a_full_store() {
    let fixture = Fixture::new(StoreOptions { capacity_bytes: Some(5000), ..plain_options() });
    let batch = batch(&numbered("a", 1..=4, 1), 1000);
    fixture.store().put(&batch, Durability::Memory).unwrap();
    assert_eq!(fixture.store().put(&batch, Durability::Disk).unwrap().already, 4);
}

#[test]
fn the_reserve_is_kept() {
    let fixture = Fixture::new(StoreOptions { reserve_bytes: u64::MAX, ..plain_options() });
    let error = fixture.store().put(&batch(&numbered("a", 1..=4, 1), 1000), Durability::Memory).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert_eq!(fixture.files(), [""; 0]);
    assert_eq!(fixture.store().stats().free_bytes, 0);
}

#[test]
fn stores_on_one_file_system_name_the_same_disk() {
    let (one, two) = (Fixture::new(plain_options()), Fixture::new(plain_options()));
    let disk = |fixture: &Fixture| fixture.store().stats().disk.expect("the disk can be read");
    assert_eq!(disk(&one).id, disk(&two).id);
    let limited = Fixture::new(StoreOptions { capacity_bytes: Some(1), ..plain_options() });
    assert!(disk(&limited).free_bytes > 1, "the store's own limit does not shrink the disk");
    assert_ne!(disk_id(Path::new("/proc")), disk_id(Path::new("/tmp")));
    assert_eq!(disk_id(Path::new("/no/such/folder")), None);
}

#[test]
fn a_full_disk_or_quota_is_reported_as_no_space() {
    for errno in [nix::libc::ENOSPC, nix::libc::EDQUOT] {
        let error = StoreError::io("write to segment", Path::new("/x"), std::io::Error::from_raw_os_error(errno));
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    }
    let error = StoreError::io("write to segment", Path::new("/x"), std::io::Error::from_raw_os_error(nix::libc::EIO));
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

/// A ring that is not full has all its chunks in segments that are still being filled; deleting must free them, too.
#[test]
fn deletions_free_the_disk_before_a_segment_is_full() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=400, 1);
    fixture.store().put(&batch(&chunks, 4096), Durability::Memory).unwrap();
    let kept = numbered("b", 1..=10, 2);
    fixture.store().put(&batch(&kept, 4096), Durability::Memory).unwrap();
    assert!(!fixture.store().compact_step().unwrap(), "nothing is dead");
    fixture.store().delete(&[run("a", 1, 400, 1)]).unwrap();
    while fixture.store().compact_step().unwrap() {}
    let stats = fixture.store().stats();
    assert!(stats.dead_bytes == 0 && stats.live_bytes < 50_000, "{stats:?}");
    let on_disk: u64 = fixture.files().iter().map(|name| fixture.chunks().join(name).metadata().unwrap().len()).sum();
    assert!(on_disk < 60_000, "{on_disk} bytes in {:?}", fixture.files());
    assert_eq!(present(fixture.reopen(), &kept), [true; 10]);
}

/// Bytes of the segments' files.
fn on_disk(fixture: &Fixture) -> u64 {
    fixture.files().iter().map(|name| fixture.chunks().join(name).metadata().unwrap().len()).sum()
}

/// A node that a join had relieved of half its chunks stayed as full as before: no segment was more than half dead.
#[test]
fn half_dead_segments_are_rewritten_when_the_disk_is_half_full() {
    let options = StoreOptions { segment_bytes: 200_000, capacity_bytes: Some(2_600_000), ..plain_options() };
    let mut fixture = Fixture::new(options);
    let chunks = numbered("a", 1..=400, 1);
    for forty in chunks.chunks(40) {
        fixture.store().put(&batch(forty, 4096), Durability::Memory).unwrap();
    }
    let (dropped, kept): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|chunk| chunk.id.index % 5 < 2);
    fixture.store().forget(&dropped).unwrap();
    while fixture.store().compact_step().unwrap() {}
    let stats = fixture.store().stats();
    assert!(stats.dead_bytes * 4 < stats.live_bytes, "{stats:?}");
    assert!(on_disk(&fixture) < 1_300_000, "{} bytes", on_disk(&fixture));
    assert_eq!(present(fixture.reopen(), &kept), vec![true; kept.len()]);
}

/// Records die in compaction's own segment as well, which belongs to no segment writer of puts.
#[test]
fn records_that_die_after_they_were_moved_are_freed_too() {
    let fixture = Fixture::new(StoreOptions { compact_quiet: Duration::ZERO, ..plain_options() });
    fixture.store().put(&batch(&numbered("a", 1..=900, 1), 4096), Durability::Memory).unwrap();
    fixture.store().delete(&[run("a", 1, 300, 1)]).unwrap();
    while fixture.store().compact_step().unwrap() {}
    assert_eq!((fixture.store().stats().segments, fixture.store().stats().dead_bytes), (1, 0));
    fixture.store().delete(&[run("a", 301, 500, 1)]).unwrap();
    while fixture.store().compact_step().unwrap() {}
    let stats = fixture.store().stats();
    assert_eq!((stats.chunks, stats.dead_bytes), (100, 0), "{stats:?}");
    assert!(on_disk(&fixture) < 500_000, "{} bytes", on_disk(&fixture));
}

/// A step is a piece, so that the caller can keep to a rate; what happens between two steps is not lost.
#[test]
fn a_large_segment_moves_in_pieces_while_others_write_and_delete() {
    let mut fixture = Fixture::plain();
    fixture.store().put(&batch(&numbered("a", 1..=3000, 1), 4096), Durability::Memory).unwrap();
    fixture.store().delete(&[run("a", 1, 1600, 1)]).unwrap();
    let mut steps = 0;
    while let Some(moved) = fixture.store().compact().unwrap() {
        assert!(moved.bytes <= 2 << 20, "{moved:?}");
        steps += 1;
        fixture.store().put(&batch(&numbered("b", [steps], 2), 4096), Durability::Memory).unwrap();
        fixture.store().delete(&[run("a", 3001 - steps, 1, 1)]).unwrap();
    }
    assert!((3..=6).contains(&steps), "{steps} steps for 5.8 MB");
    assert_eq!(present(fixture.store(), &numbered("b", 1..=steps, 2)), vec![true; steps as usize]);
    let left = 3000 - 1600 - steps;
    assert_eq!(fixture.store().stats().chunks, u64::from(left + steps));
    assert_eq!(present(fixture.reopen(), &numbered("a", 1601..=1600 + left, 1)), vec![true; left as usize]);
}
