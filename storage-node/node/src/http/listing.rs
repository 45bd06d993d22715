//! A directory as a page for people or as JSON for programs, whole or with the names that contain a word.

use axum::{
    Json,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use chordfs_types::{
    fs_error::FsError,
    namespace::{DirEntry, EntryName, FileKind, Ino},
};
use serde::Serialize;

use super::{error::HttpError, files::FilesState, page, uri};
use crate::files::{FileService, ListingPage};

/// A search looks at this many pages of the directory at most; the next page continues it.
const SEARCHED_PAGES: usize = 16;
/// A search returns when it has found this many.
const ENOUGH_FOUND: usize = 1000;

/// A page of a directory's entries.
pub(super) struct FolderPage<'a> {
    pub path: &'a [EntryName],
    /// Only names that contain this are listed.
    pub search: Option<&'a str>,
    pub page: ListingPage,
}

/// One page of the directory `ino` at `path`, beginning after the name in the query's `after`.
pub(super) async fn list(
    files: &FilesState,
    path: &[EntryName],
    ino: Ino,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let after = uri::query_value(uri.query(), "after").map(EntryName::new).transpose()?;
    let search = uri::form_value(uri.query(), "search").filter(|word| !word.is_empty());
    let page = match &search {
        Some(word) => find(&files.service, ino, after, word).await?,
        None => files.service.list(ino, after).await?,
    };
    let listing = FolderPage { path, search: search.as_deref(), page };
    if wants_json(headers) {
        let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return Ok((headers, Json(listing.as_json())).into_response());
    }
    Ok(page::folder(&listing))
}

/// The entries whose names contain `word`; upper and lower case are alike.
async fn find(
    service: &FileService,
    ino: Ino,
    mut after: Option<EntryName>,
    word: &str,
) -> Result<ListingPage, FsError> {
    let word = word.to_lowercase();
    let mut entries = Vec::new();
    for _ in 0..SEARCHED_PAGES {
        let page = service.list(ino, after.take()).await?;
        entries.extend(page.entries.into_iter().filter(|entry| entry.name.to_string().to_lowercase().contains(&word)));
        after = page.next;
        if after.is_none() || entries.len() >= ENOUGH_FOUND {
            break;
        }
    }
    Ok(ListingPage { entries, next: after })
}

#[derive(Serialize)]
struct JsonListing {
    path: String,
    entries: Vec<JsonEntry>,
    /// The path and query of the next page; `null` on the last one.
    next: Option<String>,
}

#[derive(Serialize)]
struct JsonEntry {
    /// Bytes that are not UTF-8 are replaced here, and kept in `href`.
    name: String,
    href: String,
    kind: &'static str,
    /// Bytes.
    size: u64,
    /// Seconds since 1970.
    mtime: i64,
}

impl FolderPage<'_> {
    /// The path and query of the next page.
    pub(super) fn next_href(&self) -> Option<String> {
        let next = self.page.next.as_ref()?;
        let search = self.search.map(|word| format!("&search={}", uri::encode(word.as_bytes()))).unwrap_or_default();
        Some(format!("{}?after={}{search}", uri::folder_href(self.path), uri::encode(next.as_bytes())))
    }

    fn as_json(&self) -> JsonListing {
        let entry = |entry: &DirEntry| JsonEntry {
            name: entry.name.to_string(),
            href: uri::entry_href(self.path, entry),
            kind: kind(entry.attr.kind),
            size: entry.attr.size,
            mtime: entry.attr.mtime.secs,
        };
        let entries = self.page.entries.iter().map(entry).collect();
        JsonListing { path: uri::shown(self.path), entries, next: self.next_href() }
    }
}

/// What a kind of entry is called.
pub(super) fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json")
}
