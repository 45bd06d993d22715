//! `/etc/chordfs.conf`: what a mount is told when the command line names no SOURCE. TOML of one kind of line:
//!
//! ```text
//! # nodes, or the Auto Scaling group that they are in
//! ring = "asg:MyChordFileSystemASG"
//! ```
//! `ring` takes whatever SOURCE takes. Anything else in the file is a mistake, and told.

use std::{io, path::Path};

use crate::exit::MountError;

pub const PATH: &str = "/etc/chordfs.conf";
/// Another file instead.
pub const PATH_VARIABLE: &str = "CHORDFS_CONF";

/// What `ring` is set to; `None` without such a file, or line.
pub fn ring(path: &Path) -> Result<Option<String>, MountError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|wrong| MountError::usage(format!("{}: {wrong}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MountError::usage(format!("cannot read {}: {error}", path.display()))),
    }
}

fn parse(text: &str) -> Result<Option<String>, String> {
    let mut ring = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}; write ring = \"HOST,... or asg:GROUP\"", number + 1);
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("no NAME = VALUE"))?;
        if name.trim() != "ring" {
            return Err(wrong(&format!("there is no setting {:?}", name.trim())));
        }
        if ring.is_some() {
            return Err(wrong("ring for the second time"));
        }
        ring = Some(quoted(value.trim()).ok_or_else(|| wrong("the value is not in quotes"))?);
    }
    Ok(ring)
}

/// A comment may follow the closing quote.
fn quoted(value: &str) -> Option<String> {
    let (inside, after) = value.strip_prefix('"')?.split_once('"')?;
    let after = after.trim();
    (after.is_empty() || after.starts_with('#')).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_the_ring() {
        assert_eq!(parse("# mine\n\n ring = \"asg:G\" # or nodes\n"), Ok(Some("asg:G".to_owned())));
        assert_eq!(parse("ring=\"a,b:7\""), Ok(Some("a,b:7".to_owned())));
        assert_eq!(parse("# nothing\n"), Ok(None));
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, part) in [
            ("\nrings = \"a\"", "line 2: there is no setting \"rings\""),
            ("ring = a", "not in quotes"),
            ("ring = \"a\" b", "not in quotes"),
            ("ring", "no NAME"),
            ("ring = \"a\"\nring = \"b\"", "second time"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(part), "{wrong}");
        }
        let missing = ring(Path::new("/no/such/file"));
        assert_eq!(missing, Ok(None));
        assert!(ring(Path::new("/")).unwrap_err().message.contains("cannot read /"));
    }
}
