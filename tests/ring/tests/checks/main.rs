//! Short forms of what `tests/ring-report.sh` measures, with bounds that a broken ring does not meet.
mod exhaustive;
mod foreign;
mod lives;
mod load;
mod tables;
mod zones;
