//! Sizes as people type them: `64M`, `20G`, `512KiB`, `1.5G`.

use parse_size::Config;

/// In bytes. Every unit is a power of 1024, also where it is written without an `i`.
pub fn parse(text: &str) -> Result<u64, parse_size::Error> {
    Config::new().with_binary().parse_size(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
