//! Settings of the C library's allocator. By default it has eight pools of memory for each core, which are not shared,
//! and it takes even buffers of megabytes from them once the first has been freed: the buffers of uploads and reads of
//! all threads were scattered over the pools, and a mount that was to use 320 MiB grew to 900 and stayed there.

use std::time::Duration;

/// Pools of memory. Contention between threads is rare: the data path allocates some buffers for each megabyte.
const POOLS: i32 = 2;
/// Buffers from this size on are mapped by themselves, and given back when they are freed. Setting it also keeps the
/// allocator from raising it. It is below the size of the buffers that fill the cache; with a larger one the mount
/// outgrew its bound, with one of 64 KiB it took a tenth more CPU.
pub(crate) const MAPPED_FROM_BYTES: i32 = 640 << 10;

/// When free memory within the pools is given back.
#[derive(Clone, Copy, Debug)]
pub struct TrimSchedule {
    pub period: Duration,
    /// Less free memory than this stays in the pools.
    pub from_bytes: usize,
}

impl TrimSchedule {
    /// For a mount, which shares its machine with the programs that use it.
    pub const MOUNT: Self = Self { period: Duration::from_secs(5), from_bytes: 16 << 20 };
    /// For a node, which would soon take the memory of its bodies again: what is left after a peak is given back.
    pub const NODE: Self = Self { period: Duration::from_secs(30), from_bytes: 64 << 20 };
}

/// Called once, before there is a second thread.
#[cfg(target_env = "gnu")]
pub fn limit() {
    // SAFETY: mallopt takes numbers and changes settings of the allocator. A setting that it refuses keeps its default.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, POOLS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    }
}

/// Gives free memory back from time to time, for ever. It takes some milliseconds, in a thread of its own.
pub async fn trim_regularly(schedule: TrimSchedule) {
    let mut tick = tokio::time::interval(schedule.period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if tokio::task::spawn_blocking(move || trim(schedule.from_bytes)).await.is_err() {
            return;
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim(from_bytes: usize) {
    // SAFETY: both take or return numbers, are safe to call from any thread, and free nothing that is in use.
    unsafe {
        if libc::mallinfo2().fordblks > from_bytes {
            libc::malloc_trim(0);
        }
    }
}

/// Other C libraries have an allocator without such settings.
#[cfg(not(target_env = "gnu"))]
pub fn limit() {}

#[cfg(not(target_env = "gnu"))]
fn trim(_from_bytes: usize) {}
