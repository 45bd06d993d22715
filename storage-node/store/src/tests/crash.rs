//! What a crash may leave behind: half a record, a lost hint, stray files, half a list of the dead.

use super::*;

/// Puts each chunk by itself and returns where the records end in the first segment.
fn put_each(fixture: &Fixture, chunks: &[ChunkRef], len: usize) -> Vec<u64> {
    let mut ends = vec![0];
    for chunk in chunks {
        let batch = batch(std::slice::from_ref(chunk), len);
        fixture.store().put(&batch, Durability::Memory).unwrap();
        ends.push(ends.last().unwrap() + batch.bytes.len() as u64);
    }
    ends
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_crash_at_every_byte_of_the_last_records() {
    let fixture = Fixture::plain();
    let chunks = numbered("name", 1..=8, 3);
    let ends = put_each(&fixture, &chunks, 60);
    let (cut_from, whole_bytes) = (ends[4], ends[8]);
    let copy = tempfile::tempdir().unwrap();
    copy_folder(fixture.dir.path(), copy.path());
    let segment = copy.path().join("chunks/00000001.seg");
    let bytes = std::fs::read(&segment).unwrap();
    assert_eq!(bytes.len() as u64, whole_bytes);
    for len in cut_from..=whole_bytes {
        std::fs::remove_dir_all(copy.path().join("chunks")).unwrap();
        std::fs::create_dir(copy.path().join("chunks")).unwrap();
        std::fs::write(&segment, &bytes[..len as usize]).unwrap();
        let expected: Vec<bool> = ends[1..].iter().map(|end| *end <= len).collect();
        let new = chunk("new", 1, len);
        for round in 0..2 {
            let store = open(copy.path(), &fixture.options);
            assert_eq!(present(&store, &chunks), expected, "cut at {len}");
            assert_eq!(store.has(&chunks), expected, "cut at {len}");
            assert_eq!(store.stats().damaged, 0, "a torn tail is no damage");
            if round == 0 {
                assert_eq!(store.put(&batch(std::slice::from_ref(&new), 70), Durability::Disk).unwrap().stored, 1);
            }
            assert_eq!(present(&store, std::slice::from_ref(&new)), [true], "cut at {len}");
        }
        let end = ends.iter().rfind(|end| **end <= len).unwrap();
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), *end, "the torn tail is cut");
    }
}

#[test]
fn a_tail_of_zeros_or_noise_is_cut() {
    for filler in [0u8, 0x43, 0xff] {
        let mut fixture = Fixture::plain();
        let chunks = numbered("a", 1..=3, 1);
        let ends = put_each(&fixture, &chunks, 60);
        fixture.close();
        let segment = fixture.chunks().join("00000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes.extend([filler; 5000]);
        std::fs::write(&segment, bytes).unwrap();
        assert_eq!(present(fixture.reopen(), &chunks), [true; 3]);
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), ends[3]);
    }
}

#[test]
fn an_open_writes_hints_and_lost_or_torn_ones_do_no_harm() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=3, 1);
    put_each(&fixture, &chunks, 60);
    fixture.store().delete(&[run("a", 2, 1, 1)]).unwrap();
    fixture.reopen();
    let hint = fixture.chunks().join("00000001.idx");
    let bytes = std::fs::read(&hint).unwrap();
    for len in 0..=bytes.len() {
        std::fs::write(&hint, &bytes[..len]).unwrap();
        assert_eq!(present(fixture.reopen(), &chunks), [true, false, true], "hint of {len} bytes");
    }
    fixture.close();
    std::fs::remove_file(&hint).unwrap();
    assert_eq!(present(fixture.reopen(), &chunks), [true, false, true]);
    assert_eq!(std::fs::read(&hint).unwrap(), bytes);
}

#[test]
fn an_empty_segment_and_stray_side_files_are_removed() {
    let mut fixture = Fixture::plain();
    put_each(&fixture, &numbered("a", 1..=2, 1), 60);
    fixture.close();
    for (name, contents) in [("00000002.seg", ""), ("00000007.dead", "x"), ("00000008.idx", ""), ("README", "mine")] {
        std::fs::write(fixture.chunks().join(name), contents).unwrap();
    }
    assert_eq!(fixture.reopen().stats().chunks, 2);
    assert_eq!(fixture.files(), ["00000001.idx", "00000001.seg", "README"]);
}

/// A list of dead records may reach the disk before the records that it lists. Their offsets must not be used again.
#[test]
fn a_dead_mark_never_hits_a_record_written_later() {
    let mut fixture = Fixture::plain();
    let ends = put_each(&fixture, &numbered("a", 1..=2, 1), 60);
    fixture.store().delete(&[run("a", 2, 1, 1)]).unwrap();
    fixture.close();
    let segment = std::fs::OpenOptions::new().write(true).open(fixture.chunks().join("00000001.seg")).unwrap();
    segment.set_len(ends[1]).unwrap();
    let later = [chunk("later", 1, 2)];
    fixture.reopen().put(&batch(&later, 60), Durability::Disk).unwrap();
    assert_eq!(present(fixture.reopen(), &later), [true]);
    assert_eq!(present(fixture.store(), &numbered("a", 1..=2, 1)), [true, false]);
}

#[test]
fn a_chunk_found_twice_is_kept_once() {
    let mut fixture = Fixture::plain();
    let chunks = numbered("a", 1..=4, 1);
    put_each(&fixture, &chunks, 60);
    fixture.close();
    let path = |name| fixture.chunks().join(name);
    std::fs::copy(path("00000001.seg"), path("00000005.seg")).unwrap();
    let store = fixture.reopen();
    assert_eq!(store.stats().chunks, 4);
    assert_eq!(list_all(store, whole(), 3).len(), 4);
    assert_eq!(fixture.files(), ["00000005.idx", "00000005.seg"]);
    fixture.store().delete(&[run("a", 1, 3, 1)]).unwrap();
    assert_eq!(present(fixture.reopen(), &chunks), [false, false, false, true]);
}

#[test]
fn a_second_store_on_the_folder_is_refused() {
    let fixture = Fixture::plain();
    assert!(DataFolder::open(fixture.dir.path()).is_err(), "the store keeps the lock also when its DataFolder is gone");
}
