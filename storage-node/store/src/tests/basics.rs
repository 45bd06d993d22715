//! Put, get, has, delete, list, digest, stats; also after a reopen and from several threads.

use super::{
    super::{PutOutcome, Secured},
    *,
};

#[test]
fn stored_chunks_are_here_even_after_a_reopen() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("dir/a.txt", 1..=100, 7);
    let outcome = fixture.store().put(&batch(&chunks, 4096), Durability::Disk).unwrap();
    assert_eq!(outcome, PutOutcome { stored: 100, already: 0 });
    for _ in 0..3 {
        let store = fixture.store();
        assert!(present(store, &chunks).iter().all(|here| *here));
        assert!(store.has(&chunks).iter().all(|here| *here));
        assert_eq!(store.stats().chunks, 100);
        fixture.reopen();
    }
}

#[test]
fn neighbours_come_as_one_piece() {
    let fixture = Fixture::plain();
    let chunks = numbered("a", 1..=64, 1);
    let batch = batch(&chunks, 4096);
    fixture.store().put(&batch, Durability::Memory).unwrap();
    let mut backwards = chunks.clone();
    backwards.reverse();
    assert_eq!(fixture.store().get(&backwards).unwrap(), vec![batch.bytes.clone()]);
    let every_other: Vec<_> = chunks.iter().step_by(2).cloned().collect();
    assert_eq!(fixture.store().get(&every_other).unwrap().len(), 32, "what lies between is left out");
}

#[test]
fn a_put_skips_what_is_here() {
    let fixture = Fixture::plain();
    let store = fixture.store();
    store.put(&batch(&numbered("a", 1..=10, 1), 100), Durability::Memory).unwrap();
    let outcome = store.put(&batch(&numbered("a", 6..=15, 1), 100), Durability::Disk).unwrap();
    assert_eq!(outcome, PutOutcome { stored: 5, already: 5 });
    let twice: Vec<_> = numbered("b", 1..=4, 2).into_iter().chain(numbered("b", 1..=4, 2)).collect();
    assert_eq!(store.put(&batch(&twice, 100), Durability::Disk).unwrap(), PutOutcome { stored: 4, already: 4 });
    assert!(present(store, &twice).iter().all(|here| *here));
    assert_eq!(store.stats().chunks, 19);
}

/// A put of other bytes under the id of a stored chunk was acknowledged, and not stored.
#[test]
fn other_bytes_under_the_id_of_a_stored_chunk_are_a_conflict() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=10, 1);
    let sent = batch(&chunks, 100);
    fixture.store().put(&sent, Durability::Disk).unwrap();
    for _ in 0..2 {
        let store = fixture.store();
        assert_eq!(store.put(&sent, Durability::Disk).unwrap(), PutOutcome { stored: 0, already: 10 });
        for len in [99, 101] {
            let refused = store.put(&batch(&numbered("a", 10..=12, 1), len), Durability::Memory);
            assert!(matches!(refused, Err(StoreError::Conflict { version: 1, index: 10 })), "{refused:?}");
        }
        assert_eq!(store.has(&numbered("a", 10..=12, 1)), [true, false, false], "a refused batch was stored in part");
        let (mut same_len, chunk) = (BytesMut::new(), &chunks[3]);
        encode_record(&mut same_len, &chunk.file, chunk.id, chunk.key(), &[7; 100]);
        let refused = store.put(&VerifiedBatch::verify(same_len.freeze()).unwrap(), Durability::Memory);
        assert!(matches!(refused, Err(StoreError::Conflict { version: 1, index: 4 })), "{refused:?}");
        assert!(present(store, &chunks).iter().all(|here| *here));
        fixture.reopen();
    }
    let mut both = BytesMut::new();
    let twice = chunk("b", 1, 2);
    for data in [&[1; 10], &[2; 10]] {
        encode_record(&mut both, &twice.file, twice.id, twice.key(), data);
    }
    let refused = fixture.store().put(&VerifiedBatch::verify(both.freeze()).unwrap(), Durability::Memory);
    assert!(matches!(refused, Err(StoreError::Conflict { version: 2, index: 1 })), "{refused:?}");
}

/// A damaged record differs from what is sent, too, and is left to repair.
#[test]
fn a_damaged_record_is_no_conflict() {
    let mut fixture = Fixture::plain();
    let sent = batch(&numbered("a", 1..=2, 1), 100);
    fixture.store().put(&sent, Durability::Disk).unwrap();
    let path = fixture.chunks().join(fixture.files().into_iter().find(|name| name.ends_with(".seg")).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == b"CFc1").unwrap();
    bytes[at + 4] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let outcome = fixture.store().put(&sent, Durability::Memory).unwrap();
    assert_eq!(outcome.already, 2);
    fixture.close();
}

