//! A search for names below a folder, as far as one request may go.
//!
//! A tree may have ten million files and there is no index of their names, so each request walks a bounded part of the
//! tree, and says behind which path the next one goes on.

use std::time::Duration;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, EntryName, Ino, MAX_ENTRY_NAME_BYTES},
};
use tokio::time::Instant;

use super::{FileService, walk::WalkBatch};

/// The longest path below its folder that a search finds, and behind which one goes on: `PATH_MAX`. A link with it fits
/// into the head of a request.
pub const MAX_FOUND_PATH_BYTES: usize = 4096;
/// Folders with a longer path could have entries that are too deep to be found.
const MAX_FOLDER_BYTES: usize = MAX_FOUND_PATH_BYTES - MAX_ENTRY_NAME_BYTES;
/// A search returns when it has found this many.
const ENOUGH_FOUND: usize = 1000;
/// A search returns when it has looked at this many entries.
const ENOUGH_EXAMINED: usize = 100_000;
/// A search returns when it has read this many pages of folders.
const ENOUGH_PAGES: usize = 2000;
/// A search returns after this long, however far it is: somebody waits for it.
const ENOUGH_TIME: Duration = Duration::from_secs(2);

/// An entry and its path below the folder from which one looks.
#[derive(Debug)]
pub struct TreeEntry {
    /// At least one name.
    pub path: Vec<EntryName>,
    pub attr: Attr,
}

#[derive(Debug)]
pub struct FoundPage {
    /// In the order of a walk.
    pub found: Vec<TreeEntry>,
    /// The path behind which the search goes on; `None` if it is at its end.
    pub next: Option<Vec<EntryName>>,
}

impl FileService {
    /// Entries of any kind below `folder` whose names contain `word`, in upper or lower case, behind the path `after`.
    pub async fn search(&self, folder: Ino, after: &[EntryName], word: &str) -> Result<FoundPage, FsError> {
        let end = Instant::now() + ENOUGH_TIME;
        let word = word.to_lowercase();
        let mut walk = self.walk(folder).within(MAX_FOLDER_BYTES);
        walk.skip_past(after).await?;
        let (mut found, mut examined, mut next) = (Vec::new(), 0, None);
        while let Some(batch) = walk.next_batch().await? {
            examined += batch.entries.len();
            next = batch.last_path().or(next);
            found.extend(matching(batch, &word));
            let is_enough = found.len() >= ENOUGH_FOUND
                || examined >= ENOUGH_EXAMINED
                || walk.pages_read() >= ENOUGH_PAGES
                || Instant::now() >= end;
            // Without a step ahead, the next request would look at nothing but the same again.
            if is_enough && next.is_some() {
                return Ok(FoundPage { found, next });
            }
        }
        Ok(FoundPage { found, next: None })
    }
}

impl WalkBatch {
    fn last_path(&self) -> Option<Vec<EntryName>> {
        let last = self.entries.last()?;
        Some(self.folder.iter().chain([&last.name]).cloned().collect())
    }
}

fn matching(batch: WalkBatch, word: &str) -> impl Iterator<Item = TreeEntry> {
    let WalkBatch { folder, entries } = batch;
    let matching = entries.into_iter().filter(move |entry| entry.name.to_string().to_lowercase().contains(word));
    matching.map(move |entry| {
        let path = folder.iter().cloned().chain([entry.name]).collect();
        TreeEntry { path, attr: entry.attr }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chordfs_types::namespace::FileKind;

    // The clock of these tests stands still while nothing waits, so a search never ends early on a busy machine.
    use super::*;
    use crate::files::fakes::{FakeNamespace, service};

    fn shown(path: &[EntryName]) -> String {
        path.iter().map(EntryName::to_string).collect::<Vec<_>>().join("/")
    }

    /// Follows a search to its end, and returns what it finds and the number of requests.
    async fn searched(namespace: &Arc<FakeNamespace>, folder: Ino, word: &str) -> (Vec<String>, usize) {
        let (service, mut found, mut after, mut requests) = (service(namespace), Vec::new(), Vec::new(), 0);
        loop {
            let page = service.search(folder, &after, word).await.unwrap();
            found.extend(page.found.iter().map(|entry| shown(&entry.path)));
            requests += 1;
            match page.next {
                Some(next) => after = next,
                None => return (found, requests),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_any_kind_and_depth_match_and_paths_do_not() {
        let namespace = Arc::<FakeNamespace>::default();
        let reports = namespace.make(Ino::ROOT, "Reports", FileKind::Directory, "");
        let year = namespace.make(reports, "2026", FileKind::Directory, "");
        namespace.make(year, "report.pdf", FileKind::File, "");
        namespace.make(year, "other.pdf", FileKind::File, "");
        namespace.make(year, "to-REPORTS", FileKind::Symlink, "..");
        namespace.make(Ino::ROOT, "report", FileKind::Fifo, "");
        let expected = ["Reports", "Reports/2026/report.pdf", "Reports/2026/to-REPORTS", "report"].map(str::to_owned);
        assert_eq!(searched(&namespace, Ino::ROOT, "rePort").await, (expected.to_vec(), 1));
        let below = ["2026/report.pdf", "2026/to-REPORTS"].map(str::to_owned);
        assert_eq!(searched(&namespace, reports, "report").await, (below.to_vec(), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_ends_with_enough_and_goes_on_where_it_was() {
        let namespace = Arc::<FakeNamespace>::default();
        let mut expected = Vec::new();
        for folder in ["a", "b", "c"] {
            let ino = namespace.make(Ino::ROOT, folder, FileKind::Directory, "");
            for number in 0..ENOUGH_FOUND {
                namespace.make(ino, &format!("hit {number:04}"), FileKind::File, "");
                expected.push(format!("{folder}/hit {number:04}"));
            }
        }
        let (found, requests) = searched(&namespace, Ino::ROOT, "hit").await;
        assert!(found == expected, "{} of {} are found", found.len(), expected.len());
        assert!((3..=4).contains(&requests), "{requests} requests");
    }

    #[tokio::test(start_paused = true)]
    async fn folders_without_a_hit_are_searched_in_bounded_steps() {
        let namespace = Arc::<FakeNamespace>::default();
        for number in 0..ENOUGH_PAGES + 500 {
            let folder = namespace.make(Ino::ROOT, &format!("{number:05}"), FileKind::Directory, "");
            namespace.make(folder, "file", FileKind::File, "");
        }
        namespace.make(Ino::ROOT, "needle", FileKind::File, "");
        let first = service(&namespace).search(Ino::ROOT, &[], "needle").await.unwrap();
        assert!(first.found.is_empty() && first.next.is_some(), "{first:?}");
        assert_eq!(searched(&namespace, Ino::ROOT, "needle").await.0, ["needle"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_namespace_is_searched_step_by_step() {
        let namespace = Arc::<FakeNamespace>::default();
        let mut folder = Ino::ROOT;
        for _ in 0..10 {
            folder = namespace.make(folder, "down", FileKind::Directory, "");
        }
        namespace.make(folder, "needle", FileKind::File, "");
        namespace.answer_after(ENOUGH_TIME);
        let (found, requests) = searched(&namespace, Ino::ROOT, "needle").await;
        assert_eq!(found, ["down/".repeat(10) + "needle"]);
        assert!(requests >= 10, "{requests} requests");
    }
}
