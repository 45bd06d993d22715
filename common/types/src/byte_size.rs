//! Sizes as people type them, `64M`, `20G`, `512KiB`, `1.5G`, and as they read them, `1.50 GiB`.

use parse_size::Config;

/// In bytes. Every unit is a power of 1024, also where it is written without an `i`.
pub fn parse(text: &str) -> Result<u64, parse_size::Error> {
    Config::new().with_binary().parse_size(text)
}

/// Three digits and a unit: `512 B`, `4.00 KiB`, `12.3 GiB`.
pub fn human(bytes: u64) -> String {
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
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("77", 77),
            ("512k", 512 << 10),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64MB", 64 << 20),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("0", 0),
        ] {
            assert_eq!(parse(text).ok(), Some(bytes), "{text}");
        }
        for wrong in ["", "M", "-1", "64X", "lots", "none", "99999999999G", "99999999999999999999", "6\u{e9}"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
