//! Settings of the C library's allocator. By default it has eight pools of memory for each core, which are not shared,
//! and it takes even buffers of megabytes from them once the first has been freed: the buffers of uploads and reads of
//! all threads were scattered over the pools, and a mount that was to use 320 MiB grew to 900 and stayed there.

use std::time::Duration;

/// Pools of memory. Contention between threads is rare: the data path allocates some buffers for each megabyte.
const POOLS: i32 = 2;
/// Buffers from this size on are mapped by themselves, and given back when they are freed. Setting it also keeps the
/// allocator from raising it.
const MAPPED_FROM_BYTES: i32 = 64 << 10;
/// How often free memory within the pools is given back.
const TRIM_PERIOD: Duration = Duration::from_secs(5);
/// Less free memory than this stays in the pools.
const TRIMMED_FROM_BYTES: usize = 16 << 20;

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
pub async fn trim_regularly() {
    let mut tick = tokio::time::interval(TRIM_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if tokio::task::spawn_blocking(trim).await.is_err() {
            return;
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: both take or return numbers, are safe to call from any thread, and free nothing that is in use.
    unsafe {
        if libc::mallinfo2().fordblks > TRIMMED_FROM_BYTES {
            libc::malloc_trim(0);
        }
    }
}

/// Other C libraries have an allocator without such settings.
#[cfg(not(target_env = "gnu"))]
pub fn limit() {}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
