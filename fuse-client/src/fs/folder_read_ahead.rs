//! Reading ahead of a program that opens the files of a directory one after the other: `cp -r`, `grep -r`, a compiler.
//! Each small file would cost a round trip for its extents and one for its contents; so the next files of the directory
//! are opened and fetched in advance, many in one request each.
//!
//! Which files a program opens next is not known, only that they are in the same directory. So as many bytes are ahead
//! as a multiple of what it has opened there, in the order of the names, and not more than a ceiling: what a program
//! leaves unread costs no more than that. A program that looks names up without opening them (`git status`) gets
//! the attributes in advance.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Weak,
    time::Duration,
};

use chordfs_net::{operation, tasks};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef},
    fs_error::FsError,
    namespace::{Answer, Attr, EntryName, Extent, FileKind, Ino, OpenedEntry, Query},
};
use lru::LruCache;
use tokio::sync::mpsc;
use tracing::debug;

use super::{FileSystem, unexpected};

/// Larger files are left to the read-ahead within a file.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// A file counts as this many bytes at least.
const MIN_FILE_BYTES: u64 = 4 << 10;
/// Files are fetched from this opening in a directory on.
const FIRST_OPENING: u32 = 2;
/// For each byte that was opened, so many may be ahead.
const AHEAD_FACTOR: u64 = 8;
/// What may be fetched and not opened yet, in one directory and in all.
const MAX_AHEAD_BYTES: u64 = 4 << 20;
const MAX_AHEAD_BYTES_IN_ALL: u64 = 16 << 20;
/// After so many look-ups that the namespace had to answer, further names are fetched with their attributes.
const LOOKUPS_BEFORE: u32 = 4;
const FIRST_NAMES: u32 = 32;
const MAX_NAMES: u32 = 512;
/// Files of a directory that are known to have been opened: they are not waited for when they are fetched.
const MAX_OPENED: usize = 4096;
/// What is not there by then is left to the program.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Directories whose readers are known.
const MAX_DIRECTORIES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// What to fetch: entries of a directory, and the contents of the small files among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FolderFetch {
    directory: Ino,
    after: Option<EntryName>,
    /// How many entries to ask for.
    names: u32,
    /// Contents at most, give or take one file.
    bytes: u64,
}

/// A file that a program has opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileOpening {
    file: Ino,
    bytes: u64,
    /// It is opened for reading alone.
    reads: bool,
    /// The namespace did not have to be asked.
    is_known: bool,
}

/// Decides what to fetch. Pure: openings and look-ups in, requests out.
pub(super) struct FolderReadAhead {
    directories: LruCache<Ino, DirectoryReader>,
    /// Over all directories.
    ahead_bytes: u64,
}

#[derive(Default)]
struct DirectoryReader {
    openings: u32,
    opened_bytes: u64,
    /// Files that were opened, the last few.
    opened: HashSet<Ino>,
    /// Look-ups since names were fetched last, and how many names the next fetch gets.
    lookups: u32,
    next_names: u32,
    /// Files that were fetched and not opened since, with their sizes.
    ahead: HashMap<Ino, u64>,
    ahead_bytes: u64,
    /// The last entry that was fetched.
    after: Option<EntryName>,
    is_complete: bool,
    /// Contents, or names after a look-up: one at a time.
    is_fetching: bool,
}

impl Default for FolderReadAhead {
    fn default() -> Self {
        Self { directories: LruCache::new(MAX_DIRECTORIES), ahead_bytes: 0 }
    }
}

