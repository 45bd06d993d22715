//! Peers, files and timers cause any number of log lines only through the limited macros.

use crate::sources::production;

/// Rooms in which nearly everything happens for each request, file, chunk or look.
const LIMITED: [&str; 10] = [
    "common/net/src/",
    "fuse-client/src/fs/",
    "fuse-client/src/fuse",
    "fuse-client/src/transfer/",
    "storage-node/namespace/src/serve/",
    "storage-node/node/src/files/",
    "storage-node/node/src/http/",
    "storage-node/node/src/replica/",
    "storage-node/node/src/scrub/",
    "storage-node/store/src/",
];
/// Files whose plain lines are written once in a run, or once in days.
const EXCEPT: [&str; 5] =
    ["maintenance/recovery.rs", "http/open_files.rs", "http/server.rs", "scrub/pass.rs", "serve/root_owner.rs"];

/// 390 lines a minute while one node was dead, and 3 MB of them for 20,000 bad connections.
#[test]
fn log_lines_that_others_cause_are_limited() {
    let mut found = Vec::new();
    for file in production().iter().filter(|file| !file.is_test) {
        let path = file.path.to_string_lossy();
        let is_limited =
            LIMITED.iter().any(|room| path.starts_with(room)) && !EXCEPT.iter().any(|it| path.ends_with(it));
        for (number, line) in file.text.lines().enumerate().filter(|_| is_limited) {
            let is_plain = ["error!(", "warn!(", "info!("].iter().any(|call| line.contains(call));
            if is_plain && !line.trim_start().starts_with("//") {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "use error_limited!, warn_limited! or info_limited! here:\n{}", found.join("\n"));
}