#[test]
fn another_name_or_version_is_another_chunk() {
    let fixture = Fixture::plain();
    let store = fixture.store();
    store.put(&batch(&[chunk("a", 1, 5)], 10), Durability::Memory).unwrap();
    let others = [chunk("b", 1, 5), chunk("a", 2, 5), chunk("a", 1, 6)];
    assert_eq!(store.has(&others), [false; 3]);
    assert_eq!(present(store, &others), [false; 3]);
    assert_eq!(store.forget(&others).unwrap(), 0);
    assert_eq!(present(store, &[chunk("a", 1, 5)]), [true]);
}

#[test]
fn the_smallest_and_the_largest_records() {
    let mut fixture = Fixture::plain();
    let long = "n".repeat(chordfs_types::chunk::MAX_FILE_NAME_BYTES);
    let (empty, large) = (chunk("e", 1, 1), chunk(&long, u32::MAX, u64::MAX));
    fixture.store().put(&batch(std::slice::from_ref(&empty), 0), Durability::Memory).unwrap();
    fixture.store().put(&batch(std::slice::from_ref(&large), 1 << 20), Durability::Memory).unwrap();
    for _ in 0..2 {
        assert_eq!(present(fixture.store(), &[empty.clone(), large.clone()]), [true; 2]);
        assert_eq!(list_all(fixture.store(), whole(), 1), [empty.clone(), large.clone()]);
        fixture.reopen();
    }
}

#[test]
fn deleted_chunks_stay_deleted_after_a_reopen() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=10, 1);
    fixture.store().put(&batch(&chunks, 100), Durability::Memory).unwrap();
    assert_eq!(fixture.store().delete(&[run("a", 3, 4, 1), run("a", 5, 1, 1), run("b", 1, 9, 1)]).unwrap(), 4);
    assert_eq!(fixture.store().forget(&chunks[9..]).unwrap(), 1);
    let left: Vec<bool> = (1..=10).map(|index| !(3..=6).contains(&index) && index != 10).collect();
    for _ in 0..2 {
        assert_eq!(present(fixture.store(), &chunks), left);
        assert_eq!(fixture.store().has(&chunks), left);
        assert_eq!(fixture.store().stats().chunks, 5);
        fixture.reopen();
    }
    assert_eq!(fixture.store().put(&batch(&chunks, 100), Durability::Memory).unwrap().stored, 5);
    assert!(present(fixture.reopen(), &chunks).iter().all(|here| *here), "what was deleted can be put again");
}

#[test]
fn a_run_that_claims_everything_ends_soon() {
    let fixture = Fixture::plain();
    let store = fixture.store();
    store.put(&batch(&numbered("a", [1, 77, u32::MAX], 1), 10), Durability::Memory).unwrap();
    store.put(&batch(&[chunk("a", 1, 2), chunk("b", 1, 1)], 10), Durability::Memory).unwrap();
    assert_eq!(store.delete(&[run("a", 2, u32::MAX, 1)]).unwrap(), 2);
    assert_eq!(store.delete(&[run("a", 1, 0, 1), run("a", 0, 0, 1)]).unwrap(), 0);
    assert_eq!(store.delete(&[run("a", 0, u32::MAX, 1)]).unwrap(), 1);
    assert_eq!(store.stats().chunks, 2);
}

#[test]
fn a_full_segment_is_sealed_with_a_hint_and_a_wholly_dead_one_is_removed() {
    let mut fixture = Fixture::new(StoreOptions { segment_bytes: 10_000, ..plain_options() });
    for index in 1..=5 {
        fixture.store().put(&batch(&[chunk("a", index, 1)], 6000), Durability::Memory).unwrap();
    }
    let hints: Vec<_> = fixture.files().into_iter().filter(|name| name.ends_with("idx")).collect();
    assert_eq!(hints, ["00000001.idx", "00000002.idx", "00000003.idx", "00000004.idx"]);
    fixture.store().delete(&[run("a", 2, 2, 1)]).unwrap();
    let gone = |name: &String| name.starts_with("00000002") || name.starts_with("00000003");
    assert!(!fixture.files().iter().any(gone), "{:?}", fixture.files());
    assert_eq!(present(fixture.reopen(), &numbered("a", 1..=5, 1)), [true, false, false, true, true]);
    fixture.store().delete(&[run("a", 1, 5, 1)]).unwrap();
    assert_eq!(fixture.files(), [""; 0]);
    assert_eq!(fixture.store().stats().dead_bytes, 0);
}

