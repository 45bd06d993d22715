//! Waiting for a condition instead of a fixed time.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Polls until `condition` holds; panics with `what` and the last answer if it does not hold within `deadline`.
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(()) => return,
            Err(reason) if Instant::now() > end => panic!("{what}: not within {deadline:?}: {reason}"),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}
