//! Wrong bytes on the disk: never returned, counted, and no reason to lose anything else.

use super::*;
use crate::CopyState;

fn segment_of(fixture: &Fixture) -> PathBuf {
    fixture.chunks().join("00000001.seg")
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).unwrap();
}

/// A store with records of a few bytes each, so that every bit can be tried.
fn small(hint: bool) -> (Fixture, Vec<ChunkRef>) {
    let mut fixture = Fixture::plain();
    let chunks = numbered("n", 1..=4, 9);
    fixture.store().put(&batch(&chunks, 9), Durability::Disk).unwrap();
    if hint {
        fixture.reopen();
    }
    fixture.close();
    (fixture, chunks)
}

fn others_stay(expected_lost: usize, here: &[bool], what: &str) {
    let lost: Vec<_> = (0..here.len()).filter(|at| !here[*at]).collect();
    assert_eq!(lost, [expected_lost], "{what}");
}

#[test]
fn any_flipped_bit_loses_its_own_record_and_no_other() {
    for hint in [true, false] {
        let (mut fixture, chunks) = small(hint);
        let bytes = std::fs::read(segment_of(&fixture)).unwrap();
        let record_bytes = bytes.len() / chunks.len();
        for bit in 0..bytes.len() * 8 {
            let what = format!("bit {bit}, hint {hint}");
            std::fs::write(segment_of(&fixture), &bytes).unwrap();
            flip(&segment_of(&fixture), bit);
            let store = fixture.reopen();
            let here = present(store, &chunks);
            others_stay(bit / 8 / record_bytes, &here, &what);
            assert_eq!(store.has(&chunks), here, "{what}");
            assert_eq!(list_all(store, whole(), 2).len(), 3, "{what}");
            fixture.close();
            // Back to where it was; what an open finds out must not depend on the one before.
            for name in
                fixture.files().iter().filter(|name| !name.ends_with(".seg") && (!hint || name.ends_with(".dead")))
            {
                std::fs::remove_file(fixture.chunks().join(name)).unwrap();
            }
        }
    }
}

#[test]
fn damage_found_by_a_read_is_reported_once_and_can_be_repaired() {
    let (mut fixture, chunks) = small(true);
    fixture.reopen();
    flip(&segment_of(&fixture), 35 * 8);
    let store = fixture.store();
    assert_eq!(store.has(&chunks), [true; 4], "no read has found it yet");
    for _ in 0..2 {
        assert_eq!(present(store, &chunks), [false, true, true, true]);
        assert_eq!(store.damaged(), [(chunks[0].key(), chunks[0].id)]);
        assert_eq!(store.stats().damaged, 1);
    }
    assert_eq!(store.has(&chunks), [false, true, true, true]);
    assert_eq!(store.put(&batch(&chunks, 9), Durability::Disk).unwrap().stored, 1);
    assert_eq!(store.damaged(), []);
    for _ in 0..2 {
        assert_eq!(present(fixture.store(), &chunks), [true; 4]);
        fixture.reopen();
    }
}

