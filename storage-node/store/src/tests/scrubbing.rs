//! What a slow scrub rests on: damage anywhere is found, age is told by segments, and what was deleted stays so.

use std::time::{Duration, SystemTime};

use super::*;
use crate::{AgeSpan, HeldChunk, HeldRun, VersionShare};

/// Reads all in small steps; how many were found damaged.
fn scrub(store: &Store) -> u64 {
    let (mut token, mut damaged) = (0, 0);
    loop {
        let step = store.scrub_step(token, 64).unwrap();
        damaged += step.damaged;
        match step.next {
            Some(next) => token = next,
            None => return damaged,
        }
    }
}

/// All chunks of versions that are wholly older.
fn old(store: &Store, before: SystemTime) -> Vec<HeldChunk> {
    stored_in(store, AgeSpan::until(before))
}

fn stored_in(store: &Store, span: AgeSpan) -> Vec<HeldChunk> {
    let shares = store.version_shares(span).unwrap();
    let mut all: Vec<_> = shares.into_iter().flat_map(|part| store.old_chunks(part, span).unwrap()).collect();
    all.sort_by_key(|chunk| chunk.id);
    all
}

/// Each as a run of its own.
fn named(store: &Store, chunks: &[HeldChunk]) -> Vec<ChunkRef> {
    let runs: Vec<_> = chunks.iter().map(|chunk| HeldRun { first: *chunk, last: chunk.id.index }).collect();
    let named = store.named(&runs).unwrap();
    assert!(named.iter().all(|run| run.count == 1));
    let chunk = |run: ChunkRun| ChunkRef { file: run.file, id: ChunkId { version: run.version, index: run.first } };
    let mut chunks: Vec<_> = named.into_iter().map(chunk).collect();
    chunks.sort_by_key(|chunk| chunk.id);
    chunks
}

fn later(secs: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(secs)
}

#[test]
fn damage_in_any_byte_under_a_running_store_is_found_or_harmless() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("n", 1..=3, 9);
    fixture.store().put(&batch(&chunks, 20), Durability::Disk).unwrap();
    fixture.store().delete(&[run("n", 2, 1, 9)]).unwrap();
    fixture.reopen();
    let path = fixture.chunks().join("00000001.seg");
    let sound = std::fs::read(&path).unwrap();
    let record_bytes = sound.len() / 3;
    for at in 0..sound.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            let hit = at / record_bytes;
            let store = fixture.store();
            assert_eq!(scrub(store), u64::from(hit != 1), "byte {at}, {flip:#x}");
            let expected: Vec<usize> = [0, 2].into_iter().filter(|left| *left != hit).collect();
            let here = present(store, &chunks);
            assert_eq!((0..3).filter(|left| here[*left]).collect::<Vec<_>>(), expected, "byte {at}, {flip:#x}");
            let records = store.damaged_records();
            if hit != 1 {
                assert_eq!((records.len(), records[0].offset as usize), (1, hit * record_bytes));
            }
            // Unchanged: what the store found out is in its list of the dead and in memory.
            fixture.close();
            std::fs::write(&path, &sound).unwrap();
            std::fs::remove_file(fixture.chunks().join("00000001.dead")).unwrap();
            fixture.reopen();
            assert_eq!(fixture.store().delete(&[run("n", 2, 1, 9)]).unwrap(), 1);
        }
    }
}

/// Repair used to bring back, from a neighbour that was a moment slower, what had just been deleted.
#[test]
fn recently_deleted_chunks_are_not_put_again() {
    let fixture = Fixture::plain();
    let chunks = numbered("n", 1..=4, 9);
    fixture.store().put(&batch(&chunks, 9), Durability::Memory).unwrap();
    fixture.store().delete(&[run("n", 2, 2, 9)]).unwrap();
    let outcome = fixture.store().put(&batch(&chunks, 9), Durability::Memory).unwrap();
    assert_eq!((outcome.stored, outcome.already), (0, 4));
    assert_eq!(present(fixture.store(), &chunks), [true, false, false, true]);
    fixture.store().forget(&chunks[..1]).unwrap();
    assert_eq!(
        fixture.store().put(&batch(&chunks, 9), Durability::Memory).unwrap().stored,
        1,
        "a copy dropped here may come again"
    );
    let other = numbered("n", 2..=3, 10);
    assert_eq!(
        fixture.store().put(&batch(&other, 9), Durability::Memory).unwrap().stored,
        2,
        "another version is another chunk"
    );
}

