//! The listing of an open directory as numbered entries: an offset that a program has seen denotes the same entry for
//! as long as the directory is open, also after `seekdir`. Only the last few pages are in memory, so that a folder with
//! a million names does not fill it. Of each earlier page remain the name before it, with which it is fetched again,
//! and a hash of each of its names, which finds the entries that still exist among those fetched. Pure: pages come from
//! the caller.
//!
//! ```text
//! entries   0 .. 1023       1024 .. 2047     2048 .. 3071     3072 .. 4095
//! kept      name, hashes    name, hashes     entries          entries
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};

use chordfs_types::namespace::{DirEntry, EntryName};

use crate::cache::Stamp;

/// Pages whose entries are in memory. The kernel goes back by less than a page when a program's buffer is full.
const KEPT_PAGES: usize = 4;
/// Entries whose hashes are kept, 4 MiB of them. In a page before these, an offset denotes the entry that has its
/// place in the page as it is when it is fetched again.
const KEPT_HASHES: u64 = 1 << 20;

#[derive(Default)]
pub(super) struct Listing {
    pages: Vec<Page>,
    /// The pages whose entries are in memory, in the order in which they were fetched.
    kept: Vec<usize>,
    is_complete: bool,
}

struct Page {
    /// The number of its first entry.
    first: u64,
    len: u64,
    /// The name before its first entry, and the name of its last one.
    after: Option<EntryName>,
    last: Option<EntryName>,
    entries: Option<FetchedEntries>,
    /// A hash of each name, in their order. Empty until the entries leave the memory, and when there are too many.
    hashes: Vec<u32>,
}

struct FetchedEntries {
    /// `None` stands for an entry that was removed after the page was first fetched.
    entries: Vec<Option<DirEntry>>,
    /// Taken before the page was queried.
    stamp: Stamp,
}

pub(super) enum Position<'a> {
    Entry(&'a DirEntry, Stamp),
    /// The entry has been removed since.
    Removed,
    End,
    /// The entries must be fetched, for [`Listing::add_page`].
    Missing(PageBounds),
}

/// Entries to fetch: a page after one name, or up to another name if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageBounds {
    pub after: Option<EntryName>,
    pub last: Option<EntryName>,
}

impl Listing {
    /// The entry with this number; the first one has the number 0.
    pub(super) fn at(&self, number: u64) -> Position<'_> {
        let Some(page) = self.page_of(number).map(|at| &self.pages[at]) else {
            if self.is_complete {
                return Position::End;
            }
            let after = self.pages.last().and_then(|page| page.last.clone());
            return Position::Missing(PageBounds { after, last: None });
        };
        match &page.entries {
            None => Position::Missing(PageBounds { after: page.after.clone(), last: page.last.clone() }),
            Some(FetchedEntries { entries, stamp }) => match entries.get((number - page.first) as usize) {
                Some(Some(entry)) => Position::Entry(entry, *stamp),
                _ => Position::Removed,
            },
        }
    }

    /// Adds the entries that [`Listing::at`] reported missing for `number`. `more`: the directory has further ones.
    pub(super) fn add_page(&mut self, number: u64, entries: Vec<DirEntry>, more: bool, stamp: Stamp) {
        let at = match self.page_of(number) {
            Some(at) => {
                let entries = self.pages[at].align(entries);
                self.pages[at].entries = Some(FetchedEntries { entries, stamp });
                at
            }
            None => {
                self.is_complete = !more || entries.is_empty();
                self.append(entries, stamp)
            }
        };
        self.kept.push(at);
        if self.kept.len() > KEPT_PAGES {
            let oldest = self.kept.remove(0);
            self.pages[oldest].drop_entries();
        }
    }

    fn page_of(&self, number: u64) -> Option<usize> {
        let at = self.pages.partition_point(|page| page.first + page.len <= number);
        (at < self.pages.len()).then_some(at)
    }

    fn append(&mut self, entries: Vec<DirEntry>, stamp: Stamp) -> usize {
        let before = self.pages.last();
        let (first, after) = before.map_or((0, None), |page| (page.first + page.len, page.last.clone()));
        let (len, last) = (entries.len() as u64, entries.last().map(|entry| entry.name.clone()));
        let entries = Some(FetchedEntries { entries: entries.into_iter().map(Some).collect(), stamp });
        self.pages.push(Page { first, len, after, last, entries, hashes: Vec::new() });
        let with_old_hashes = self.pages.partition_point(|page| page.first + KEPT_HASHES < first);
        let old = self.pages[..with_old_hashes].iter_mut().rev().take_while(|page| !page.hashes.is_empty());
        old.for_each(|page| page.hashes = Vec::new());
        self.pages.len() - 1
    }

    #[cfg(test)]
    fn kept_entries(&self) -> usize {
        self.pages.iter().filter_map(|page| page.entries.as_ref()).map(|fetched| fetched.entries.len()).sum()
    }
}

