//! A threshold watched over several periods, as CloudWatch does it: a number of measurements in a row beyond the
//! threshold raises the alarm, and the first one that is not beyond it ends the alarm. A period without a measurement
//! counts as neither; after too many of them in a row the state is unknown.
#![deny(clippy::disallowed_methods)]

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    Above(f64),
    Below(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmState {
    /// Too few measurements yet, or none for too long.
    Unknown,
    Quiet,
    Raised,
}

#[derive(Clone, Debug)]
pub struct Alarm {
    threshold: Threshold,
    periods: u32,
    state: AlarmState,
    /// Measurements beyond the threshold in a row.
    beyond: u32,
    /// Periods without a measurement in a row.
    missing: u32,
}

impl Alarm {
    pub fn new(threshold: Threshold, periods: u32) -> Self {
        Self { threshold, periods, state: AlarmState::Unknown, beyond: 0, missing: 0 }
    }

    /// To be called at the end of each period, with `None` if it had no measurement.
    pub fn next(&mut self, measured: Option<f64>) -> AlarmState {
        match measured {
            None => self.miss(),
            Some(value) if self.threshold.is_crossed_by(value) => {
                self.missing = 0;
                self.beyond = self.beyond.saturating_add(1);
                self.state = if self.beyond >= self.periods { AlarmState::Raised } else { AlarmState::Quiet };
            }
            Some(_) => (self.missing, self.beyond, self.state) = (0, 0, AlarmState::Quiet),
        }
        self.state
    }

    fn miss(&mut self) {
        self.missing = self.missing.saturating_add(1);
        if self.missing >= self.periods.max(2) {
            (self.beyond, self.state) = (0, AlarmState::Unknown);
        }
    }
}

impl Threshold {
    /// A value equal to the threshold is not beyond it.
    fn is_crossed_by(self, value: f64) -> bool {
        match self {
            Self::Above(limit) => value > limit,
            Self::Below(limit) => value < limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `values`: separated by spaces, `-` where nothing was measured. `expected`: the first letters of the states.
    #[track_caller]
    fn check(threshold: Threshold, values: &str, expected: &str) {
        let mut alarm = Alarm::new(threshold, 2);
        let state = |value: &str| match alarm.next(value.parse().ok()) {
            AlarmState::Unknown => 'u',
            AlarmState::Quiet => 'q',
            AlarmState::Raised => 'R',
        };
        assert_eq!(values.split(' ').map(state).collect::<String>(), expected);
    }

    #[test]
    fn several_measurements_in_a_row_raise_the_alarm_and_one_ends_it() {
        check(Threshold::Above(70.0), "71 71 71 70 71 90", "qRRqqR");
        check(Threshold::Below(30.0), "29 30 29 0 29 31", "qqqRRq");
    }

    #[test]
    fn a_missing_measurement_counts_neither_way() {
        check(Threshold::Above(70.0), "71 - 71 - 71 50 - 71", "qqRRRqqq");
        check(Threshold::Above(70.0), "- 71 - - 71 71", "uqquqR");
        check(Threshold::Above(70.0), "71 71 - - -", "qRRuu");
    }
}