#[test]
fn a_scrub_finds_damage_without_a_reader() {
    let (mut fixture, chunks) = small(true);
    fixture.reopen();
    flip(&segment_of(&fixture), 35 * 8);
    let (mut token, mut chunks_read, mut damaged) = (0, 0, 0);
    loop {
        let step = fixture.store().scrub_step(token, 50).unwrap();
        (chunks_read, damaged) = (chunks_read + step.chunks, damaged + step.damaged);
        match step.next {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!((chunks_read, damaged), (4, 1));
    assert_eq!(fixture.store().has(&chunks), [false, true, true, true]);
}

#[test]
fn a_list_does_not_show_a_damaged_name() {
    let (mut fixture, chunks) = small(true);
    fixture.reopen();
    flip(&segment_of(&fixture), 32 * 8);
    assert_eq!(list_all(fixture.store(), whole(), 9), chunks[1..]);
    assert_eq!(fixture.store().stats().damaged, 1);
}

#[test]
fn a_segment_cut_short_under_a_running_store_loses_only_its_end() {
    let (mut fixture, chunks) = small(true);
    fixture.reopen();
    let file = std::fs::OpenOptions::new().write(true).open(segment_of(&fixture)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 50).unwrap();
    assert_eq!(present(fixture.store(), &chunks), [true, true, false, false]);
    assert_eq!(fixture.store().stats().damaged, 2);
    assert_eq!(present(fixture.reopen(), &chunks), [true, true, false, false]);
}

/// A disk that was away for a moment had its segments erased: nothing in them counted as living any more.
#[test]
fn records_that_could_not_be_read_for_a_while_are_not_erased() {
    let (mut fixture, chunks) = small(true);
    fixture.reopen();
    let (segment, aside) = (segment_of(&fixture), fixture.dir.path().join("aside"));
    std::fs::rename(&segment, &aside).unwrap();
    // It can be opened, and every read fails.
    std::fs::create_dir(&segment).unwrap();
    assert_eq!(present(fixture.store(), &chunks), [false; 4]);
    std::fs::remove_dir(&segment).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    assert!(!fixture.store().compact_step().unwrap());
    assert_eq!((fixture.store().stats().segments, fixture.store().stats().chunks), (1, 0));
    fixture.store().sync().unwrap();
    assert_eq!(present(fixture.reopen(), &chunks), [true; 4]);
}

/// A file system of segments may hold a segment file. What is found in a damaged record's data must not displace a
/// chunk.
#[test]
fn records_in_the_data_of_a_damaged_record_displace_nothing() {
    let mut fixture = Fixture::plain();
    let real = chunk("real", 1, 5);
    let forged = {
        let mut out = BytesMut::new();
        for index in [1, 2] {
            encode_record(&mut out, &real.file, ChunkId { index, ..real.id }, chunk_key(&real.file, index), b"forged");
        }
        out.freeze()
    };
    let carrier = chunk("carrier", 1, 6);
    let mut out = BytesMut::new();
    encode_record(&mut out, &carrier.file, carrier.id, carrier.key(), &forged);
    fixture.store().put(&batch(std::slice::from_ref(&real), 40), Durability::Memory).unwrap();
    fixture.store().put(&VerifiedBatch::verify(out.freeze()).unwrap(), Durability::Memory).unwrap();
    fixture.store().put(&batch(&[chunk("after", 1, 7)], 40), Durability::Memory).unwrap();
    fixture.close();
    flip(&segment_of(&fixture), (32 + 4 + 40) * 8); // the carrier's magic
    for _ in 0..2 {
        let store = fixture.reopen();
        assert_eq!(present(store, std::slice::from_ref(&real)), [true]);
        assert_eq!(present(store, &[carrier.clone(), chunk("after", 1, 7)]), [false, true]);
    }
}

#[test]
fn damage_over_many_records_keeps_those_around_it() {
    for hint in [true, false] {
        let mut fixture = Fixture::plain();
        let chunks = numbered("a", 1..=200, 1);
        fixture.store().put(&batch(&chunks, 4096), Durability::Disk).unwrap();
        if hint {
            fixture.reopen();
        }
        fixture.close();
        let mut bytes = std::fs::read(segment_of(&fixture)).unwrap();
        bytes[100_000..300_000].fill(0);
        std::fs::write(segment_of(&fixture), bytes).unwrap();
        let here = present(fixture.reopen(), &chunks);
        // A record is 4129 bytes: the 25th begins at 99,096, the 73rd ends at 301,417.
        let expected: Vec<bool> = (1..=200).map(|index| !(25..=73).contains(&index)).collect();
        assert_eq!(here, expected);
        assert!(fixture.store().stats().damaged > 0);
    }
}

#[test]
fn verifying_reports_damage_and_leaves_it_in_place() {
    let (mut fixture, chunks) = small(true);
    fixture.reopen();
    let asked = [chunks.clone(), vec![chunk("nowhere", 1, 9)]].concat();
    let record_bytes = std::fs::metadata(segment_of(&fixture)).unwrap().len() as usize / chunks.len();
    flip(&segment_of(&fixture), 8 * (record_bytes + 20));
    let store = fixture.store();
    for _ in 0..2 {
        let found = store.verify(&asked).unwrap();
        assert_eq!(
            found,
            [CopyState::Sound, CopyState::Damaged, CopyState::Sound, CopyState::Sound, CopyState::Absent]
        );
    }
    assert_eq!(store.has(&chunks), [true; 4]);
}
