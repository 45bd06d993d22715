//! The buffers in which reads are assembled and handed to the kernel.
//!
//! Such a buffer lives for one request, and the allocator maps it by itself (see `chordfs_net::allocator`), so the
//! kernel would clear every page of every read once more. Each thread that answers reads keeps its last buffer instead.

use std::cell::Cell;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger buffer than the kernel's requests need is not kept.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Returns an empty buffer with room for `capacity` bytes.
pub(super) fn take(capacity: usize) -> Vec<u8> {
    let mut buffer = SPARE.take();
    buffer.clear();
    buffer.reserve_exact(capacity);
    buffer
}

/// Keeps `buffer`, whose bytes have been used, for the next read of this thread.
pub fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() <= MAX_KEPT_BYTES {
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_is_taken_again_empty() {
        let mut buffer = take(1000);
        buffer.extend_from_slice(&[7; 1000]);
        let place = buffer.as_ptr();
        give_back(buffer);
        let again = take(500);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        give_back(vec![0; MAX_KEPT_BYTES + 1]);
        assert!(take(0).capacity() <= MAX_KEPT_BYTES);
    }
}
