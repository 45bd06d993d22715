//! How the values of a chart are written and scaled.

use chordfs_types::byte_size::human;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Percent,
    Bytes,
    BytesPerSecond,
    PerMinute,
    PerSecond,
    Micros,
}

/// What an axis shows: values divided by `divisor`, in `name`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AxisScale {
    pub divisor: f64,
    pub name: &'static str,
}

impl Unit {
    /// With three digits or so, and the unit.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Count => short(value),
            Self::Percent => format!("{value:.1}%"),
            Self::Bytes => human(value as u64),
            Self::BytesPerSecond => format!("{}/s", human(value as u64)),
            Self::PerMinute => format!("{}/min", short(value)),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Micros => {
                let AxisScale { divisor, name } = self.axis(value);
                format!("{} {name}", short(value / divisor))
            }
        }
    }

    /// The scale of an axis up to `most`.
    pub(crate) fn axis(self, most: f64) -> AxisScale {
        const BYTES: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
        const RATES: [&str; 6] = ["bytes/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s", "PiB/s"];
        let binary = |names: [&'static str; 6]| {
            let power = (0..5).take_while(|power| most >= 1024_f64.powi(power + 1)).count();
            AxisScale { divisor: 1024_f64.powi(power as i32), name: names[power] }
        };
        let plain = |name| AxisScale { divisor: 1.0, name };
        match self {
            Self::Count => plain(""),
            Self::Percent => plain("%"),
            Self::Bytes => binary(BYTES),
            Self::BytesPerSecond => binary(RATES),
            Self::PerMinute => plain("per minute"),
            Self::PerSecond => plain("per second"),
            Self::Micros if most < 1e3 => plain("µs"),
            Self::Micros if most < 1e6 => AxisScale { divisor: 1e3, name: "ms" },
            Self::Micros => AxisScale { divisor: 1e6, name: "s" },
        }
    }

    /// The end of an axis for values up to `most`, so that none is drawn on the edge.
    pub(crate) fn axis_end(self, most: f64) -> f64 {
        match self {
            Self::Percent => 100.0,
            Self::Count => (most * 1.1).max(1.0),
            _ if most > 0.0 => most * 1.1,
            _ => 1.0,
        }
    }

    /// Whether only whole values make sense on the axis.
    pub(crate) fn is_whole(self) -> bool {
        self == Self::Count
    }
}

/// Small values keep two digits behind the point, large ones none.
pub(crate) fn short(value: f64) -> String {
    match value {
        whole if whole.fract() == 0.0 => format!("{whole:.0}"),
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_carry_their_unit() {
        for (unit, value, expected) in [
            (Unit::Count, 1234.0, "1234"),
            (Unit::Percent, 93.06, "93.1%"),
            (Unit::Bytes, 1536.0, "1.50 KiB"),
            (Unit::BytesPerSecond, 3e6, "2.86 MiB/s"),
            (Unit::PerMinute, 12.0, "12/min"),
            (Unit::PerSecond, 0.333, "0.33/s"),
            (Unit::Micros, 870.0, "870 µs"),
            (Unit::Micros, 1234.0, "1.23 ms"),
            (Unit::Micros, 2.5e6, "2.50 s"),
        ] {
            assert_eq!(unit.text(value), expected);
        }
    }

    #[test]
    fn an_axis_has_the_unit_of_its_largest_value() {
        assert_eq!(Unit::Bytes.axis(3.0 * 1024.0 * 1024.0), AxisScale { divisor: 1048576.0, name: "MiB" });
        assert_eq!(Unit::BytesPerSecond.axis(0.0).name, "bytes/s");
        assert_eq!(Unit::Bytes.axis(1e30).name, "PiB");
        assert_eq!(
            (Unit::Count.axis_end(0.0), Unit::Micros.axis_end(0.0), Unit::Percent.axis_end(3.0)),
            (1.0, 1.0, 100.0)
        );
    }
}
