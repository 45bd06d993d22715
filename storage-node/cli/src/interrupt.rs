//! Ctrl-C at a command that only watches: it says what goes on without it, then ends as any program does.
//!
//! Ended by the signal itself and not with a code, so that a shell's loop over nodes ends with it instead of draining the
//! next one. That needs the signal's own way, which a caught signal does not have any more; so it is not caught, but
//! waited for by a thread.

use std::thread;

use nix::sys::signal::{SigSet, Signal, raise};

/// To be called before there are other threads: they inherit that SIGINT is left to the one that waits for it.
pub fn say_on_interrupt(last_words: String) -> nix::Result<()> {
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_block()?;
    thread::spawn(move || {
        if interrupt.wait().is_ok() {
            eprintln!("{last_words}");
            let ended = interrupt.thread_unblock().and_then(|()| raise(Signal::SIGINT));
            ended.expect("a signal may be let in and raised");
        }
    });
    Ok(())
}
