//! The cache of records, from the store's public calls.

use chordfs_types::{chunk_api::Durability, ring_config::CachePolicy};

use super::*;
use crate::CacheStats;

const CAPACITY: u64 = 8 << 20;

/// A store with a cache, and 20 chunks of which each has been read once.
fn warm() -> (Fixture, Vec<ChunkRef>) {
    let fixture = Fixture::plain();
    fixture.store().configure_cache(CAPACITY, CachePolicy::Lru);
    let chunks = numbered("f", 1..=20, 7);
    fixture.store().put(&batch(&chunks, 4096), Durability::Memory).unwrap();
    fixture.store().read(&chunks).unwrap();
    (fixture, chunks)
}

/// The chunks that the cache serves.
fn cached(store: &Store, wanted: &[ChunkRef]) -> Vec<ChunkId> {
    let mut missing = wanted.to_vec();
    let mut served = Vec::new();
    for mut piece in store.take_cached(&mut missing) {
        let record = take_record(&mut piece).unwrap();
        assert!(piece.is_empty(), "one record in a buffer of its own");
        served.push(record.id);
    }
    assert_eq!(served.len() + missing.len(), wanted.len());
    served.sort();
    served
}

fn counts(store: &Store) -> (u64, u64, u64) {
    let CacheStats { hits, misses, items, .. } = store.cache_stats();
    (hits, misses, items)
}

#[test]
fn what_was_read_is_served_from_memory_and_counted() {
    let (fixture, chunks) = warm();
    let store = fixture.store();
    assert_eq!(counts(store), (0, 20, 20));
    assert_eq!(cached(store, &chunks).len(), 20);
    assert_eq!(cached(store, &[chunk("f", 21, 7), chunk("f", 1, 8)]), [], "they are not stored");
    assert_eq!(counts(store), (20, 20, 20));
    assert!(store.cache_stats().bytes > 20 * 4096 && store.cache_stats().bytes <= CAPACITY);
    store.clear_cache();
    assert_eq!((cached(store, &chunks), counts(store).2), (vec![], 0));
}

#[test]
fn the_cache_needs_no_disk() {
    let (fixture, chunks) = warm();
    let segment = fixture.files().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    std::fs::OpenOptions::new().write(true).open(fixture.chunks().join(segment)).unwrap().set_len(0).unwrap();
    assert_eq!(cached(fixture.store(), &chunks).len(), 20);
}

#[test]
fn copies_for_other_nodes_and_checks_read_the_disk_and_leave_the_cache() {
    let (fixture, chunks) = warm();
    let store = fixture.store();
    store.clear_cache();
    store.get(&chunks).unwrap();
    store.verify(&chunks).unwrap();
    assert_eq!(counts(store), (0, 20, 0));
}

#[test]
fn what_was_deleted_or_dropped_is_never_served() {
    let (fixture, chunks) = warm();
    let store = fixture.store();
    store.delete(&[run("f", 1, 5, 7)]).unwrap();
    store.forget(&chunks[5..10]).unwrap();
    let left: Vec<ChunkId> = chunks[10..].iter().map(|chunk| chunk.id).collect();
    assert_eq!(cached(store, &chunks), left);
}

#[test]
fn a_damaged_record_is_no_longer_served_once_it_is_found() {
    let (fixture, chunks) = warm();
    let store = fixture.store();
    let segment = fixture.files().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let path = fixture.chunks().join(segment);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(store.get(&chunks[..1]).unwrap().len(), 0);
    assert_eq!(cached(store, &chunks[..1]), []);
}

#[test]
fn a_chunk_that_compaction_has_moved_is_read_anew() {
    let options = StoreOptions { segment_bytes: 64 << 10, compact_quiet: Default::default(), ..plain_options() };
    let fixture = Fixture::new(options);
    let store = fixture.store();
    store.configure_cache(CAPACITY, CachePolicy::Random);
    let chunks = numbered("f", 1..=60, 7);
    for chunk in &chunks {
        store.put(&batch(std::slice::from_ref(chunk), 4096), Durability::Memory).unwrap();
    }
    store.read(&chunks).unwrap();
    let deleted = (1..=60).filter(|index| index % 4 != 0);
    store.delete(&deleted.map(|index| run("f", index, 1, 7)).collect::<Vec<_>>()).unwrap();
    while store.compact_step().unwrap() {}
    let kept: Vec<ChunkRef> = chunks.into_iter().filter(|chunk| chunk.id.index % 4 == 0).collect();
    let before = cached(store, &kept).len();
    assert!(before < kept.len(), "compaction has moved some of the {} chunks", kept.len());
    assert_eq!(fetch(store, &kept).len(), kept.len());
    store.read(&kept).unwrap();
    assert_eq!(cached(store, &kept).len(), kept.len());
}

#[test]
fn another_file_under_the_same_version_is_not_served() {
    let (fixture, _) = warm();
    let impostor = ChunkRef { file: file("g"), ..chunk("f", 1, 7) };
    assert_eq!(cached(fixture.store(), &[impostor]), []);
}

/// `status` told of megabytes in a cache without a chunk.
#[test]
fn a_cache_without_records_has_no_bytes() {
    let (fixture, chunks) = warm();
    let store = fixture.store();
    assert!(store.cache_stats().bytes > 0);
    store.clear_cache();
    assert_eq!((store.cache_stats().items, store.cache_stats().bytes), (0, 0));
    store.read(&chunks).unwrap();
    let CacheStats { items, bytes, .. } = store.cache_stats();
    assert!(items == 20 && (20 * 4096..20 * 4800).contains(&bytes), "{items} items, {bytes} bytes");
}

#[test]
fn a_cache_that_is_off_holds_and_counts_nothing() {
    let (fixture, chunks) = warm();
    let store = fixture.store();
    let before = counts(store);
    assert_eq!((store.cache_stats().inserts, store.cache_stats().evictions), (20, 0));
    store.configure_cache(0, CachePolicy::Lru);
    store.read(&chunks).unwrap();
    assert_eq!(cached(store, &chunks), []);
    assert_eq!((counts(store).0, counts(store).1, counts(store).2), (before.0, before.1, 0));
    assert_eq!((store.cache_stats().inserts, store.cache_stats().evictions, store.cache_stats().bytes), (20, 20, 0));
}
