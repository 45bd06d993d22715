//! Short forms of what `tests/ring-report.sh` measures, with bounds that a broken ring does not meet.
mod foreign;
mod lives;
