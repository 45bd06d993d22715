//! Adding a batch, and the question whether there is room for it.

use std::{io::IoSlice, sync::Arc};

use chordfs_types::{
    chunk::{RecordHeader, VerifiedBatch},
    chunk_api::Durability,
};
use nix::sys::statvfs::statvfs;

use super::{
    PutOutcome, Shared, Store, StoreError,
    index::{Entry, Place},
    relief::Disk,
    remove::bury,
    segment::Segment,
};

pub fn put(store: &Store, batch: &VerifiedBatch, durability: Durability) -> Result<PutOutcome, StoreError> {
    let shared = &store.shared;
    let (mut fresh, mut here) = (Vec::with_capacity(batch.records.len()), Vec::new());
    for record in &batch.records {
        match shared.index.get(record.0.key, record.0.id) {
            None if shared.graves.holds(record.0.id) => {}
            None => fresh.push(*record),
            Some(place) => here.push(place),
        }
    }
    let mut stored = 0;
    if !fresh.is_empty() {
        stored = append(store, batch, &fresh, durability, &mut here)?;
    }
    if durability.is_disk() {
        wait_durable(shared, here)?;
    }
    Ok(PutOutcome { stored, already: batch.records.len() - stored })
}

/// Bytes that puts may still take.
pub fn free_bytes(shared: &Shared) -> u64 {
    let left = shared.options.capacity_bytes.map(|limit| limit.saturating_sub(shared.segments.used_bytes()));
    let disk = disk_free_bytes(shared).map(|free| free.saturating_sub(shared.options.reserve_bytes));
    disk.unwrap_or(0).min(left.unwrap_or(u64::MAX))
}

/// Writes `fresh` records of `batch` and enters them; says how many were new after all. What another put brought in the
/// meantime is added to `here`.
fn append(
    store: &Store,
    batch: &VerifiedBatch,
    fresh: &[(RecordHeader, u32)],
    durability: Durability,
    here: &mut Vec<Place>,
) -> Result<usize, StoreError> {
    let shared = &store.shared;
    let bytes = fresh.iter().map(|(header, _)| header.record_bytes() as u64).sum();
    take_space(shared, bytes)?;
    let mut slices = slices(batch, fresh);
    let mut lane = store.lane();
    let appended = match lane.append(shared, 0, &mut slices, bytes) {
        Ok(appended) => appended,
        Err(error) => {
            shared.segments.return_space(bytes);
            return Err(error);
        }
    };
    let entries = entries(fresh, appended.segment.number, appended.start);
    appended.segment.note(&entries);
    let twice = enter(shared, &appended.segment, &entries, here);
    drop(lane);
    // Deleted since the first look: either the deletion has seen the entry, or it is seen here.
    let late: Vec<_> = entries.iter().filter(|entry| shared.graves.holds(entry.id)).collect();
    if !late.is_empty() {
        let _gate = shared.moving.read();
        bury(shared, late.into_iter().filter(|entry| shared.index.remove_at(entry)).map(|entry| entry.place).collect());
    }
    shared.damage.mended(&entries);
    appended.segment.mark_dead(&twice);
    if let Some(full) = appended.full {
        full.seal(shared);
    }
    if durability.is_disk() {
        appended.segment.wait_durable(appended.end)?;
    }
    Ok(entries.len() - twice.len())
}

fn take_space(shared: &Shared, bytes: u64) -> Result<(), StoreError> {
    let path = || shared.segments.folder.clone();
    let reserve = shared.options.reserve_bytes;
    let free = disk_free_bytes(shared).map_err(|source| StoreError::io("ask free space of", &path(), source))?;
    if free < bytes.saturating_add(reserve) {
        let why = format!("{free} bytes are free, {bytes} are needed and {reserve} are kept in reserve");
        return Err(StoreError::NoSpace { path: path(), why });
    }
    let limit = shared.options.capacity_bytes.unwrap_or(u64::MAX);
    if !shared.segments.take_space(bytes, limit) {
        let why = format!("{bytes} more bytes would exceed the limit of {limit}");
        return Err(StoreError::NoSpace { path: path(), why });
    }
    Ok(())
}

/// The disk, or what the store may have of it, whichever is fuller.
pub fn disk(shared: &Shared) -> Result<Disk, StoreError> {
    let folder = &shared.segments.folder;
    let disk = statvfs(folder.as_path())
        .map_err(|errno| StoreError::io("ask free space of", folder, std::io::Error::from(errno)))?;
    let percent = |used: u64, all: u64| (u128::from(used) * 100 / u128::from(all.max(1))) as u64;
    let used = disk.blocks().saturating_sub(disk.blocks_free());
    let of_disk = percent(used, used.saturating_add(disk.blocks_available()));
    let of_limit = shared.options.capacity_bytes.map_or(0, |limit| percent(shared.segments.used_bytes(), limit));
    Ok(Disk {
        used_percent: of_disk.max(of_limit),
        free_bytes: disk.blocks_available().saturating_mul(disk.fragment_size()),
    })
}

fn disk_free_bytes(shared: &Shared) -> std::io::Result<u64> {
    let disk = statvfs(shared.segments.folder.as_path())?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// Where the fresh records lie in the batch, neighbours as one slice.
fn slices<'a>(batch: &'a VerifiedBatch, fresh: &[(RecordHeader, u32)]) -> Vec<IoSlice<'a>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (header, offset) in fresh {
        let (start, end) = (*offset as usize, *offset as usize + header.record_bytes());
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges.into_iter().map(|range| IoSlice::new(&batch.bytes[range])).collect()
}

fn entries(fresh: &[(RecordHeader, u32)], segment: u32, start: u64) -> Vec<Entry> {
    let mut offset = start as u32;
    let place = |(header, _): &(RecordHeader, u32)| {
        let entry = Entry::new(header, segment, offset);
        offset = offset.wrapping_add(entry.place.bytes);
        entry
    };
    fresh.iter().map(place).collect()
}

/// Enters what was written. The offsets of those that are here already, by another put or twice in the batch, come back.
fn enter(shared: &Shared, segment: &Segment, entries: &[Entry], here: &mut Vec<Place>) -> Vec<u32> {
    let mut twice = Vec::new();
    for entry in entries {
        // Counted before it can be found: whoever finds it may delete it, and then takes it off the count.
        segment.count_live(&entry.place);
        match shared.index.insert(entry) {
            Ok(()) => {}
            Err(place) => {
                segment.discount_live(&entry.place);
                here.push(place);
                twice.push(entry.place.offset);
            }
        }
    }
    twice
}

/// Returns when the records at `places` are on the disk. One that has moved since was synced by whoever moved it.
pub fn wait_durable(shared: &Shared, mut places: Vec<Place>) -> Result<(), StoreError> {
    places.sort_unstable();
    for group in places.chunk_by(|a, b| a.segment == b.segment) {
        let end = group.iter().map(Place::end).max().unwrap_or(0);
        let segment: Option<Arc<Segment>> = shared.segments.get(group[0].segment);
        if let Some(segment) = segment {
            segment.wait_durable(end)?;
        }
    }
    Ok(())
}
