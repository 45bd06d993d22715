#!/usr/bin/env bash
# Experiments with a ring of real nodes on this machine, each one a table and a picture with its conditions:
#
#   tests/experiments.sh NAME [--short] [--out FOLDER] [--programs FOLDER] [--seed N]
#   tests/experiments.sh --help      lists them
#   tests/experiments.sh --self      tests their arithmetic
#
# It uses target/release, and builds storage-node there if it is missing; with --programs it builds nothing.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Pinned, because pictures change with it.
requirements=(matplotlib==3.11.2)
venv=$top/target/experiments-venv
# Makes the environment once; experiments that begin at the same time wait for it.
make_venv() {
  mkdir -p "$top/target"
  exec 9>"$venv.lock"
  flock --timeout 600 9 || fail "another run has been making $venv for ten minutes: end it, or remove the folder"
  if [ "$(cat "$venv/requirements" 2>/dev/null)" != "${requirements[*]}" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]}"
    printf '%s\n' "${requirements[*]}" >"$venv/requirements"
  fi
  exec 9>&-
}

[ "$(uname -s)" = Linux ] || fail "this needs Linux: every address 127.x.x.x is this machine's"
python3 -c 'import ensurepip, venv' 2>/dev/null ||
  fail "python3 with venv is missing: install the packages python3 and python3-venv"
make_venv
export PYTHONPATH=$top/tests PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m experiments "$@"
