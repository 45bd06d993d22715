//! Logs that outlive a failed test: the end of each is printed on stderr. If CHORDFS_TEST_KEEP names a folder, the
//! whole logs are written to it, after a success as well.

use std::{fs, path::Path};

/// Whether a test that ends now must leave its logs.
pub(crate) fn are_wanted() -> bool {
    std::thread::panicking() || std::env::var_os("CHORDFS_TEST_KEEP").is_some()
}

/// Prints the end of a log and keeps the whole one. A device such as /dev/full has no end. `name` is unique in the test
/// process.
pub(crate) fn show(what: &str, log: &Path, name: &str) {
    if !log.is_file() {
        return eprintln!("--- {what} logs to a device");
    }
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let tail: Vec<_> = text.lines().rev().take(40).collect();
    eprintln!("--- the end of {what}'s log");
    tail.iter().rev().for_each(|line| eprintln!("{line}"));
    if let Some(folder) = std::env::var_os("CHORDFS_TEST_KEEP") {
        let to = Path::new(&folder).join(format!("{}-{name}.log", std::process::id()));
        let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&to, text));
        eprintln!(
            "--- the whole log: {} {}",
            to.display(),
            kept.err().map(|error| error.to_string()).unwrap_or_default()
        );
    }
}
