//! Counts of small numbers, hops and time-outs, with their mean and percentiles.

#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: Vec<u64>,
}

impl Tally {
    pub fn add(&mut self, value: usize) {
        if self.counts.len() <= value {
            self.counts.resize(value + 1, 0);
        }
        self.counts[value] += 1;
    }

    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn mean(&self) -> f64 {
        let sum: u64 = self.counts.iter().enumerate().map(|(value, count)| value as u64 * count).sum();
        sum as f64 / self.len().max(1) as f64
    }

    /// The smallest value that `percent` of all values do not exceed.
    pub fn percentile(&self, percent: u64) -> usize {
        let wanted = (self.len() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let reaches = |&(_, count): &(usize, &u64)| {
            seen += count;
            seen >= wanted
        };
        self.counts.iter().enumerate().find(reaches).map_or(0, |(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut tally = Tally::default();
        (1..=100).for_each(|value| tally.add(value));
        assert_eq!((tally.percentile(1), tally.percentile(50), tally.percentile(99)), (1, 50, 99));
        assert!((tally.mean() - 50.5).abs() < 1e-9);
        assert_eq!(Tally::default().percentile(99), 0);
    }
}
