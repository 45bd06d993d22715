#!/usr/bin/env bash
# Unmounts and stops exactly what up.sh started. The data stays; the next up.sh uses it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/local/common.sh
. "$here/common.sh"

usage() {
  cat <<EOT
usage: deploy/local/down.sh [--data DIR]

Unmounts and stops what up.sh started with the same --data (default $(default_data)). The data stays.
EOT
}

data=$(default_data)
while [ $# -gt 0 ]; do
  case $1 in
    --data) [ $# -ge 2 ] || fail "--data needs a folder"; data=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
done
[ -d "$data" ] || fail "$data does not exist: give the folder that up.sh used with --data"

not_mounted() { ! mountpoint -q "$1"; }

unmount() {
  local dir
  [ -f "$data/mount" ] || return 0
  dir=$(cat "$data/mount")
  if mountpoint -q "$dir"; then
    if [ "$(id -u)" = 0 ]; then umount "$dir"; else fusermount3 -u "$dir"; fi ||
      fail "cannot unmount $dir: close the programs that use it (fuser -vm $dir shows them), then try again"
    wait_until 30 not_mounted "$dir" || fail "$dir is still mounted after 30 s"
  fi
  rm -f "$data/mount"
}

ended() { ! alive "$1"; }

end_nodes() {
  local pid_file
  for pid_file in "$data"/node-*.pid; do
    alive "$pid_file" && kill "$(pid_of "$pid_file")"
  done
  for pid_file in "$data"/node-*.pid; do
    [ -f "$pid_file" ] || continue
    if ! wait_until 30 ended "$pid_file"; then
      say "$(basename "$pid_file" .pid) did not stop within 30 s; killing it"
      kill -9 "$(pid_of "$pid_file")"
      wait_until 5 ended "$pid_file" || fail "process $(pid_of "$pid_file") is still running after SIGKILL"
    fi
    rm -f "$pid_file"
  done
}

unmount
end_nodes
say "stopped; the data stays in $data"
