//! A clock that goes on while the machine sleeps, as `std`'s monotonic one does not: what another machine says of its own
//! time ("I have been running for so long") can only be compared with that.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Since this machine was started, sleep included.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock since 2.6.39");
    Duration::from(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let before = since_boot();
        while since_boot() == before {
            std::hint::spin_loop();
        }
        assert!(since_boot() > before && before > Duration::ZERO);
    }
}
