#!/usr/bin/env bash
# The cloud on one machine: runs storage-node as instances of an Auto Scaling group that grows and shrinks, without an
# account. Needs root (network namespaces, mounts) and the binaries of `cargo build -p storage-node -p fuse-client`.
#
#   tests/cloud.sh [--short] [--verbose] [--rate N] [--binaries DIR] [SCENARIO...]
#   tests/cloud.sh --self [--short]      the harness's own tests
#
# tests/cloud/__init__.py says how it is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
# Debian leaves root's programs out of everybody else's PATH.
export PATH=$PATH:/usr/sbin:/sbin

venv=target/cloud-venv
# Made anew when the requirements have changed, found again when not.
make_venv() {
  local wanted=tests/cloud/requirements.txt
  cmp -s "$wanted" "$venv/requirements.txt" && return
  mkdir -p target
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$venv/requirements.txt"
}

[ "$(uname -s)" = Linux ] || fail "network namespaces are Linux's"
[ "$(id -u)" = 0 ] || fail "this makes network namespaces and mounts: run it as root"
for program in ip nft nsenter unshare mount umount python3; do
  command -v "$program" >/dev/null || fail "$program is missing (iproute2, nftables, util-linux, mount, python3)"
done
make_venv
export PYTHONPATH=$PWD/tests PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m cloud "$@"
