//! `/etc/chordfs.conf`, which a mount reads when neither the command line nor the environment names a SOURCE. TOML with
//! one key:
//!
//! ```text
//! # a list of nodes, or their Auto Scaling group
//! ring = "asg:MyChordFileSystemASG"
//! ```
//! `ring` has the syntax of SOURCE. Any other key is an error.

use std::{io, path::Path};

use serde::Deserialize;

use crate::exit::MountError;

pub const PATH: &str = "/etc/chordfs.conf";
/// The environment variable that names another file to read instead.
pub const PATH_VARIABLE: &str = "CHORDFS_CONF";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    ring: Option<String>,
}

/// Reads the value of `ring`; `None` if there is no such file or key.
pub fn ring(path: &Path) -> Result<Option<String>, MountError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|wrong| MountError::usage(format!("{}: {wrong}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MountError::usage(format!("cannot read {}: {error}", path.display()))),
    }
}

fn parse(text: &str) -> Result<Option<String>, String> {
    toml::from_str(text).map(|file: ConfigFile| file.ring).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}; write ring = \"HOST,... or asg:GROUP\"", error.message())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_ring_is_read() {
        assert_eq!(parse("# mine\n\n ring = \"asg:G\" # or nodes\n"), Ok(Some("asg:G".to_owned())));
        assert_eq!(parse("ring=\"a,b:7\""), Ok(Some("a,b:7".to_owned())));
        assert_eq!(parse("# nothing\r\n\r\n"), Ok(None));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn errors_are_reported_with_their_line() {
        for (text, part) in [
            ("\nrings = \"a\"", "line 2: unknown field `rings`"),
            ("# x\nring = a", "line 2: "),
            ("ring = 7", "line 1: invalid type: integer `7`, expected a string"),
            ("ring = \"a\" b", "line 1: "),
            ("ring", "line 1: "),
            ("ring = \"a\"\nring = \"b\"", "line 2: duplicate key"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(part) && wrong.contains("write ring = \""), "{text:?}: {wrong}");
        }
        let missing = ring(Path::new("/no/such/file"));
        assert_eq!(missing, Ok(None));
        assert!(ring(Path::new("/")).unwrap_err().message.contains("cannot read /"));
    }
}