impl FolderReadAhead {
    /// Notes that a file was opened.
    pub(super) fn note_opening(&mut self, directory: Ino, opening: FileOpening) -> Option<FolderFetch> {
        if !opening.reads && !self.directories.contains(&directory) {
            return None;
        }
        let reader = self.reader(directory);
        let was_ahead = reader.ahead.remove(&opening.file).unwrap_or_default();
        reader.ahead_bytes -= was_ahead;
        self.ahead_bytes -= was_ahead;
        if !opening.reads || opening.bytes > MAX_FILE_BYTES {
            return None;
        }
        self.make_room(directory);
        let reader = self.reader(directory);
        let is_over = reader.is_complete && reader.ahead.is_empty() && !reader.is_fetching;
        if is_over && was_ahead == 0 && !opening.is_known {
            // What was fetched has left the memory, and the program reads it again.
            *reader = DirectoryReader::default();
        }
        reader.note_reading(&opening);
        reader.next_files(directory)
    }

    /// Forgets the directories whose readers were active least recently until this one may have as much ahead as it
    /// ever may.
    fn make_room(&mut self, directory: Ino) {
        while self.ahead_bytes > MAX_AHEAD_BYTES_IN_ALL - MAX_AHEAD_BYTES {
            match self.directories.peek_lru() {
                Some((other, _)) if *other != directory => {}
                _ => return,
            }
            let forgotten = self.directories.pop_lru().map_or(0, |(_, reader)| reader.ahead_bytes);
            self.ahead_bytes -= forgotten;
        }
    }

    /// Notes that the namespace had to be asked for an existing name.
    pub(super) fn note_lookup(&mut self, directory: Ino, name: &EntryName) -> Option<FolderFetch> {
        let reader = self.reader(directory);
        reader.lookups += 1;
        if reader.lookups < LOOKUPS_BEFORE || reader.is_fetching {
            return None;
        }
        reader.lookups = 0;
        reader.is_fetching = true;
        reader.next_names = (reader.next_names * 2).clamp(FIRST_NAMES, MAX_NAMES);
        Some(FolderFetch { directory, after: Some(name.clone()), names: reader.next_names, bytes: 0 })
    }

    /// Notes the end of a fetch: the files whose contents it has got, with their sizes, and the last entry that it
    /// looked at; `is_complete`: no other follows.
    fn note_fetched(&mut self, fetch: &FolderFetch, files: &[(Ino, u64)], last: Option<EntryName>, is_complete: bool) {
        let Some(reader) = self.directories.peek_mut(&fetch.directory) else { return };
        reader.is_fetching = false;
        if fetch.bytes == 0 {
            return;
        }
        // Without an entry there is nothing to go on from.
        reader.is_complete = is_complete || last.is_none();
        reader.after = last.or(reader.after.take());
        for (file, bytes) in files.iter().filter(|(file, _)| !reader.opened.contains(file)) {
            // A file that has two names, or was renamed, may come twice and have grown.
            let former = reader.ahead.insert(*file, *bytes).unwrap_or_default();
            reader.ahead_bytes = reader.ahead_bytes + bytes - former;
            self.ahead_bytes = self.ahead_bytes + bytes - former;
        }
    }

    fn reader(&mut self, directory: Ino) -> &mut DirectoryReader {
        if !self.directories.contains(&directory)
            && let Some((_, former)) = self.directories.push(directory, DirectoryReader::default())
        {
            self.ahead_bytes -= former.ahead_bytes;
        }
        self.directories.get_or_insert_mut(directory, DirectoryReader::default)
    }
}

impl DirectoryReader {
    fn note_reading(&mut self, opening: &FileOpening) {
        if self.opened.len() == MAX_OPENED {
            self.opened.clear();
        }
        self.opened.insert(opening.file);
        self.openings += 1;
        self.opened_bytes += opening.bytes.max(MIN_FILE_BYTES);
    }

    fn next_files(&mut self, directory: Ino) -> Option<FolderFetch> {
        let allowed = (self.opened_bytes * AHEAD_FACTOR).min(MAX_AHEAD_BYTES);
        // Only large pieces are worth a request.
        let is_due = self.openings >= FIRST_OPENING && self.ahead_bytes <= allowed / 2;
        if !is_due || self.is_complete || self.is_fetching {
            return None;
        }
        self.is_fetching = true;
        let bytes = allowed - self.ahead_bytes;
        let names = u32::try_from(bytes / MIN_FILE_BYTES).unwrap_or(u32::MAX).clamp(1, MAX_NAMES);
        Some(FolderFetch { directory, after: self.after.clone(), names, bytes })
    }
}

