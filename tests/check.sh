#!/usr/bin/env bash
# The one command before a merge: formatting, lints, every test. It changes no tracked file.
# SLOW_TESTS=1 adds the slow suites.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
# Debian leaves root's programs out of everybody else's PATH.
export PATH=$PATH:/usr/sbin:/sbin
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# What the tests drive: real mounts, the old scripts' Python, and programs that people use in a mount.
install_packages() {
  local missing=() pair
  for pair in fusermount3:fuse3 git:git rsync:rsync sqlite3:sqlite3 curl:curl cc:gcc tar:tar bridge:iproute2 nft:nftables fio:fio; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "missing and no apt-get to install them: ${missing[*]}"
  echo "installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# The old scripts' own packages, in the versions that still work with today's Python.
make_venv() {
  local venv=target/test-venv
  export CHORDFS_TEST_PYTHON=$PWD/$venv/bin/python
  [ -x "$CHORDFS_TEST_PYTHON" ] && "$CHORDFS_TEST_PYTHON" -c 'import msgpackrpc, requests' 2>/dev/null && return
  mkdir -p target
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check \
    tornado==4.5.3 msgpack-python==0.5.6 msgpack-rpc-python==0.4.1 requests
}

[ -c /dev/fuse ] || fail "/dev/fuse is missing: these tests mount for real and cannot run on this machine"
install_packages
make_venv

cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- -D warnings
# The tests start these as processes and look for them beside the test binary.
cargo build --quiet --workspace --all-targets
deploy/check.sh
# The cloud on one machine: namespaces, mounts and disks of a size are root's to make.
in_cloud() { as_root env PATH="$PATH" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-}" tests/cloud.sh "$@"; }
if [ "${SLOW_TESTS:-}" = 1 ]; then short=(); else short=(--short); fi
in_cloud --self "${short[@]}" || failed=1
in_cloud "${short[@]}" || failed=1
# The summary of all test binaries, in one line, comes last.
results=$(mktemp)
trap 'rm -f "$results"' EXIT
cargo test --workspace --no-fail-fast 2>&1 | tee "$results" || failed=1
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$results"
exit "${failed:-0}"
