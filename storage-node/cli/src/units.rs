//! How all commands print sizes.

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

/// Three digits and a unit: `512 B`, `4.00 KiB`, `12.3 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let digits = match value {
        _ if unit == "B" => 0,
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.98 KiB"),
            (4096, "4.00 KiB"),
            (10 << 20, "10.0 MiB"),
            (123 << 30, "123 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }

    #[test]
    fn remaining_work_is_never_shown_as_zero() {
        assert_eq!((mib(1), mib_rounded_up(1), mib_rounded_up(0)), ("0 MiB".into(), "1 MiB".into(), "0 MiB".into()));
    }
}
