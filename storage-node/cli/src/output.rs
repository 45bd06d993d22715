//! The runtime and the output functions of all commands.

use std::io::Write;

pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

pub fn write_out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (head, less) has closed the pipe.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Writes a line to standard error. A failure (a full disk, a closed pipe) is ignored: the exit code reports the error
/// too.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
