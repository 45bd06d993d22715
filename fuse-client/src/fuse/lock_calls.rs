//! The kernel's requests for locks. fuser does not pass on whether it was flock(2) that asked, nor that a signal has
//! come for a program that waits. Both are read from /proc.

use std::fs;

use chordfs_types::namespace::{LockKind, LockRange, LockSpace};
use fuser::LockOwner;

use super::callers::ThreadId;

/// The numbers of flock(2) for programs of this machine, and for programs of 32 bits on it.
#[cfg(target_arch = "x86_64")]
const FLOCK: [&str; 2] = ["73", "143"];
#[cfg(not(target_arch = "x86_64"))]
const FLOCK: [&str; 2] = ["32", "143"];
/// The call of a thread is shown only while it sleeps, which it does as soon as its request is sent.
const TRIES: usize = 100;

/// The last byte that a lock can have, which stands for the end of the file.
pub(super) const LAST_BYTE: u64 = i64::MAX as u64;

/// The range of a lock. Only one of the whole file may be by flock(2), which has locks of its own.
pub(super) fn lock_range(thread: u32, LockOwner(owner): LockOwner, first: u64, last: u64) -> LockRange {
    let is_whole = first == 0 && last >= LAST_BYTE;
    let space = if is_whole && is_in_flock(thread) { LockSpace::WholeFile } else { LockSpace::Ranges };
    LockRange { owner, space, first, last }
}

/// `None` for what is no lock.
pub(super) fn lock_kind(kind: i32) -> Option<LockKind> {
    match kind {
        libc::F_RDLCK => Some(LockKind::Shared),
        libc::F_WRLCK => Some(LockKind::Exclusive),
        _ => None,
    }
}

pub(super) fn lock_type(kind: LockKind) -> i32 {
    match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    }
}

/// Whether the thread is in flock(2). If that cannot be found out it counts as fcntl(2), as with NFS: the two kinds of
/// locks then exclude each other.
fn is_in_flock(thread: ThreadId) -> bool {
    for _ in 0..TRIES {
        match fs::read_to_string(format!("/proc/{thread}/syscall")) {
            Ok(call) if call.starts_with("running") => std::thread::yield_now(),
            Ok(call) => return call.split_whitespace().next().is_some_and(|number| FLOCK.contains(&number)),
            Err(_) => return false,
        }
    }
    false
}

/// Signals that stop a program or let it go on: afterwards it waits as before.
const STOPPING: u64 =
    bit(libc::SIGSTOP) | bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU) | bit(libc::SIGCONT);

/// The bit of a signal in the masks of /proc.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether a signal waits for the thread that it does not block. A thread that cannot be seen is not interrupted, and
/// one that is gone is.
pub(super) fn is_interrupted(thread: ThreadId) -> bool {
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => has_signal(&status),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound && thread != 0,
    }
}

fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") & !STOPPING != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_interrupts_unless_it_is_blocked() {
        let status = |pending: &str, shared: &str, blocked: &str| {
            format!("Name:\tcat\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\nSigIgn:\t00\n")
        };
        assert!(!has_signal(&status("0000000000000000", "0000000000000000", "0000000000000000")));
        assert!(has_signal(&status("0000000000000100", "0000000000000000", "0000000000000000")));
        assert!(has_signal(&status("0000000000000000", "0000000000004000", "0000000000000000")));
        assert!(!has_signal(&status("0000000000000000", "0000000000004000", "0000000000004000")));
        assert!(!has_signal(&status("0000000000040000", "0000000000080000", "0000000000000000")), "it is only stopped");
        assert!(!has_signal(""));
    }

    #[test]
    fn this_thread_is_in_no_flock_and_not_interrupted() {
        let thread = nix::unistd::gettid().as_raw() as ThreadId;
        assert!(!is_in_flock(thread) && !is_interrupted(thread));
        assert!(is_interrupted(u32::MAX >> 2));
    }
}
