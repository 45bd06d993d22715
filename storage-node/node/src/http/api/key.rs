//! Keys: paths in the namespace, from the root, with or without a slash in front.

use chordfs_types::namespace::EntryName;

use crate::http::error::HttpError;

/// The longest key that an upload may have. A mount can make longer paths; these can be read.
pub(super) const MAX_NEW_KEY_BYTES: usize = 1024;
/// How much of a key an error shows.
const SHOWN_BYTES: usize = 100;

pub(super) fn parse(key: &[u8]) -> Result<Vec<EntryName>, HttpError> {
    let names = key.strip_prefix(b"/").unwrap_or(key);
    if names.is_empty() {
        return Err(HttpError::bad_request("the key is empty; a key is the path of a file, such as docs/report.pdf"));
    }
    if names.ends_with(b"/") {
        return Err(
            HttpError::bad_request("the key ends with a slash; a key names a file, not a folder").about(&shown(key))
        );
    }
    let name = |name: &[u8]| EntryName::new(name.to_vec()).map_err(|error| HttpError::from(error).about(&shown(key)));
    names.split(|byte| *byte == b'/').map(name).collect()
}

/// The key as an error names it.
pub(super) fn shown(key: &[u8]) -> String {
    match key.get(..SHOWN_BYTES) {
        Some(start) if key.len() > SHOWN_BYTES => format!("key {}...", String::from_utf8_lossy(start)),
        _ => format!("key {}", String::from_utf8_lossy(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path_of_names() {
        for (key, expected) in [
            (&b"a"[..], Ok(1)),
            (b"/a/b c/\xff", Ok(3)),
            (b"...", Ok(1)),
            (b"", Err("empty")),
            (b"/", Err("empty")),
            (b"a/", Err("ends with a slash")),
            (b"a//b", Err("the name is empty")),
            (b"//a", Err("the name is empty")),
            (b"../a", Err("`.` and `..`")),
            (b"a/../b", Err("`.` and `..`")),
            (b"a/.", Err("`.` and `..`")),
            (b"a\0b", Err("NUL")),
            (&[b'k'; 4000], Err("4000 bytes")),
        ] {
            match (parse(key), expected) {
                (Ok(names), Ok(count)) => assert_eq!(names.len(), count),
                (Err(error), Err(about)) => {
                    assert!(error.status == 400 && error.text.contains(about) && error.text.len() < 300, "{error:?}");
                }
                (result, _) => panic!("{result:?} for {}", shown(key)),
            }
        }
    }
}
