//! Headers of stored content, which comes from anyone and must not run as script where the node's own pages live.
//!
//! Only types that contain no scripts are displayed; everything else is saved (`attachment`). A browser keeps to the
//! type (`nosniff`), so no stored file is a script or a style sheet either, and should it display one as a page
//! nevertheless, that page has no origin, no scripts and no requests (`sandbox`).

use axum::http::{HeaderName, header};
use chordfs_types::namespace::EntryName;

const SANDBOX: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'";
/// Browsers show a PDF in a page of their own, which they refuse to do in a sandbox.
const PDF_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const PDF: &str = "application/pdf";

/// How a browser is to treat a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    Display(&'static str),
    Save(&'static str),
}

/// The type of the file at `path`, and how a browser is to treat it.
pub(super) fn headers(path: &[EntryName]) -> Vec<(HeaderName, &'static str)> {
    let (content_type, disposition) = match treatment(path.last().map_or(&[][..], EntryName::as_bytes)) {
        Treatment::Display(content_type) => (content_type, "inline"),
        Treatment::Save(content_type) => (content_type, "attachment"),
    };
    let policy = if content_type == PDF { PDF_POLICY } else { SANDBOX };
    vec![
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_DISPOSITION, disposition),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ]
}

/// Whether a browser can show the file of this name within a page.
pub(super) fn is_image(name: &EntryName) -> bool {
    let (Treatment::Display(content_type) | Treatment::Save(content_type)) = treatment(name.as_bytes());
    content_type.starts_with("image/")
}

fn treatment(name: &[u8]) -> Treatment {
    use Treatment::{Display, Save};
    let extension = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    match &extension.to_ascii_lowercase()[..] {
        b"txt" | b"md" | b"log" | b"csv" => Display("text/plain; charset=utf-8"),
        b"json" => Display("application/json"),
        b"png" => Display("image/png"),
        b"jpg" | b"jpeg" => Display("image/jpeg"),
        b"gif" => Display("image/gif"),
        b"webp" => Display("image/webp"),
        b"avif" => Display("image/avif"),
        b"bmp" => Display("image/bmp"),
        b"mp3" => Display("audio/mpeg"),
        b"ogg" => Display("audio/ogg"),
        b"flac" => Display("audio/flac"),
        b"wav" => Display("audio/wav"),
        b"mp4" | b"m4v" => Display("video/mp4"),
        b"webm" => Display("video/webm"),
        b"pdf" => Display(PDF),
        b"html" | b"htm" => Save("text/html"),
        b"xhtml" | b"xht" => Save("application/xhtml+xml"),
        // Within a page, as an image, an SVG runs no scripts.
        b"svg" => Save("image/svg+xml"),
        b"xml" | b"xsl" | b"xslt" => Save("application/xml"),
        _ => Save("application/octet-stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Treatment {
        treatment(name.as_bytes())
    }

    #[test]
    fn what_can_contain_a_script_is_saved_and_not_displayed() {
        for name in
            ["a.html", "a.HTM", "a.svg", "a.SVG", "a.xml", "a.xhtml", "a.xsl", "a.js", "a.css", "a.swf", "html", "a"]
        {
            assert!(matches!(of(name), Treatment::Save(_)), "{name}");
        }
        for name in ["a.PNG", "b.txt", "c.tar.jpeg", "d.pdf"] {
            assert!(matches!(of(name), Treatment::Display(_)), "{name}");
        }
        assert_eq!(
            of("a.js"),
            Treatment::Save("application/octet-stream"),
            "a type with which no browser runs scripts"
        );
    }
}