impl FileSystem {
    /// To be called when a file was opened; `is_known`: without a question to the namespace.
    pub(super) fn read_folder_ahead(&self, attr: &Attr, can_write: bool, is_known: bool) {
        if let Some(directory) = self.cache.parent_hint(attr.ino) {
            let opening = FileOpening { file: attr.ino, bytes: attr.size, reads: !can_write, is_known };
            let fetch = self.folder_read_ahead.lock().note_opening(directory, opening);
            self.request_folder(fetch);
        }
    }

    /// To be called when the namespace had to be asked for an existing name.
    pub(super) fn look_ahead(&self, directory: Ino, name: &EntryName) {
        let fetch = self.folder_read_ahead.lock().note_lookup(directory, name);
        self.request_folder(fetch);
    }

    fn request_folder(&self, fetch: Option<FolderFetch>) {
        // It fails only if the mount is ending.
        fetch.into_iter().for_each(|fetch| drop(self.folder_fetches.send(fetch)));
    }

    async fn fetch_folder(&self, fetch: FolderFetch) {
        let page = self.open_entries(&fetch).await;
        let page = page.inspect_err(|error| debug!(directory = fetch.directory.0, %error, "cannot read ahead"));
        // After an error the rest is left to the program, which is told of it if it persists.
        let (entries, more) = page.unwrap_or_default();
        let (mut files, mut refs, mut bytes, mut last) = (Vec::new(), Vec::new(), 0, None);
        let mut looked_at = 0;
        for opened in entries.iter().take_while(|_| fetch.bytes > 0) {
            if bytes >= fetch.bytes {
                break;
            }
            looked_at += 1;
            last = Some(opened.entry.name.clone());
            if let Some(chunks) = small_file(opened) {
                let held = opened.entry.attr.size.max(MIN_FILE_BYTES);
                bytes += held;
                files.push((opened.entry.attr.ino, held));
                refs.extend(chunks);
            }
        }
        self.transfer.fetch_ahead(refs, bytes);
        let is_complete = !more && looked_at == entries.len();
        self.folder_read_ahead.lock().note_fetched(&fetch, &files, last, is_complete);
    }

    /// Opens entries in advance, and remembers what the namespace tells of them.
    async fn open_entries(&self, fetch: &FolderFetch) -> Result<(Vec<OpenedEntry>, bool), FsError> {
        let (ino, stamp) = (fetch.directory, self.cache.stamp());
        let query = Query::OpenEntries { ino, after: fetch.after.clone(), limit: fetch.names };
        let (entries, more) = match self.namespace.query(query).await? {
            Answer::OpenedEntries { entries, more } => (entries, more),
            other => return Err(unexpected("opening the files of a directory in advance", &other)),
        };
        for OpenedEntry { entry, extents } in &entries {
            self.cache.store_name(stamp, ino, &entry.name, Some(&entry.attr));
            if let Some(extents) = extents {
                self.cache.store_opened(stamp, &entry.attr, extents.clone());
            }
        }
        Ok((entries, more))
    }
}

/// Carries out what [`FolderReadAhead`] decides, until the file system ends.
pub(super) async fn fetch_folders(fs: Weak<FileSystem>, mut fetches: mpsc::UnboundedReceiver<FolderFetch>) {
    while let Some(fetch) = fetches.recv().await {
        let Some(fs) = fs.upgrade() else { return };
        // A directory has one fetch at a time while its reader is known, so there are few.
        let work = async move { fs.fetch_folder(fetch).await };
        tasks::spawn(operation::run(FETCH_DEADLINE, FETCH_DEADLINE, || {}, work));
    }
}

