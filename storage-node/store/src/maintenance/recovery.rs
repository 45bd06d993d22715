//! Opening the store: what the files in the folder say, and which of them are trusted.
//!
//! If a segment has a sound hint for its length, the hint is trusted; the records are checked when they are read. Any
//! other segment is read from end to end, its torn tail is cut, it is written again in place and synced, and it is
//! given a hint. It is written again because an earlier process may have failed to sync it: the records can then be
//! read from the page cache without being on the disk. No segment found at an open is appended to again: its list of
//! dead records may be on the disk without the records that it lists, and an offset in the list must never come to
//! denote another record.
//!
//! A chunk may be found twice if compaction was interrupted. The later copy is kept, and the other one is listed as
//! dead. A doubtful copy (see `scan`) gives way to any other.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    sync::Arc,
};

use chordfs_files::write_again;
use hashbrown::HashMap;

use crate::{
    error::StoreError,
    index::IndexEntry,
    records::RecordTable,
    segment::{
        Segment, SegmentFiles,
        dead_list::DeadList,
        hint, remove_if_there,
        scan::{ScannedRecord, scan},
    },
};

pub(crate) fn recover(table: &RecordTable) -> Result<(), StoreError> {
    let numbers = tidy(&table.segments.folder)?;
    let mut doubtful = Vec::new();
    let mut twice: HashMap<u32, Vec<u32>> = HashMap::new();
    for number in numbers {
        for found in open_segment(table, number)? {
            if found.doubtful { doubtful.push(found.entry) } else { enter(table, found.entry, &mut twice) }
        }
    }
    for entry in doubtful {
        enter_doubtful(table, entry, &mut twice);
    }
    for segment in table.segments.all() {
        if let Some(offsets) = twice.get(&segment.number) {
            segment.mark_dead(offsets);
        }
        table.segments.drop_if_dead(&segment);
    }
    Ok(())
}

/// Returns the numbers of the segments, lowest first. Removes side files whose segment is gone, as the number may be
/// used again.
fn tidy(folder: &Path) -> Result<Vec<u32>, StoreError> {
    let io = |source| StoreError::io("read folder", folder, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().into_string());
    }
    let found: Vec<(u32, &str)> = names.iter().flatten().filter_map(|name| SegmentFiles::parse(name)).collect();
    let of_records = |(number, ending): &(u32, &str)| (*ending == "seg").then_some(*number);
    let mut numbers: Vec<u32> = found.iter().filter_map(of_records).collect();
    numbers.sort_unstable();
    let stray: Vec<_> = found.iter().filter(|(number, _)| numbers.binary_search(number).is_err()).collect();
    if !stray.is_empty() {
        // A killed process may not have synced the removal of the segment, which would come back without these.
        chordfs_files::sync_folder(folder).map_err(|source| StoreError::io("sync", folder, source))?;
    }
    for (number, _) in stray {
        let files = SegmentFiles::new(folder, *number);
        for path in [&files.hint, &files.dead] {
            remove_if_there(path).map_err(|source| StoreError::io("remove", path, source))?;
        }
    }
    Ok(numbers)
}

/// Adds a segment to the set, and returns those of its records that are not dead.
fn open_segment(table: &RecordTable, number: u32) -> Result<Vec<ScannedRecord>, StoreError> {
    let files = SegmentFiles::new(&table.segments.folder, number);
    let (dead, dead_offsets) =
        DeadList::load(files.dead.clone(), number).map_err(|source| StoreError::io("read", &files.dead, source))?;
    let bytes = fs::metadata(&files.records)
        .map_err(|source| StoreError::io("read the size of", &files.records, source))?
        .len();
    let (mut found, bytes) = match hint::read(&files.hint, number, bytes) {
        Some(entries) => (entries.into_iter().map(|entry| ScannedRecord { entry, doubtful: false }).collect(), bytes),
        None => read_through(table, number, &files, bytes)?,
    };
    table.segments.adopt(Segment::found(number, files, bytes, dead));
    found.retain(|found| !dead_offsets.contains(&found.entry.location.offset));
    Ok(found)
}

/// For a segment without a hint: finds its records, cuts the torn tail, and writes the hint.
fn read_through(
    table: &RecordTable,
    number: u32,
    files: &SegmentFiles,
    bytes: u64,
) -> Result<(Vec<ScannedRecord>, u64), StoreError> {
    let failed = |step, source| StoreError::io(step, &files.records, source);
    let file = OpenOptions::new().read(true).write(true).open(&files.records);
    let file = file.map_err(|source| failed("open segment", source))?;
    let scan = scan(&file, number, bytes).map_err(|source| failed("read segment", source))?;
    if scan.sound_bytes < bytes {
        tracing::info!(path = %files.records.display(), cut_bytes = bytes - scan.sound_bytes, "torn tail cut");
        file.set_len(scan.sound_bytes).map_err(|source| failed("cut the torn tail of", source))?;
    }
    if scan.damaged > 0 {
        tracing::warn!(path = %files.records.display(), locations = scan.damaged, "damage in a segment; its other records are kept");
        table.damage.add_unnamed(scan.damaged);
    }
    write_again(&file, 0..scan.sound_bytes).map_err(|source| failed("write again segment", source))?;
    file.sync_all().map_err(|source| failed("sync segment", source))?;
    // A hint cannot mark doubtful records, so a damaged segment is read at every open until compaction rewrites it.
    if scan.damaged == 0 {
        let entries: Vec<IndexEntry> = scan.found.iter().map(|found| found.entry).collect();
        if let Err(error) = hint::write(&files.hint, number, scan.sound_bytes, &entries) {
            tracing::warn!(path = %files.hint.display(), %error, "no hint written; the next start reads the segment again");
        }
    }
    Ok((scan.found, scan.sound_bytes))
}

/// Enters a record in the index. Segments are opened in ascending order, so of two copies the second one lies later.
fn enter(table: &RecordTable, entry: IndexEntry, twice: &mut HashMap<u32, Vec<u32>>) {
    if let Err(earlier) = table.index.insert(&entry) {
        table.index.relocate(&IndexEntry { location: earlier, ..entry }, entry.location);
        segment(table, earlier.segment).discount_live(&earlier);
        twice.entry(earlier.segment).or_default().push(earlier.offset);
    }
    segment(table, entry.location.segment).count_live(&entry.location);
}

fn enter_doubtful(table: &RecordTable, entry: IndexEntry, twice: &mut HashMap<u32, Vec<u32>>) {
    match table.index.insert(&entry) {
        Ok(()) => segment(table, entry.location.segment).count_live(&entry.location),
        Err(_) => twice.entry(entry.location.segment).or_default().push(entry.location.offset),
    }
}

fn segment(table: &RecordTable, number: u32) -> Arc<Segment> {
    table.segments.get(number).expect("every entry comes from a segment that was added before")
}
