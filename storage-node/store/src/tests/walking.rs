//! Walks through the store: how many entries each page examines, and that no chunk is missed.

use super::*;

const CHUNKS: u32 = 6000;

/// Many sealed segments, and one that is being filled.
fn filled() -> Fixture {
    let fixture = Fixture::new(StoreOptions { segment_bytes: 50_000, ..plain_options() });
    for some in numbered("w", 1..=CHUNKS, 1).chunks(100) {
        fixture.store().put(&batch(some, 60), Durability::Memory).unwrap();
    }
    assert!(fixture.store().stats().segments > 10);
    fixture
}

/// Entries looked at while `walk` runs.
fn examined(store: &Store, walk: impl FnOnce()) -> u64 {
    let before = store.catalog.examined();
    walk();
    store.catalog.examined() - before
}

/// Every page used to look at the whole index: here 120 pages at 6,000 entries.
#[test]
fn a_walk_looks_at_each_chunk_about_twice() {
    let mut fixture = filled();
    for _ in 0..2 {
        let store = fixture.store();
        let looked = examined(store, || assert_eq!(list_all(store, whole(), 50).len(), CHUNKS as usize));
        assert!(looked <= u64::from(2 * CHUNKS + 120), "{looked}");
        let one = examined(store, || drop(store.list(whole(), 0, 50).unwrap()));
        assert!(one <= 700, "{one} for a page of 50: its segment, and the page");
        fixture.reopen();
    }
}

#[test]
fn a_step_of_the_scrub_looks_at_what_it_reads() {
    let fixture = filled();
    let store = fixture.store();
    let (mut token, mut chunks) = (Some(0), 0);
    let looked = examined(store, || {
        while let Some(from) = token {
            let step = store.scrub_step(from, 5000).unwrap();
            (token, chunks) = (step.next, chunks + step.chunks);
        }
    });
    assert_eq!(chunks, u64::from(CHUNKS));
    assert!(looked <= u64::from(2 * CHUNKS + 200), "{looked}");
}

#[test]
fn few_chunks_are_found_by_their_keys() {
    let fixture = filled();
    let store = fixture.store();
    let wanted = chunk("w", 77, 1);
    let only = RingArc::new(wanted.key().advance(u32::MAX), wanted.key());
    let looked = examined(store, || assert_eq!(list_all(store, only, 50), [wanted]));
    assert!(looked <= 30, "{looked}");
}

#[test]
fn any_arc_is_listed_whole_in_pages_of_any_size() {
    let fixture = filled();
    let all = numbered("w", 1..=CHUNKS, 1);
    for (after, upto) in [(0, 1 << 20), (1 << 30, 3 << 30), (3 << 30, 1 << 30), (5, 5)] {
        let arc = RingArc::new(RingId(after), RingId(upto));
        let expected: Vec<_> = all.iter().filter(|chunk| arc.contains(chunk.key())).cloned().collect();
        for limit in [7, 200, 10_000] {
            assert_eq!(
                sorted(list_all(fixture.store(), arc, limit)),
                sorted(expected.clone()),
                "{after} {upto} {limit}"
            );
        }
    }
}

/// A hint that is lost or damaged under a running store only costs time.
#[test]
fn a_segment_without_a_hint_is_walked_as_well() {
    let mut fixture = filled();
    fixture.reopen();
    let hints: Vec<String> = fixture.files().into_iter().filter(|name| name.ends_with("idx")).collect();
    std::fs::remove_file(fixture.chunks().join(&hints[1])).unwrap();
    std::fs::write(fixture.chunks().join(&hints[2]), b"no hint").unwrap();
    assert_eq!(list_all(fixture.store(), whole(), 500).len(), CHUNKS as usize);
    let kept = |index: &u32| index.is_multiple_of(4);
    let gone: Vec<_> = numbered("w", (1..=CHUNKS).filter(|index| !kept(index)), 1);
    fixture.store().forget(&gone).unwrap();
    while fixture.store().compact_step().unwrap() {}
    let expected = numbered("w", (1..=CHUNKS).filter(kept), 1);
    assert_eq!(sorted(list_all(fixture.store(), whole(), 500)), sorted(expected.clone()));
    assert_eq!(present(fixture.reopen(), &expected), vec![true; expected.len()]);
}

#[test]
fn an_invalid_token_ends_the_list() {
    let fixture = filled();
    for token in [u64::MAX, u64::MAX << 32, u64::from(u32::MAX), 1 << 33 | 17] {
        drop(fixture.store().list(whole(), token, 10).unwrap());
    }
    assert_eq!(fixture.store().list(whole(), u64::MAX, 10).unwrap().chunks, []);
}
