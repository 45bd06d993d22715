//! Large buffers that are filled, sent and then filled again.
//!
//! The allocator maps a buffer of this size by itself and gives it back when it is freed (see `allocator`), so the
//! kernel would clear every page of every request's body. The pool keeps a second handle of each buffer instead: once
//! the sender has dropped the first, the memory is free for the next body.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::allocator::MAPPED_FROM_BYTES;

/// Smaller buffers come from the allocator, which does not map these.
const FROM_BYTES: usize = MAPPED_FROM_BYTES as usize;
/// Sizes differ a little from body to body, and a buffer is to fit the next one. Pages that are never filled cost
/// nothing.
const ROUNDED_TO_BYTES: usize = 256 << 10;

pub(crate) struct BufferPool {
    buffers: Mutex<PooledBuffers>,
    max_bytes: usize,
}

/// Most of the buffers are still being sent. The one that was filled first is at the front.
struct PooledBuffers {
    queue: VecDeque<PooledBuffer>,
    bytes: usize,
}

struct PooledBuffer {
    handle: BytesMut,
    capacity: usize,
}

impl BufferPool {
    /// A pool that keeps up to `max_bytes` of memory, in use or free.
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self { buffers: Mutex::new(PooledBuffers { queue: VecDeque::new(), bytes: 0 }), max_bytes }
    }

    /// Returns what `fill` puts into an empty buffer with room for `capacity` bytes.
    pub(crate) fn fill(&self, capacity: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
        if capacity < FROM_BYTES {
            let mut buffer = BytesMut::with_capacity(capacity);
            fill(&mut buffer);
            return buffer.freeze();
        }
        let mut buffer = self.take(capacity);
        fill(&mut buffer.handle);
        let filled = buffer.handle.split().freeze();
        self.buffers.lock().add(buffer, self.max_bytes);
        filled
    }

    fn take(&self, min_capacity: usize) -> PooledBuffer {
        let free = self.buffers.lock().take(min_capacity);
        free.unwrap_or_else(|| {
            let capacity = min_capacity.next_multiple_of(ROUNDED_TO_BYTES);
            PooledBuffer { handle: BytesMut::with_capacity(capacity), capacity }
        })
    }
}

impl PooledBuffers {
    /// Takes out a buffer that is free, if there is one of this size.
    fn take(&mut self, min_capacity: usize) -> Option<PooledBuffer> {
        let at = self.queue.iter_mut().position(|buffer| buffer.handle.try_reclaim(min_capacity))?;
        let buffer = self.queue.remove(at)?;
        self.bytes -= buffer.capacity;
        Some(buffer)
    }

    fn add(&mut self, buffer: PooledBuffer, max_bytes: usize) {
        self.bytes += buffer.capacity;
        self.queue.push_back(buffer);
        while self.bytes > max_bytes {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes -= oldest.capacity;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn fill(pool: &BufferPool, byte: u8) -> Bytes {
        pool.fill(FROM_BYTES, |buffer| buffer.put_bytes(byte, FROM_BYTES))
    }

    #[test]
    fn a_buffer_is_filled_again_once_its_bytes_were_dropped() {
        let pool = BufferPool::new(2 * FROM_BYTES.next_multiple_of(ROUNDED_TO_BYTES));
        let first = fill(&pool, 1);
        let place = first.as_ptr();
        let second = fill(&pool, 2);
        assert_ne!(second.as_ptr(), place, "the first is still in use");
        drop(first);
        assert_eq!(fill(&pool, 3).as_ptr(), place);
        assert!(second.iter().all(|byte| *byte == 2));
    }

    #[test]
    fn a_part_that_is_still_in_use_keeps_its_buffer_from_being_filled() {
        let pool = BufferPool::new(2 * FROM_BYTES.next_multiple_of(ROUNDED_TO_BYTES));
        let part = fill(&pool, 1).slice(10..20);
        fill(&pool, 2);
        assert!(part.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn the_pool_keeps_no_more_buffers_than_it_may() {
        let pool = BufferPool::new(2 * FROM_BYTES.next_multiple_of(ROUNDED_TO_BYTES));
        let used: Vec<Bytes> = (0..5).map(|byte| fill(&pool, byte)).collect();
        assert_eq!(pool.buffers.lock().queue.len(), 2);
        drop(used);
    }
}
