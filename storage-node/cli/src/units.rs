//! How commands print sizes in MiB; `chordfs_types::byte_size::human` chooses the unit.

const MIB: u64 = 1 << 20;

/// Whole MiB, rounded down: for stored data, never more than there is.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

/// Whole MiB, rounded up: for remaining work, 0 only if nothing remains.
pub(crate) fn mib_rounded_up(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(MIB))
}

/// MiB with one decimal, without the unit: parts of `1.5 of at most 2.0 MiB/s`.
pub(crate) fn mib_tenths(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_work_is_never_shown_as_zero() {
        assert_eq!((mib(1), mib_rounded_up(1), mib_rounded_up(0)), ("0 MiB".into(), "1 MiB".into(), "0 MiB".into()));
    }
}
