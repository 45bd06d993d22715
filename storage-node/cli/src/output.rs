//! What every command needs to run and to print.

use std::io::Write;

pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

pub fn write_out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (head, less) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Writes a line to standard error. Its failure (a full disk, a closed pipe) is ignored: the exit code reports it too.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
