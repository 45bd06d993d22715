//! Ctrl-C at a command that only watches: the command prints what continues without it, then ends as any program does.
//!
//! It ends by the signal and not with an exit code, so that a shell's loop over nodes ends with it instead of draining
//! the next node. A handler, tokio's included, replaces the signal's default action and would also undo that SIGINT is
//! ignored in a background job; so there is none, and a thread waits for the blocked signal.

use std::{io::IsTerminal, thread};

use nix::sys::signal::{SigSet, Signal, raise};

use crate::output::complain;

/// To be called before there are other threads: they inherit that SIGINT is left to the thread that waits for it.
pub(crate) fn report_on_interrupt(last_words: String) -> nix::Result<()> {
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_block()?;
    thread::spawn(move || {
        if interrupt.wait().is_ok() {
            // On a terminal the cursor stands behind a progress bar.
            let new_line = if std::io::stderr().is_terminal() { "\n" } else { "" };
            complain(&format!("{new_line}{last_words}"));
            let ended = interrupt.thread_unblock().and_then(|()| raise(Signal::SIGINT));
            ended.expect("a signal may be unblocked and raised");
        }
    });
    Ok(())
}
