#!/usr/bin/env bash
# A namespace of ten million files: how long it takes to write, load and send to a new voter, what memory that takes,
# and for how long operations wait meanwhile. It needs about 20 GB of memory for ten million files, because both nodes
# are in one process, and 2 GB below TMPDIR.
#
#   tests/scale.sh             ten million files
#   tests/scale.sh 1000000     another number
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CHORDFS_SCALE_FILES=${1:-10000000}
cargo test --release --package chordfs-namespace --lib scale -- --nocapture