#[test]
fn the_age_of_a_chunk_is_that_of_its_segment_and_survives_a_restart() {
    let mut fixture = Fixture::plain();
    fixture.store().put(&batch(&numbered("a", 3..=5, 1), 9), Durability::Disk).unwrap();
    fixture.store().put(&batch(&numbered("b", [7], 2), 9), Durability::Disk).unwrap();
    fixture.reopen();
    fixture.store().put(&batch(&numbered("b", [9], 2), 9), Durability::Disk).unwrap();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let first = std::fs::File::options().write(true).open(fixture.chunks().join("00000001.seg")).unwrap();
    first.set_modified(hour_ago - Duration::from_secs(10)).unwrap();
    for _ in 0..2 {
        let store = fixture.store();
        assert_eq!(named(store, &old(store, hour_ago)), numbered("a", 3..=5, 1), "2 is in part young");
        let all = [numbered("a", 3..=5, 1), numbered("b", [7, 9], 2)].concat();
        assert_eq!(named(store, &old(store, later(10))), all);
        assert_eq!(old(store, hour_ago - Duration::from_secs(60)), []);
        fixture.reopen();
    }
}

#[test]
fn a_run_is_named_by_its_first_chunk_as_long_as_that_is_here() {
    let fixture = Fixture::plain();
    let store = fixture.store();
    store.put(&batch(&numbered("a", 3..=9, 1), 9), Durability::Disk).unwrap();
    let chunks = old(store, later(10));
    let runs = [HeldRun { first: chunks[0], last: 5 }, HeldRun { first: chunks[4], last: 9 }];
    let mut named = store.named(&runs).unwrap();
    named.sort_by_key(|run| run.first);
    assert_eq!(named, [run("a", 3, 3, 1), run("a", 7, 3, 1)]);
    store.delete(&named[..1]).unwrap();
    assert_eq!(store.named(&runs).unwrap(), named[1..]);
}

/// Files are written and deleted, a node is away, segments are rewritten. Chunks of a file are never among the orphans,
/// and after the orphans are deleted no other chunks are left.
#[test]
fn in_random_histories_exactly_the_unreferenced_chunks_are_orphans() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut fixture = Fixture::new(StoreOptions { segment_bytes: 4000, ..plain_options() });
        let mut current = std::collections::BTreeSet::new();
        for version in 1..60u64 {
            let first = rng.random_range(1..20);
            let chunks = numbered("f", first..first + rng.random_range(1..6), version);
            fixture.store().put(&batch(&chunks, 30), Durability::Memory).unwrap();
            // The others were never committed, or are deleted while this node is away.
            current.extend(chunks.iter().map(|chunk| chunk.id).filter(|_| rng.random_bool(0.5)));
            match rng.random_range(0..10) {
                0 => drop(fixture.reopen()),
                1 => drop(fixture.store().compact_step().unwrap()),
                2 => drop(current.pop_first()),
                _ => {}
            }
        }
        let store = fixture.store();
        let before = later(10);
        let kept = list_all(store, whole(), 100).into_iter().filter(|chunk| current.contains(&chunk.id));
        let kept = sorted(kept.collect());
        let orphans = old(store, before).into_iter().filter(|chunk| !current.contains(&chunk.id));
        let runs: Vec<_> = orphans.map(|chunk| HeldRun { first: chunk, last: chunk.id.index }).collect();
        store.delete(&store.named(&runs).unwrap()).unwrap();
        assert_eq!(sorted(list_all(store, whole(), 100)), kept, "seed {seed}");
        assert_eq!(scrub(store), 0);
    }
}

/// Each look used to return everything that was older than an hour, for ever.
#[test]
fn chunks_that_were_old_before_are_left_out_unless_their_version_has_grown() {
    let mut fixture = Fixture::plain();
    fixture.store().put(&batch(&numbered("a", 1..=3, 7), 20), Durability::Disk).unwrap();
    fixture.store().put(&batch(&numbered("b", 1..=3, 8), 20), Durability::Disk).unwrap();
    fixture.reopen();
    // The second segment has the rest of version 8.
    fixture.store().put(&batch(&numbered("b", 4..=5, 8), 20), Durability::Disk).unwrap();
    fixture.store().put(&batch(&numbered("c", 1..=2, 9), 20), Durability::Disk).unwrap();
    fixture.reopen();
    let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    for (segment, changed) in [("00000001.seg", 100), ("00000002.seg", 200)] {
        let file = std::fs::OpenOptions::new().write(true).open(fixture.chunks().join(segment)).unwrap();
        file.set_modified(at(changed)).unwrap();
    }
    let store = fixture.store();
    let versions = |chunks: Vec<HeldChunk>| chunks.iter().map(|chunk| chunk.id.version.0).collect::<Vec<_>>();
    let stored =
        |since: Option<u64>, before| versions(stored_in(store, AgeSpan { since: since.map(at), before: at(before) }));
    assert_eq!(stored(None, 150), [7, 7, 7], "version 8 is young");
    assert_eq!(stored(Some(150), 250), [8, 8, 8, 8, 8, 9, 9]);
    assert!(stored(Some(201), 300).is_empty());
    assert_eq!(stored(None, 300).len(), 10);
    let share = VersionShare::new(0, 3);
    assert_eq!(versions(store.old_chunks_of(&[Version(7)], share, at(150)).unwrap()), [7, 7, 7]);
    assert_eq!(versions(store.old_chunks_of(&[], share, at(300)).unwrap()), [9, 9]);
}
