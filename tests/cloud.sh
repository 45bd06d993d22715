#!/usr/bin/env bash
# The cloud on one machine: runs storage-node as instances of an Auto Scaling group that grows and shrinks, without an
# account. Needs root (network namespaces, mounts) and the binaries of `cargo build -p storage-node -p fuse-client`.
#
#   tests/cloud.sh [--short] [--verbose] [--rate N] [--binaries DIR] [SCENARIO...]
#   tests/cloud.sh --self [--short]      the harness's own tests
#
# tests/cloud/__init__.py explains how it works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
# On Debian the PATH of ordinary users lacks root's programs.
export PATH=$PATH:/usr/sbin:/sbin

venv=target/cloud-venv
# Makes the environment again only if the requirements have changed.
make_venv() {
  local wanted=tests/cloud/requirements.txt
  cmp -s "$wanted" "$venv/requirements.txt" && return
  mkdir -p target
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$venv/requirements.txt"
}

[ "$(uname -s)" = Linux ] || fail "this needs Linux: it uses network namespaces"
[ "$(id -u)" = 0 ] || fail "run this as root: it creates network namespaces and mounts"
for program in ip nft nsenter unshare mount umount python3; do
  command -v "$program" >/dev/null || fail "$program is missing (iproute2, nftables, util-linux, mount, python3)"
done
make_venv
export PYTHONPATH=$PWD/tests PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m cloud "$@"
