//! The state of one open handle, as opposed to its inode: whether it can write, and which errors it has received.
//!
//! The kernel sends one `flush` for each descriptor that is closed, including those that a child process inherited and
//! those that only read. Neither may consume an error that the writer has not received.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::transfer::ErrorCursor;

pub(super) struct Handle {
    pub can_write: bool,
    pub errors: ErrorCursor,
}

#[derive(Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Arc<Handle>>>,
    last: AtomicU64,
}

impl Handles {
    pub(super) fn open(&self, can_write: bool, errors: ErrorCursor) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(number, Arc::new(Handle { can_write, errors }));
        number
    }

    /// Returns a handle; an unknown one is treated as a handle that can write and has received no error.
    pub(super) fn get(&self, number: u64) -> Arc<Handle> {
        let known = self.open.lock().get(&number).cloned();
        known.unwrap_or_else(|| Arc::new(Handle { can_write: true, errors: ErrorCursor::default() }))
    }

    pub(super) fn close(&self, number: u64) {
        self.open.lock().remove(&number);
    }
}