impl Page {
    fn drop_entries(&mut self) {
        let Some(FetchedEntries { entries, .. }) = self.entries.take() else { return };
        // Entries fetched again may lack some that have a hash.
        if self.hashes.is_empty() {
            self.hashes = entries.iter().flatten().map(|entry| hash(&entry.name)).collect();
        }
    }

    /// Gives the entries of this page, which were fetched again, the places that they had. Those created since are left
    /// out.
    fn align(&self, fetched: Vec<DirEntry>) -> Vec<Option<DirEntry>> {
        let mut rest: Vec<Option<DirEntry>> = fetched.into_iter().map(Some).collect();
        if self.hashes.is_empty() {
            rest.truncate(self.len as usize);
            return rest;
        }
        let names: Vec<u32> = rest.iter().flatten().map(|entry| hash(&entry.name)).collect();
        let mut next = 0;
        let mut take = |wanted: &u32| {
            let at = next + names[next..].iter().position(|name| name == wanted)?;
            next = at + 1;
            rest[at].take()
        };
        self.hashes.iter().map(&mut take).collect()
    }
}

fn hash(name: &EntryName) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.as_bytes().hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, num::NonZeroUsize};

    use super::*;
    use crate::{
        cache::MetaCache,
        samples_test::{attr, name},
    };

    const PAGE: usize = 10;

    /// A directory whose pages have [`PAGE`] entries.
    struct Directory(BTreeSet<String>);

    fn file(number: u64) -> String {
        format!("{number:07}")
    }

    impl Directory {
        fn new(files: u64) -> Self {
            Self((0..files).map(file).collect())
        }

        fn page(&self, bounds: &PageBounds) -> (Vec<DirEntry>, bool) {
            let after = |file: &&String| bounds.after.as_ref().is_none_or(|after| name(file) > *after);
            let mut rest = self.0.iter().filter(after);
            let within = |number: usize, file: &String| match &bounds.last {
                Some(last) => name(file) <= *last,
                None => number < PAGE,
            };
            let page = rest.by_ref().enumerate().take_while(|(number, file)| within(*number, file));
            let entries: Vec<DirEntry> =
                page.map(|(_, file)| DirEntry { name: name(file), attr: attr(5, 1) }).collect();
            let more = entries.last().is_some_and(|last| self.0.iter().any(|file| name(file) > last.name));
            (entries, more)
        }

        fn at(&self, listing: &mut Listing, number: u64) -> Option<String> {
            let stamp = MetaCache::new(NonZeroUsize::MIN, || 0, || true).stamp();
            loop {
                match listing.at(number) {
                    Position::Entry(entry, _) => return Some(entry.name.to_string()),
                    Position::Removed => return Some("removed".to_owned()),
                    Position::End => return None,
                    Position::Missing(bounds) => {
                        let (entries, more) = self.page(&bounds);
                        listing.add_page(number, entries, more, stamp);
                    }
                }
            }
        }
    }

    /// An open directory kept its whole listing: a million names took 330 MB.
    #[test]
    fn a_large_directory_is_listed_once_within_a_few_pages_of_memory() {
        let (directory, mut listing) = (Directory::new(1005), Listing::default());
        for number in 0..1005 {
            assert_eq!(directory.at(&mut listing, number), Some(file(number)));
            assert!(listing.kept_entries() <= KEPT_PAGES * PAGE);
        }
        assert_eq!(directory.at(&mut listing, 1005), None);
        assert_eq!(directory.at(&mut Listing::default(), 1005), None, "an offset beyond the end");
        assert_eq!(directory.at(&mut Listing::default(), 987), Some(file(987)), "an offset that was not read before");
    }

    #[test]
    fn an_offset_denotes_the_same_entry_whatever_was_created_and_removed() {
        let (mut directory, mut listing) = (Directory::new(200), Listing::default());
        assert_eq!(directory.at(&mut listing, 199), Some(file(199)));
        for removed in [10, 13, 14, 19, 57] {
            directory.0.remove(&file(removed));
        }
        directory.0.extend((0..30).map(|number| format!("{}-{number}", file(15))));
        for number in (0..200).rev() {
            let expected = if [10, 13, 14, 19].contains(&number) { "removed".to_owned() } else { file(number) };
            if number != 57 {
                assert_eq!(directory.at(&mut listing, number), Some(expected), "at {number}");
            }
            assert!(listing.kept_entries() <= KEPT_PAGES * PAGE);
        }
        assert_eq!(directory.at(&mut listing, 57), Some("removed".to_owned()));
        assert_eq!(directory.at(&mut listing, 200), None);
    }
}
