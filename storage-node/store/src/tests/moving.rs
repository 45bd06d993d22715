//! Compaction: what it keeps, what it frees, and every state in which a crash may leave it.

use super::*;

/// Ten chunks in a sealed segment, eight of them deleted, and a copy of the folder from just before compaction.
fn mostly_dead() -> (Fixture, Vec<ChunkRef>) {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=10, 1);
    fixture.store().put(&batch(&chunks, 1000), Durability::Disk).unwrap();
    fixture.reopen();
    fixture.store().delete(&[run("a", 2, 8, 1)]).unwrap();
    (fixture, chunks)
}

fn expected() -> Vec<bool> {
    (1..=10).map(|index| index == 1 || index == 10).collect()
}

/// The bytes of every file in `chunks`.
fn snapshot(fixture: &Fixture) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(fixture.chunks().join(name)).unwrap());
    fixture.files().into_iter().map(read).collect()
}

fn restore(fixture: &mut Fixture, files: &[(String, Vec<u8>)]) {
    fixture.close();
    for name in fixture.files() {
        std::fs::remove_file(fixture.chunks().join(name)).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(fixture.chunks().join(name), bytes).unwrap();
    }
    fixture.reopen();
}

#[test]
fn a_mostly_dead_segment_is_rewritten() {
    let (mut fixture, chunks) = mostly_dead();
    let before = fixture.store().digest(whole());
    assert!(fixture.store().compact_step().unwrap());
    assert!(!fixture.store().compact_step().unwrap());
    assert_eq!(fixture.files(), ["00000002.seg"]);
    for _ in 0..2 {
        let store = fixture.store();
        assert_eq!(present(store, &chunks), expected());
        assert_eq!(store.digest(whole()), before);
        assert_eq!((store.stats().dead_bytes, store.stats().chunks), (0, 2));
        fixture.reopen();
    }
}

#[test]
fn every_state_that_a_crash_may_leave() {
    let (mut fixture, chunks) = mostly_dead();
    let before = snapshot(&fixture);
    fixture.store().compact_step().unwrap();
    let after = snapshot(&fixture);
    let copy = after[0].1.clone();
    let with = |len: usize| {
        let mut files = before.clone();
        files.push(("00000002.seg".into(), copy[..len].to_vec()));
        files
    };
    let mut states: Vec<_> = (0..=copy.len()).step_by(97).chain([copy.len()]).map(with).collect();
    // The copies are complete; one, then both originals are listed as dead.
    let dead = before.iter().position(|(name, _)| name.ends_with("dead")).unwrap();
    let marks = |offsets: &[u32]| {
        let mut files = with(copy.len());
        std::fs::write(fixture.dir.path().join("marks"), &before[dead].1).unwrap();
        let (mut list, _) = crate::segment::dead_list::DeadList::load(fixture.dir.path().join("marks"), 1).unwrap();
        list.add(offsets).unwrap();
        files[dead].1 = std::fs::read(fixture.dir.path().join("marks")).unwrap();
        files
    };
    let record_bytes = copy.len() as u32 / 2;
    states.push(marks(&[0]));
    states.push(marks(&[0, 9 * record_bytes]));
    // The original's files go one by one.
    let without = |endings: &[&str]| {
        let mut files = marks(&[0, 9 * record_bytes]);
        files.retain(|(name, _)| !endings.iter().any(|ending| *name == format!("00000001.{ending}")));
        files
    };
    states.extend([without(&["seg"]), without(&["seg", "idx"]), without(&["seg", "idx", "dead"])]);
    for (number, state) in states.iter().enumerate() {
        restore(&mut fixture, state);
        for round in 0..3 {
            let store = fixture.store();
            assert_eq!(present(store, &chunks), expected(), "state {number}, round {round}");
            assert_eq!(store.stats().chunks, 2, "state {number}, round {round}");
            assert_eq!(list_all(store, whole(), 1).len(), 2, "state {number}, round {round}");
            while round == 1 && fixture.store().compact_step().unwrap() {}
            fixture.reopen();
        }
        fixture.store().delete(&[run("a", 1, 10, 1)]).unwrap();
        assert_eq!(present(fixture.reopen(), &chunks), [false; 10], "state {number}: no copy stays behind");
    }
}

