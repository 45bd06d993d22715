//! Short forms of the measurements of `tests/ring-report.sh`, with bounds that a broken ring exceeds.
mod exhaustive;
mod foreign;
mod lives;
mod load;
mod tables;
mod zones;
