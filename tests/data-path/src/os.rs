//! The two things that a program takes from the operating system and that differ from run to run: the time and random
//! bytes. In a thread that runs a simulation both come from the simulation; everywhere else they stay as they are.
//!
//! `std` and the crates call the C library's `clock_gettime` and `getrandom`. Functions of these names in this program
//! take the library's place when it is linked. So `Instant::now`, `SystemTime::now` and the boot clock follow tokio's
//! paused clock, and the order in which hash tables are walked follows from the seed.

use std::{
    cell::Cell,
    fs::File,
    io::{Read, Write},
    os::fd::FromRawFd,
};

use tokio::time::Instant;

use crate::random::Random;

/// What all clocks show when a simulation begins. It must be smaller than the machine's own monotonic clock: tokio
/// parks its thread until the past then, so it never waits.
const START_SECS: i64 = 1000;
/// What the wall clock shows beyond that.
const WALL_SECS: i64 = 1_900_000_000;

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    /// How far the wall clock is off for the code that runs now, in seconds.
    static CLOCK_OFFSET: Cell<i64> = const { Cell::new(0) };
    /// Set while the time is being asked for, as tokio may ask for the real one.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// From now on random bytes in this thread follow from `seed`.
pub(crate) fn seed_randomness(seed: u64) {
    SEED.set(Some(seed));
}

/// From now on clocks in this thread follow tokio's. Called within a runtime whose clock is paused.
pub(crate) fn follow_virtual_time() {
    START.set(Some(Instant::now()));
}

/// Runs `work` with a wall clock that is off by this many seconds.
pub(crate) fn with_clock_offset(secs: i64, work: impl FnOnce()) {
    let before = CLOCK_OFFSET.replace(secs);
    work();
    CLOCK_OFFSET.set(before);
}

/// Clocks in this thread are real again.
pub(crate) fn leave_virtual_time() {
    START.set(None);
}

fn virtual_time(clock: libc::clockid_t) -> Option<libc::timespec> {
    let start = START.try_with(Cell::get).ok().flatten()?;
    if ASKING.replace(true) {
        return None;
    }
    let elapsed = Instant::now().saturating_duration_since(start);
    ASKING.set(false);
    let base = if clock == libc::CLOCK_REALTIME { WALL_SECS + CLOCK_OFFSET.get() } else { START_SECS };
    Some(libc::timespec { tv_sec: base + elapsed.as_secs() as i64, tv_nsec: i64::from(elapsed.subsec_nanos()) })
}

/// # Safety
/// As the C library's: `time` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    match virtual_time(clock) {
        // SAFETY: the caller promises that it may be written.
        Some(now) => unsafe {
            time.write(now);
            0
        },
        // SAFETY: the arguments are handed on as they came.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

/// # Safety
/// As the C library's: `bytes` points to `len` bytes that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(bytes: *mut u8, len: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let Some(seed) = SEED.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the arguments are handed on as they came.
        return unsafe { libc::syscall(libc::SYS_getrandom, bytes, len, flags) as libc::ssize_t };
    };
    if len == 0 {
        // A look whether there is such a function, once in a program.
        return 0;
    }
    let mut random = Random::new(seed, len as u64);
    // SAFETY: the caller promises that these may be written.
    let bytes = unsafe { std::slice::from_raw_parts_mut(bytes, len) };
    for byte in bytes.iter_mut() {
        *byte = random.next() as u8;
    }
    SEED.set(Some(random.next()));
    len as libc::ssize_t
}

/// A run takes about a second; a child that takes so long hangs.
const LONGEST_CHILD_SECONDS: u32 = 300;

/// Runs `work` in a child process and returns what it returns; `None` if the child dies. The child begins with the
/// state that this process has, so what a run leaves behind (tokio counts its runtimes, and seeds its own random
/// numbers by that) touches no other.
pub(crate) fn in_child(work: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return None;
    }
    // SAFETY: both are open, and nothing else owns them.
    let (mut read, mut write) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    // SAFETY: the child uses memory, threads of its own and the pipe; the C library keeps its allocator usable.
    match unsafe { libc::fork() } {
        -1 => None,
        0 => {
            // SAFETY: it only makes the kernel end this child if it hangs.
            unsafe { libc::alarm(LONGEST_CHILD_SECONDS) };
            let answer = work();
            let written = write.write_all(&answer.len().to_le_bytes()).and_then(|()| write.write_all(&answer));
            // SAFETY: it ends the child without running what is registered for the parent's end.
            unsafe { libc::_exit(written.is_err().into()) }
        }
        child => {
            drop(write);
            let answer = read_answer(&mut read);
            let mut status = 0;
            // SAFETY: the status may be written, and the child is ours.
            unsafe { libc::waitpid(child, &mut status, 0) };
            answer.ok().filter(|_| status == 0)
        }
    }
}

/// The answer begins with its length: the end of the pipe would come late, as a child that another thread forks in this
/// moment has it open, too.
fn read_answer(read: &mut File) -> std::io::Result<Vec<u8>> {
    let mut len = [0; size_of::<usize>()];
    read.read_exact(&mut len)?;
    let mut answer = vec![0; usize::from_le_bytes(len)];
    read.read_exact(&mut answer)?;
    Ok(answer)
}
