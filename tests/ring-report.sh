#!/usr/bin/env bash
# Simulates rings that are too large for one machine and prints figures beside the published ones of Chord: path
# lengths, failures, churn, load, invariants. Prints its seed; `--seed N` repeats a run, `--up-to 16` goes to 2^16
# nodes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --quiet --release -p chordfs-ring-tests
exec "${CARGO_TARGET_DIR:-target}/release/ring-report" "$@"
