//! A directory as a page for people or as JSON for programs: its entries, or those in the whole tree below it whose
//! names contain a word.

use axum::{
    Json,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use chordfs_types::namespace::{EntryName, FileKind, Ino};
use serde::Serialize;

use super::{error::HttpError, files::FilesState, page, uri};
use crate::files::{FoundPage, ListingPage, TreeEntry, search::MAX_FOUND_PATH_BYTES};

/// A page of the entries of a folder, or of those that a search found below it.
pub(super) struct FolderPage<'a> {
    pub path: &'a [EntryName],
    /// Only names that contain this are listed, those of all folders below.
    pub search: Option<&'a str>,
    /// True if this is not the first page.
    pub is_continued: bool,
    pub entries: Vec<TreeEntry>,
    /// The path below the folder behind which the next page begins; `None` on the last one.
    pub next: Option<Vec<EntryName>>,
}

/// One page of the directory `ino` at `path`, beginning behind the name, or for a search the path, in the query's
/// `after`.
pub(super) async fn list(
    files: &FilesState,
    path: &[EntryName],
    ino: Ino,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let search = uri::form_value(uri.query(), "search").filter(|word| !word.is_empty());
    let after = after(uri, search.is_some())?;
    let is_continued = after.is_some();
    let page = match &search {
        Some(word) => files.service.search(ino, &after.unwrap_or_default(), word).await?,
        None => plain(files.service.list(ino, after.and_then(|mut names| names.pop())).await?),
    };
    let search = search.as_deref();
    let listing = FolderPage { path, search, is_continued, entries: page.found, next: page.next };
    if wants_json(headers) {
        let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return Ok((headers, Json(listing.as_json())).into_response());
    }
    Ok(page::folder(&listing))
}

/// The names in the query's `after`: of a search any path, otherwise one name.
fn after(uri: &Uri, is_search: bool) -> Result<Option<Vec<EntryName>>, HttpError> {
    if !is_search {
        let name = uri::query_value(uri.query(), "after").map(EntryName::new).transpose();
        return Ok(name.map_err(|error| HttpError::from(error).about("after"))?.map(|name| vec![name]));
    }
    let names = uri::path_value(uri.query(), "after").map_err(|error| HttpError::from(error).about("after"))?;
    let bytes = names.iter().flatten().map(|name| name.as_bytes().len() + 1).sum::<usize>();
    if bytes > MAX_FOUND_PATH_BYTES + 1 {
        let text = format!("after: a search goes on behind a path of {MAX_FOUND_PATH_BYTES} bytes at most");
        return Err(HttpError::bad_request(text));
    }
    Ok(names)
}

fn plain(page: ListingPage) -> FoundPage {
    let found = page.entries.into_iter().map(|entry| TreeEntry { path: vec![entry.name], attr: entry.attr });
    FoundPage { found: found.collect(), next: page.next.map(|name| vec![name]) }
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
    /// For a search the path below the folder. Bytes that are not UTF-8 are replaced here, and kept in `href`.
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
        let next = uri::encode_below(self.next.as_ref()?);
        let search = self.search.map(|word| format!("&search={}", uri::encode(word.as_bytes()))).unwrap_or_default();
        Some(format!("{}?after={next}{search}", uri::folder_href(self.path)))
    }

    fn as_json(&self) -> JsonListing {
        let entry = |entry: &TreeEntry| JsonEntry {
            name: uri::shown_below(&entry.path),
            href: uri::entry_href(self.path, &entry.path, entry.attr.kind),
            kind: kind(entry.attr.kind),
            size: entry.attr.size,
            mtime: entry.attr.mtime.secs,
        };
        let entries = self.entries.iter().map(entry).collect();
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
