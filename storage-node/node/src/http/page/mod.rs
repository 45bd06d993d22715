//! The page for people: a folder with its files, search, upload and deletion.
//!
//! It is complete as it is sent; the script only adds uploads with progress and deletion. Script and style are part of
//! the page, and the browser runs no others: both carry a random number that the page's policy names.

use std::time::{Duration, UNIX_EPOCH};

use axum::response::{Html, IntoResponse, Response};
use chordfs_console::BASE_STYLE;
use chordfs_types::namespace::{EntryName, FileKind, Time};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    listing::{FolderPage, kind},
    page_headers::page_headers,
    stored_content, uri,
};
use crate::files::TreeEntry;

const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");
/// Larger images are not shown in the list.
const MAX_SHOWN_IMAGE_BYTES: u64 = 2 << 20;

pub(super) fn folder(listing: &FolderPage<'_>) -> Response {
    let body = html! {
        (breadcrumbs(listing.path))
        form method="get" role="search" {
            label for="search" { "Search this folder and all folders in it " }
            input type="search" id="search" name="search" value=(listing.search.unwrap_or_default());
            " " button { "Search" }
            @if listing.search.is_some() { " " a href=(uri::folder_href(listing.path)) { "Show all" } }
        }
        div #drop .drop data-script hidden {
            label for="picker" { "Upload: drop files anywhere on this page, or choose them " }
            input type="file" id="picker" multiple;
            p { "A file of the same name is replaced." }
        }
        ul #uploads {}
        p #status role="status" {}
        (entries(listing))
        @if let Some(href) = listing.next_href() { p { a rel="next" href=(href) { (next_text(listing)) } } }
        @if listing.path.is_empty() {
            noscript { p { a href="/upload" { "Upload" } } }
        }
    };
    respond(&uri::shown(listing.path), &uri::folder_href(listing.path), body)
}

pub(super) async fn upload_form() -> Response {
    let form = html! {
        h1 { "Upload" }
        form method="post" action="/upload" enctype="multipart/form-data" {
            p {
                label for="files" { "Files " }
                input type="file" id="files" name="files" multiple required;
            }
            p { button { "Upload" } }
        }
        p { "A file of the same name is replaced." }
        p { a href="/" { "All files" } }
    };
    respond("Upload", "/", form)
}

/// The path as a heading, in which each folder above is a link.
fn breadcrumbs(path: &[EntryName]) -> Markup {
    html! {
        nav aria-label="Folders" {
            h1 {
                @if path.is_empty() { "All files" } @else { a href="/" { "All files" } }
                @for depth in 1..=path.len() {
                    " / "
                    @if depth == path.len() { (path[depth - 1]) }
                    @else { a href=(uri::folder_href(&path[..depth])) { (path[depth - 1]) } }
                }
            }
        }
    }
}

fn entries(listing: &FolderPage<'_>) -> Markup {
    html! {
        @if listing.entries.is_empty() {
            p { (nothing_text(listing)) }
        } @else {
            table {
                thead {
                    tr {
                        th scope="col" { "Name" }
                        th scope="col" class="number" { "Size" }
                        th scope="col" class="time" { "Changed (UTC)" }
                        th scope="col" class="kind" { "Kind" }
                        th scope="col" { "Actions" }
                    }
                }
                tbody { @for entry in &listing.entries { (row(listing.path, entry)) } }
            }
        }
    }
}

fn nothing_text(listing: &FolderPage<'_>) -> &'static str {
    match (listing.search, &listing.next, listing.is_continued) {
        (Some(_), Some(_), _) => "No name matches so far.",
        (Some(_), None, true) => "No further name matches.",
        (Some(_), None, false) => "No name matches.",
        (None, _, true) => "This folder has no further entries.",
        (None, _, false) => "This folder is empty.",
    }
}

/// A search says how far it came: a large tree takes it several pages, some of them without a match.
fn next_text(listing: &FolderPage<'_>) -> String {
    match (listing.search, &listing.next) {
        (Some(_), Some(next)) => format!("Go on searching after {}", uri::shown_below(next)),
        _ => "More".into(),
    }
}

fn row(path: &[EntryName], entry: &TreeEntry) -> Markup {
    let href = uri::entry_href(path, &entry.path, entry.attr.kind);
    let name = uri::shown_below(&entry.path);
    let is_image = entry.path.last().is_some_and(stored_content::is_image);
    let is_file = entry.attr.kind == FileKind::File;
    let (exact, seen) = times(entry.attr.mtime);
    html! {
        tr {
            td {
                @if is_file && entry.attr.size <= MAX_SHOWN_IMAGE_BYTES && is_image {
                    img class="small" src=(href) alt="" loading="lazy";
                }
                a href=(href) { (name) @if entry.attr.kind == FileKind::Directory { "/" } }
            }
            td class="number" { @if is_file { span title={ (entry.attr.size) " bytes" } { (size(entry.attr.size)) } } }
            td class="time" { time datetime=(exact) { (seen) } }
            td class="kind" { (kind(entry.attr.kind)) }
            td class="actions" {
                @if is_file { a href=(href) download aria-label={ "Download " (name) } { "Download" } " " }
                button type="button" class="delete" data-script hidden data-href=(href) data-name=(name)
                    aria-label={ "Delete " (name) } { "Delete" }
            }
        }
    }
}

/// Sends a page that runs only its own script, and that no other site may show in a frame: its buttons change files.
fn respond(title: &str, folder: &str, body: Markup) -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – chordfs" }
                // Without an icon the browser would look for a file `favicon.ico`.
                link rel="icon" href="data:,";
                style nonce=(nonce) { (PreEscaped(BASE_STYLE)) (PreEscaped(STYLE)) }
            }
            body data-folder=(folder) {
                main { (body) }
                script nonce=(nonce) { (PreEscaped(SCRIPT)) }
            }
        }
    };
    let sources =
        format!("script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'");
    (page_headers(&sources), Html(page.into_string())).into_response()
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(6);
    format!("{:.1} {}", bytes as f64 / 1024_f64.powi(power as i32), UNITS[power as usize - 1])
}

/// A time for programs and for people. Times before 1970 are shown as 1970, those after 9999 as the end of it.
fn times(time: Time) -> (String, String) {
    const YEAR_9999: u64 = 253_402_300_799;
    let secs = u64::try_from(time.secs).unwrap_or(0).min(YEAR_9999);
    let exact = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(secs)).to_string();
    let seen = exact.replace('T', " ").trim_end_matches(":00Z").trim_end_matches('Z').to_owned();
    (exact, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 5 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB", "16.0 EiB"]);
    }

    #[test]
    fn times_of_any_file_are_shown() {
        let time = |secs| times(Time { secs, nanos: 0 }).1;
        assert_eq!(time(1_000_000_000), "2001-09-09 01:46:40");
        assert_eq!((time(i64::MIN).as_str(), time(i64::MAX).as_str()), ("1970-01-01 00:00", "9999-12-31 23:59:59"));
    }

    /// The page puts them between tags as they are.
    #[test]
    fn script_and_style_end_no_tag() {
        assert!(
            !SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !STYLE.contains('<') && !BASE_STYLE.contains('<')
        );
    }
}