/// The chunks of a file that is read ahead as a whole.
fn small_file(opened: &OpenedEntry) -> Option<Vec<ChunkRef>> {
    let attr = &opened.entry.attr;
    let extents = opened.extents.as_ref().filter(|extents| !extents.is_empty())?;
    let is_small = attr.kind == FileKind::File && (1..=MAX_FILE_BYTES).contains(&attr.size);
    is_small.then(|| chunks_of(attr, extents))
}

/// The stored chunks up to the end of the file.
fn chunks_of(attr: &Attr, extents: &[Extent]) -> Vec<ChunkRef> {
    let end = 1 + attr.size.div_ceil(u64::from(attr.chunk_bytes.max(1)));
    let ids = extents.iter().flat_map(|extent| {
        let range = extent.range();
        (range.start..range.end.min(end)).map(|index| ChunkId { version: extent.version, index: index as u32 })
    });
    ids.map(|id| ChunkRef { file: attr.file.clone(), id }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::name;

    const DIRECTORY: Ino = Ino(1);
    const SIZE: u64 = 4096;

    fn reading(file: u64, is_known: bool) -> FileOpening {
        FileOpening { file: Ino(file), bytes: SIZE, reads: true, is_known }
    }

    /// Answers each fetch at once with the files of a directory with `count` files, numbered in the order of their
    /// names.
    struct Reader {
        ahead: FolderReadAhead,
        count: u64,
        fetched: Vec<u64>,
    }

    impl Reader {
        fn new(count: u64) -> Self {
            Self { ahead: FolderReadAhead::default(), count, fetched: Vec::new() }
        }

        fn open(&mut self, file: u64) {
            if let Some(fetch) = self.ahead.note_opening(DIRECTORY, reading(100 + file, self.fetched.contains(&file))) {
                let first = fetch.after.as_ref().map_or(0, |after| 1 + after.to_string().parse::<u64>().unwrap());
                let last = (first + u64::from(fetch.names).min(fetch.bytes / SIZE)).min(self.count);
                let files: Vec<(Ino, u64)> = (first..last).map(|file| (Ino(100 + file), SIZE)).collect();
                self.fetched.extend(first..last);
                let name = last.checked_sub(1).map(|last| name(&format!("{last:06}")));
                self.ahead.note_fetched(&fetch, &files, name, last == self.count);
            }
        }
    }

    #[test]
    fn a_program_that_opens_all_files_in_order_finds_nearly_all_fetched() {
        let mut reader = Reader::new(3000);
        let mut waited = 0;
        for file in 0..3000 {
            waited += u64::from(!reader.fetched.contains(&file));
            reader.open(file);
        }
        assert!(waited <= 4, "{waited} files were not fetched in advance");
        assert_eq!(reader.fetched, (0..3000).collect::<Vec<u64>>(), "each once");
        assert_eq!(reader.ahead.ahead_bytes, 0);
    }

    #[test]
    fn a_directory_that_has_left_the_memory_is_read_ahead_again() {
        let mut reader = Reader::new(500);
        (0..500).for_each(|file| reader.open(file));
        let former = std::mem::take(&mut reader.fetched);
        (0..500).for_each(|file| reader.open(file));
        assert_eq!(reader.fetched, former);
        let known = (0..500).all(|file| reader.ahead.note_opening(DIRECTORY, reading(100 + file, true)).is_none());
        assert!(known, "what is still in memory is not fetched again");
    }

    #[test]
    fn another_order_costs_some_waiting_and_no_more() {
        let mut reader = Reader::new(1000);
        let mut waited = 0;
        // 7 and 1000 have no common divisor.
        for step in 0..1000 {
            let file = step * 7 % 1000;
            waited += u64::from(!reader.fetched.contains(&file));
            reader.open(file);
        }
        assert!(waited < 250, "{waited} of 1000 files were not fetched in advance");
    }

    #[test]
    fn what_is_never_read_is_bounded() {
        let mut reader = Reader::new(1_000_000);
        for step in 0..2000 {
            reader.open(999_999 - step);
        }
        assert!(reader.fetched.len() as u64 * SIZE <= MAX_AHEAD_BYTES, "{} files", reader.fetched.len());
        let mut all = FolderReadAhead::default();
        for directory in 0..1000 {
            for file in 0..100 {
                if let Some(fetch) = all.note_opening(Ino(directory), reading(1_000_000 + file, false)) {
                    let files: Vec<(Ino, u64)> =
                        (0..fetch.bytes / SIZE).map(|at| (Ino(2_000_000 + at), SIZE)).collect();
                    all.note_fetched(&fetch, &files, Some(name("a")), false);
                }
            }
            assert!(all.ahead_bytes <= MAX_AHEAD_BYTES_IN_ALL, "{} bytes", all.ahead_bytes);
        }
    }

    #[test]
    fn a_file_that_grows_or_is_written_is_counted_once() {
        let mut ahead = FolderReadAhead::default();
        let openings = (0..FIRST_OPENING.into()).find_map(|file| ahead.note_opening(DIRECTORY, reading(file, false)));
        let fetch = openings.expect("files are fetched");
        for bytes in [SIZE, 60 << 10, 8 << 10] {
            ahead.note_fetched(&fetch, &[(Ino(50), bytes), (Ino(51), bytes)], Some(name("z")), false);
            assert_eq!(ahead.ahead_bytes, 2 * bytes);
        }
        ahead.note_opening(DIRECTORY, FileOpening { bytes: 1 << 30, ..reading(50, true) });
        ahead.note_opening(DIRECTORY, FileOpening { reads: false, ..reading(51, true) });
        assert_eq!(ahead.ahead_bytes, 0);
    }

    #[test]
    fn directories_that_were_read_in_part_do_not_keep_others_from_being_read_ahead() {
        let mut ahead = FolderReadAhead::default();
        for directory in 0..60 {
            let mut fetched = 0;
            for file in 0..200 {
                let opening = reading(1000 * directory + file, false);
                if let Some(fetch) = ahead.note_opening(Ino(directory), opening) {
                    let first = 1_000_000 * (1 + directory) + fetched;
                    let files: Vec<(Ino, u64)> = (first..first + 500).map(|file| (Ino(file), SIZE)).collect();
                    fetched += 500;
                    ahead.note_fetched(&fetch, &files, Some(name("a")), false);
                }
            }
            assert!(fetched > 0, "directory {directory}");
            assert!(ahead.ahead_bytes <= MAX_AHEAD_BYTES_IN_ALL, "{} bytes", ahead.ahead_bytes);
        }
    }

    #[test]
    fn one_file_of_a_directory_and_large_files_bring_nothing() {
        let mut ahead = FolderReadAhead::default();
        assert_eq!(ahead.note_opening(DIRECTORY, reading(5, false)), None);
        for file in 0..100 {
            assert_eq!(ahead.note_opening(Ino(2), FileOpening { bytes: 1 << 30, ..reading(100 + file, false) }), None);
        }
    }

    #[test]
    fn look_ups_bring_the_names_that_follow() {
        let mut ahead = FolderReadAhead::default();
        let fetches: Vec<FolderFetch> =
            (0..LOOKUPS_BEFORE).filter_map(|at| ahead.note_lookup(DIRECTORY, &name(&format!("f{at}")))).collect();
        let expected = FolderFetch { directory: DIRECTORY, after: Some(name("f3")), names: FIRST_NAMES, bytes: 0 };
        assert_eq!(fetches, std::slice::from_ref(&expected));
        assert_eq!(ahead.note_lookup(DIRECTORY, &name("f4")), None, "one fetch at a time");
        ahead.note_fetched(&expected, &[], None, false);
        let next = (0..LOOKUPS_BEFORE).find_map(|_| ahead.note_lookup(DIRECTORY, &name("f9")));
        assert_eq!(next.map(|fetch| fetch.names), Some(2 * FIRST_NAMES));
    }
}
