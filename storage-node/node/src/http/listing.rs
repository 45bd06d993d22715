//! A directory as a page for people or as JSON for programs, and the page with the upload form.

use axum::{
    Json,
    http::{HeaderMap, Uri, header},
    response::{Html, IntoResponse, Response},
};
use chordfs_types::namespace::{DirEntry, EntryName, FileKind, Ino};
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;

use super::{error::HttpError, files::FilesState, uri};
use crate::files::ListingPage;

/// One page of the directory `ino` at `path`, beginning after the name in the query's `after`.
pub(super) async fn list(
    files: &FilesState,
    path: &[EntryName],
    ino: Ino,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let after = uri::query_value(uri.query(), "after").map(EntryName::new).transpose()?;
    let page = files.service.list(ino, after).await?;
    if wants_json(headers) {
        let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return Ok((headers, Json(as_json(path, &page))).into_response());
    }
    Ok(page_response(as_page(path, &page)))
}

pub(super) async fn upload_form() -> Response {
    let form = html! {
        form method="post" action="/upload" enctype="multipart/form-data" {
            p { input type="file" name="files" multiple required; }
            p { button { "Upload" } }
        }
        p { "A file of the same name is replaced." }
        p { a href="/" { "All files" } }
    };
    page_response(frame("Upload", form))
}

/// A page without scripts, which no other site may show in a frame: its buttons change files.
fn page_response(page: Markup) -> Response {
    const POLICY: &str =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(page.into_string())).into_response()
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

fn as_json(path: &[EntryName], page: &ListingPage) -> JsonListing {
    let entry = |entry: &DirEntry| JsonEntry {
        name: entry.name.to_string(),
        href: href(path, entry),
        kind: kind(entry.attr.kind),
        size: entry.attr.size,
        mtime: entry.attr.mtime.secs,
    };
    JsonListing { path: shown(path), entries: page.entries.iter().map(entry).collect(), next: next_page(path, page) }
}

fn as_page(path: &[EntryName], page: &ListingPage) -> Markup {
    let body = html! {
        table {
            tr { th { "Name" } th { "Bytes" } th { "Kind" } }
            @if let Some((_, parents)) = path.split_last() {
                tr { td { a href=(directory_href(parents)) { ".." } } td {} td { "directory" } }
            }
            @for entry in &page.entries {
                tr {
                    td { a href=(href(path, entry)) { (entry.name) } }
                    td { @if entry.attr.kind == FileKind::File { (entry.attr.size) } }
                    td { (kind(entry.attr.kind)) }
                }
            }
        }
        @if let Some(next) = next_page(path, page) { p { a href=(next) { "More" } } }
        p { a href="/upload" { "Upload" } }
    };
    frame(&shown(path), body)
}

fn frame(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) " – chordfs" }
                style { "body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding-right:2em}" }
            }
            body { h1 { (title) } (body) }
        }
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json")
}

fn shown(path: &[EntryName]) -> String {
    if path.is_empty() {
        return "/".into();
    }
    path.iter().map(|name| format!("/{name}")).collect()
}

fn directory_href(path: &[EntryName]) -> String {
    uri::encode_path(path) + "/"
}

fn href(path: &[EntryName], entry: &DirEntry) -> String {
    let href = uri::encode_path(path.iter().chain([&entry.name]));
    if entry.attr.kind == FileKind::Directory { href + "/" } else { href }
}

fn next_page(path: &[EntryName], page: &ListingPage) -> Option<String> {
    let next = page.next.as_ref()?;
    Some(format!("{}?after={}", directory_href(path), uri::encode(next.as_bytes())))
}

fn kind(kind: FileKind) -> &'static str {
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