#[test]
fn a_list_has_every_chunk_of_its_arc_once() {
    let fixture = Fixture::new(StoreOptions { segment_bytes: 20_000, ..plain_options() });
    let store = fixture.store();
    let all: Vec<_> = (1..=5).flat_map(|version| numbered("some/file", 1..=40, version)).collect();
    for some in all.chunks(30) {
        store.put(&batch(some, 200), Durability::Memory).unwrap();
    }
    for limit in [1, 7, 1000] {
        assert_eq!(sorted(list_all(store, whole(), limit)), sorted(all.clone()));
    }
    let arc = RingArc::new(RingId(3 << 30), RingId(1 << 30));
    let inside: Vec<_> = all.iter().filter(|chunk| arc.contains(chunk.key())).cloned().collect();
    assert!(!inside.is_empty() && inside.len() < all.len());
    assert_eq!(sorted(list_all(store, arc, 7)), sorted(inside.clone()));
    assert_eq!(store.digest(arc).0, inside.len() as u64);
    let page = store.list(whole(), 0, 3).unwrap();
    assert!(page.chunks.iter().all(|listed| listed.data_bytes == 200));
}

#[test]
fn digests_are_equal_when_the_sets_are() {
    let (mut one, other) = (Fixture::plain(), Fixture::plain());
    let mut chunks = numbered("a", 1..=50, 1);
    one.store().put(&batch(&chunks, 50), Durability::Memory).unwrap();
    one.store().put(&batch(&[chunk("gone", 1, 2)], 50), Durability::Memory).unwrap();
    one.store().delete(&[run("gone", 1, 1, 2)]).unwrap();
    chunks.reverse();
    other.store().put(&batch(&chunks, 50), Durability::Memory).unwrap();
    assert_eq!(one.store().digest(whole()), other.store().digest(whole()));
    assert_eq!(one.reopen().digest(whole()), other.store().digest(whole()));
    other.store().forget(&chunks[..1]).unwrap();
    other.store().put(&batch(&[chunk("a", 51, 1)], 50), Durability::Memory).unwrap();
    assert_ne!(one.store().digest(whole()), other.store().digest(whole()));
}

#[test]
fn many_segments_need_few_open_files() {
    let mut fixture = Fixture::new(StoreOptions { segment_bytes: 1000, max_open_files: 2, ..plain_options() });
    let chunks = numbered("a", 1..=20, 1);
    for one in &chunks {
        fixture.store().put(&batch(std::slice::from_ref(one), 900), Durability::Memory).unwrap();
    }
    for _ in 0..2 {
        for _ in 0..3 {
            assert!(present(fixture.store(), &chunks).iter().all(|here| *here));
        }
        assert!(open_files_below(&fixture.chunks()) <= 3, "two for reading, one for writing");
        fixture.reopen();
    }
}

fn open_files_below(folder: &Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let paths = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
    paths.filter(|path| path.starts_with(folder)).count()
}

#[test]
fn threads_put_get_and_delete_side_by_side() {
    let mut fixture = Fixture::new(StoreOptions { segment_bytes: 100_000, segment_writers: 2, ..plain_options() });
    let store = fixture.store();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                for round in 0..40u64 {
                    let own = numbered("own", 1..=8, thread * 1000 + round);
                    let shared = numbered("shared", 1..=8, 500_000 + round);
                    store.put(&batch(&own, 500), (round % 4 == 0).into()).unwrap();
                    store.put(&batch(&shared, 500), (round % 5 == 0).into()).unwrap();
                    assert!(present(store, &own).iter().all(|here| *here));
                    assert!(present(store, &shared).iter().all(|here| *here));
                    if round % 2 == 0 {
                        assert_eq!(store.delete(&[run("own", 1, 8, thread * 1000 + round)]).unwrap(), 8);
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                store.compact_step().unwrap();
                store.sync().unwrap();
            }
        });
    });
    for _ in 0..2 {
        let store = fixture.store();
        assert_eq!(store.stats().chunks, 4 * 20 * 8 + 40 * 8);
        assert_eq!(list_all(store, whole(), 100).len(), 4 * 20 * 8 + 40 * 8);
        assert_eq!(store.stats().damaged, 0);
        fixture.reopen();
    }
}

#[test]
fn secure_reports_chunks_on_the_disk_and_deleted_ones() {
    let fixture = Fixture::plain();
    let store = fixture.store();
    let (kept, gone, never) = (numbered("kept", 1..=2, 1), numbered("gone", 1..=1, 2), numbered("never", 1..=1, 3));
    store.put(&batch(&kept, 500), Durability::Memory).unwrap();
    store.put(&batch(&gone, 500), Durability::Memory).unwrap();
    store.delete(&[run("gone", 1, 1, 2)]).unwrap();
    let asked = [&kept[..1], &gone, &never, &kept[1..]].concat();
    let expected = [Secured::OnDisk, Secured::Deleted, Secured::Absent, Secured::OnDisk];
    assert_eq!(store.secure(&asked).unwrap(), expected);
}
