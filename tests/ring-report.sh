#!/usr/bin/env bash
# The ring at sizes that no machine here could hold, beside what was published of Chord: path lengths, failures, churn,
# load, invariants. Prints the seed that everything follows from; `--seed N` repeats it, `--up-to 16` goes to 2^16 nodes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --quiet --release -p chordfs-ring-tests
exec "${CARGO_TARGET_DIR:-target}/release/ring-report" "$@"
