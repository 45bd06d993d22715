//! Paths and names in URIs, decoded and encoded. Names are bytes, so UTF-8 is not required.

use bytes::Bytes;
use chordfs_types::{
    chunk::NameError,
    namespace::{EntryName, FileKind},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The names of a path; repeated and trailing slashes are ignored. A `%2F` is a slash within a name, and so an error.
pub(super) fn decode_path(path: &str) -> Result<Vec<EntryName>, NameError> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| EntryName::new(decode(part))).collect()
}

/// First names of paths that have a meaning of their own on this port.
const ROUTES: [&[u8]; 3] = [b"api", b"chunks", b"upload"];

/// The path of an entry, with a leading slash. It is one that matches no route but that of files.
pub(super) fn encode_path<'a>(names: impl IntoIterator<Item = &'a EntryName>) -> String {
    let path: String = names.into_iter().map(|name| format!("/{}", encode(name.as_bytes()))).collect();
    let first = path.split('/').nth(1).unwrap_or_default();
    if ROUTES.contains(&first.as_bytes()) {
        return format!("/%{:02x}{}", first.as_bytes()[0], &path[2..]);
    }
    path
}

pub(super) fn encode(name: &[u8]) -> String {
    percent_encode(name, KEPT).to_string()
}

/// A path as people read it.
pub(super) fn shown(path: &[EntryName]) -> String {
    if path.is_empty() {
        return "/".into();
    }
    path.iter().map(|name| format!("/{name}")).collect()
}

/// A path below a folder as people read it.
pub(super) fn shown_below(path: &[EntryName]) -> String {
    path.iter().map(EntryName::to_string).collect::<Vec<_>>().join("/")
}

pub(super) fn folder_href(path: &[EntryName]) -> String {
    encode_path(path) + "/"
}

/// The path of the entry `below` the folder at `path`; that of a directory ends with a slash.
pub(super) fn entry_href(path: &[EntryName], below: &[EntryName], kind: FileKind) -> String {
    let href = encode_path(path.iter().chain(below));
    if kind == FileKind::Directory { href + "/" } else { href }
}

/// A path below a folder as the value of a query; [`path_value`] reads it.
pub(super) fn encode_below(path: &[EntryName]) -> String {
    let names: Vec<String> = path.iter().map(|name| encode(name.as_bytes())).collect();
    names.join("/")
}

/// The value of `key` in a query as the names of a path below a folder.
pub(super) fn path_value(query: Option<&str>, key: &str) -> Result<Option<Vec<EntryName>>, NameError> {
    let Some(value) = query_value(query, key) else { return Ok(None) };
    let names = value.split(|byte| *byte == b'/').map(|name| EntryName::new(value.slice_ref(name)));
    names.collect::<Result<_, _>>().map(Some)
}

/// The value of `key` in the query that a form makes, where a plus is a space.
pub(super) fn form_value(query: Option<&str>, key: &str) -> Option<String> {
    let query = query?.replace('+', " ");
    query_value(Some(&query), key).map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// The decoded value of `key` in a query.
pub(super) fn query_value(query: Option<&str>, key: &str) -> Option<Bytes> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).map(|(_, value)| decode(value))
}

fn decode(text: &str) -> Bytes {
    percent_decode_str(text).collect::<Vec<u8>>().into()
}