#[test]
fn damaged_records_are_not_copied() {
    let (fixture, chunks) = mostly_dead();
    let segment = fixture.chunks().join("00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[500] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert!(fixture.store().compact_step().unwrap());
    assert_eq!(present(fixture.store(), &chunks), (1..=10).map(|index| index == 10).collect::<Vec<_>>());
    assert_eq!(fixture.store().damaged(), [(chunks[0].key(), chunks[0].id)]);
    assert_eq!(fixture.files(), ["00000002.seg"]);
}

/// One sync that the disk refused made all later ones fail until a restart.
#[test]
fn syncs_succeed_again_when_the_live_records_have_left_the_failed_segment() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=10, 1);
    let store = fixture.store();
    store.put(&batch(&chunks, 1000), Durability::Memory).unwrap();
    store.table.segments.get(1).unwrap().fail();
    for _ in 0..2 {
        assert!(store.sync().is_err() && store.put(&batch(&chunks, 1000), Durability::Disk).is_err());
    }
    assert!(store.compact_step().unwrap(), "although nothing in it is dead");
    store.sync().unwrap();
    assert_eq!(store.put(&batch(&chunks, 1000), Durability::Disk).unwrap().already, 10);
    assert_eq!(fixture.files(), ["00000002.seg"]);
    assert_eq!(present(fixture.reopen(), &chunks), [true; 10]);
}

#[test]
fn small_segments_are_merged() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=12, 1);
    for chunk in &chunks {
        fixture.store().put(&batch(std::slice::from_ref(chunk), 100), Durability::Memory).unwrap();
        fixture.reopen();
    }
    assert_eq!(fixture.store().stats().segments, 12);
    while fixture.store().compact_step().unwrap() {}
    assert!(fixture.store().stats().segments <= 8);
    assert_eq!(present(fixture.reopen(), &chunks), [true; 12]);
}

/// A list that has passed a record's new place before the record came there would miss it.
#[test]
fn a_list_misses_nothing_that_moves_meanwhile() {
    let mut fixture = Fixture::new(StoreOptions { segment_bytes: 3000, ..plain_options() });
    let chunks = numbered("a", 1..=60, 1);
    for five in chunks.chunks(5) {
        fixture.store().put(&batch(five, 500), Durability::Memory).unwrap();
    }
    fixture.reopen();
    let kept: Vec<_> = chunks.iter().filter(|chunk| chunk.id.index % 5 == 1).cloned().collect();
    for gone in chunks.iter().filter(|chunk| chunk.id.index % 5 != 1) {
        fixture.store().forget(std::slice::from_ref(gone)).unwrap();
    }
    let (mut seen, mut token) = (Vec::new(), Some(0));
    while let Some(from) = token {
        let page = fixture.store().list(whole(), from, 2).unwrap();
        seen.extend(page.chunks.into_iter().map(|listed| listed.chunk));
        token = page.next;
        fixture.store().compact_step().unwrap();
    }
    let mut seen = sorted(seen);
    seen.dedup();
    assert_eq!(seen, sorted(kept));
}

#[test]
fn reads_and_deletions_continue_while_segments_move() {
    let mut fixture = Fixture::new(StoreOptions { segment_bytes: 40_000, ..plain_options() });
    let kept = numbered("kept", 1..=100, 1);
    for (number, chunk) in kept.iter().enumerate() {
        fixture.store().put(&batch(std::slice::from_ref(chunk), 500), Durability::Memory).unwrap();
        fixture.store().put(&batch(&numbered("gone", 1..=5, 10 + number as u64), 500), Durability::Memory).unwrap();
    }
    let store = fixture.store();
    std::thread::scope(|scope| {
        let deleter = scope.spawn(|| {
            for version in 10..110 {
                assert_eq!(store.delete(&[run("gone", 1, 5, version)]).unwrap(), 5);
            }
        });
        scope.spawn(move || {
            while !deleter.is_finished() {
                store.compact_step().unwrap();
            }
            while store.compact_step().unwrap() {}
        });
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert!(present(store, &kept).iter().all(|here| *here));
                    let listed = list_all(store, whole(), 50);
                    assert!(kept.iter().all(|chunk| listed.contains(chunk)));
                }
            });
        }
    });
    for _ in 0..2 {
        assert_eq!(fixture.store().stats().chunks, 100);
        assert_eq!(fixture.store().stats().damaged, 0);
        assert!(present(fixture.store(), &kept).iter().all(|here| *here));
        fixture.reopen();
    }
}
