//! A clock that also advances while the machine sleeps, unlike `std`'s monotonic clock. Only such a clock can be
//! compared with the uptime that another machine reports.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since this machine was started, sleep included.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock since 2.6.39");
    Duration::from(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_advances() {
        let before = since_boot();
        while since_boot() == before {
            std::hint::spin_loop();
        }
        assert!(since_boot() > before && before > Duration::ZERO);
    }
}
