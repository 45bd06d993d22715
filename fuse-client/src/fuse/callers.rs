//! When did the system call begin to which a request belongs? The kernel turns one system call into several requests,
//! and starts a request only when it has the lock of the folder. While the ring is away, a program would wait for the
//! deadline once for each of them: an `open` looks a name up again after the first look-up has failed, and the fifth of
//! five programs that create files in one folder waits for the four before it.
//!
//! So a request that arrives just after a failed one of its thread belongs to the same call, and one that arrives just
//! after a failed one in its folder has waited for it. Both share its beginning. A call that began later, because the
//! thread did not exist before or has received a failure since, keeps its full deadline. Pure: the times come from the
//! caller.

use std::{collections::HashMap, time::Duration};

use chordfs_types::namespace::Ino;

/// The kernel sends the next request of a call, or of the next call in a folder, within this time.
const JUST_AFTER: Duration = Duration::from_secs(1);
/// Failures that were noticed earlier than this have no effect any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// The unit of times in /proc, the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// A thread of a program, by the number that the kernel sends with each request.
pub(super) type ThreadId = u32;

/// The number of every thread that the mount's process cannot see: a kernel thread, or one outside of its container.
const UNSEEN: ThreadId = 0;

/// A request that the ring did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailedRequest {
    begun: Duration,
    failed: Duration,
    /// It has already shared the beginning of another request of its thread.
    continued: bool,
}

/// When a request arrived, and when the call began to which it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestTimes {
    pub begun: Duration,
    pub arrived: Duration,
    /// It follows another request of its thread.
    continues: bool,
}

#[derive(Debug, Default)]
pub(super) struct Callers {
    by_thread: HashMap<ThreadId, FailedRequest>,
    by_inode: HashMap<Ino, FailedRequest>,
}

impl Callers {
    /// Notes that a request arrives `now`. `inodes` are those whose locks it may have waited for. `started` returns
    /// when a thread was started. All times are since boot.
    pub(super) fn begin(
        &self,
        thread: ThreadId,
        inodes: &[Ino],
        now: Duration,
        started: impl FnOnce(ThreadId) -> Option<Duration>,
    ) -> RequestTimes {
        let just = |request: &&FailedRequest| now.saturating_sub(request.failed) < JUST_AFTER;
        let earlier = self.by_thread.get(&thread);
        if let Some(first) = earlier.filter(just).filter(|request| !request.continued) {
            return RequestTimes { begun: first.begun, arrived: now, continues: true };
        }
        let before = inodes.iter().filter_map(|ino| self.by_inode.get(ino)).filter(just);
        let begun = before.map(|request| request.begun).min().map_or(now, |begun| {
            let earliest = earlier.map(|request| request.failed).or_else(|| started(thread));
            begun.max(earliest.unwrap_or(now))
        });
        RequestTimes { begun, arrived: now, continues: false }
    }

    /// Notes that a request fails `now` because the ring has not answered it.
    pub(super) fn note_failure(&mut self, thread: ThreadId, inodes: &[Ino], times: RequestTimes, now: Duration) {
        let is_recent = |request: &FailedRequest| now.saturating_sub(request.failed) < FORGOTTEN_AFTER;
        self.by_thread.retain(|_, request| is_recent(request));
        self.by_inode.retain(|_, request| is_recent(request));
        let request = FailedRequest { begun: times.begun, failed: now, continued: times.continues };
        if thread != UNSEEN {
            self.by_thread.insert(thread, request);
        }
        self.by_inode.extend(inodes.iter().map(|ino| (*ino, request)));
    }
}

/// When a thread was started, since boot; `None` if that cannot be found out.
pub(super) fn thread_start(thread: ThreadId) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The program's name, in parentheses, may contain anything. The start is the 20th field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use chordfs_net::boot_clock::since_boot;

    use super::*;

    const FOLDER: Ino = Ino(5);
    const OTHER: Ino = Ino(6);

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Begins a request of a thread that exists since second 1, and fails it at `failed`. Returns the beginning.
    fn fail(callers: &mut Callers, thread: ThreadId, ino: Ino, arrived: f64, failed: f64) -> Duration {
        let times = callers.begin(thread, &[ino], secs(arrived), |_| Some(secs(1.0)));
        callers.note_failure(thread, &[ino], times, secs(failed));
        times.begun
    }

    /// An `open` looked its name up twice, for 30 s each.
    #[test]
    fn the_next_request_of_a_call_shares_its_beginning_and_the_next_call_does_not() {
        let mut callers = Callers::default();
        assert_eq!(fail(&mut callers, 1, FOLDER, 10.0, 40.0), secs(10.0));
        assert_eq!(fail(&mut callers, 1, FOLDER, 40.01, 40.02), secs(10.0));
        assert_eq!(fail(&mut callers, 1, FOLDER, 40.03, 70.0), secs(40.02), "the program has received the error");
        assert_eq!(fail(&mut callers, 1, FOLDER, 70.01, 70.02), secs(40.02), "the second request of the next call");
        assert_eq!(callers.begin(1, &[FOLDER], secs(75.0), |_| None).begun, secs(75.0), "much later");
    }

    /// When five programs created files in one folder, the last one waited for 5 times 30 s.
    #[test]
    fn calls_that_waited_for_the_folder_share_the_beginning_of_the_first() {
        let mut callers = Callers::default();
        fail(&mut callers, 1, FOLDER, 10.0, 40.0);
        assert_eq!(fail(&mut callers, 2, FOLDER, 40.01, 40.1), secs(10.0));
        assert_eq!(fail(&mut callers, 3, FOLDER, 40.2, 40.3), secs(10.0), "it waited for the second");
        assert_eq!(callers.begin(4, &[OTHER], secs(40.3), |_| Some(secs(1.0))).begun, secs(40.3), "another folder");
        assert_eq!(callers.begin(4, &[FOLDER], secs(40.3), |_| Some(secs(40.2))).begun, secs(40.2), "a new thread");
        assert_eq!(callers.begin(4, &[FOLDER], secs(60.0), |_| Some(secs(1.0))).begun, secs(60.0), "much later");
    }

    #[test]
    fn threads_that_cannot_be_told_apart_keep_their_full_deadlines() {
        let mut callers = Callers::default();
        fail(&mut callers, UNSEEN, FOLDER, 10.0, 40.0);
        assert_eq!(callers.begin(UNSEEN, &[OTHER], secs(40.01), |_| None).begun, secs(40.01));
    }

    #[test]
    fn failures_are_forgotten() {
        let mut callers = Callers::default();
        fail(&mut callers, 1, FOLDER, 10.0, 40.0);
        fail(&mut callers, 2, OTHER, 300.0, 330.0);
        assert_eq!((callers.by_thread.len(), callers.by_inode.len()), (1, 1));
    }

    #[test]
    fn the_start_of_a_thread_is_known() {
        let before = since_boot();
        let thread = std::thread::spawn(|| thread_start(nix::unistd::gettid().as_raw() as ThreadId));
        let start = thread.join().expect("no panic").expect("this thread exists");
        let tick = secs(0.05);
        assert!(start + tick >= before && start <= since_boot() + tick, "{start:?}, not after {before:?}");
    }
}
