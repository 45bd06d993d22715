//! The runtime and the output functions of all commands.

use std::io::Write;

/// With one thread for each core and at least two, because one may wait for a disk; unless another number is asked for.
pub fn runtime(threads: Option<usize>) -> std::io::Result<tokio::runtime::Runtime> {
    let each_core = || std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let threads = threads.unwrap_or_else(each_core);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
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
