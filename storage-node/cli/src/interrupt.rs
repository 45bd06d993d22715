//! Ctrl-C in a command that only watches: the command prints what continues without it, then ends by the signal.
//!
//! It ends by the signal and not with an exit code, so that a shell's loop over nodes ends too instead of draining the
//! next node. A handler, such as tokio's, would replace the signal's default action, and would also catch the SIGINT
//! that a background job ignores. So there is no handler: the signal is blocked, and a thread waits for it.

use std::{io::IsTerminal, thread};

use nix::sys::signal::{SigSet, Signal, raise};

use crate::output::complain;

/// Prints `farewell` on Ctrl-C, and ends the process. Must be called before other threads start, because they inherit
/// the blocked SIGINT.
pub(crate) fn report_on_interrupt(farewell: String) -> nix::Result<()> {
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_block()?;
    thread::spawn(move || {
        if interrupt.wait().is_ok() {
            // On a terminal the cursor is behind a progress bar.
            let new_line = if std::io::stderr().is_terminal() { "\n" } else { "" };
            complain(&format!("{new_line}{farewell}"));
            let ended = interrupt.thread_unblock().and_then(|()| raise(Signal::SIGINT));
            ended.expect("a signal may be unblocked and raised");
        }
    });
    Ok(())
}
