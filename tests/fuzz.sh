#!/usr/bin/env bash
# Lets libFuzzer look for inputs that make a decoder panic, guided by coverage:
#
#   tests/fuzz.sh [TARGET...] [--seconds N]     N seconds for each target (default 30), or for each of the named ones
#
# It needs no nightly compiler. What it learns stays in target/fuzz/corpus; an input that panics is written to
# target/fuzz/, and `target/fuzz/build/HOST/release/fuzz FILE` repeats it (with CHORDFS_FUZZ_TARGET set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=30 wanted=()
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --seconds) seconds=$2; shift 2 ;;
  *) wanted+=("$1"); shift ;;
  esac
done

corpus=target/fuzz/corpus
mapfile -t all < <(cargo run --quiet -p chordfs-fuzz --example corpus -- "$corpus")
[ ${#wanted[@]} -gt 0 ] || wanted=("${all[@]}")

# The flags that cargo-fuzz uses, without its sanitizers, which need a nightly compiler.
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg=fuzzing)
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${flags[*]}" cargo build --quiet --release --target "$host" --target-dir target/fuzz/build \
  --manifest-path tests/fuzz/coverage/Cargo.toml
# libFuzzer's main does not ignore this signal as that of a Rust program does: a closed connection would end a node.
trap '' PIPE
for target in "${wanted[@]}"; do
  echo "-- $target for $seconds seconds"
  log=target/fuzz/$target.log
  CHORDFS_FUZZ_TARGET=$target "target/fuzz/build/$host/release/fuzz" "$corpus/$target" \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="target/fuzz/$target-" >"$log" 2>&1 ||
    { grep -E 'panicked|ERROR|Test unit' "$log" || true; echo "error: $target ended early; see $log" >&2; exit 1; }
  grep -E 'stat::number_of_executed|stat::peak_rss' "$log"
done
