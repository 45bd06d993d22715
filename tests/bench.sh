#!/usr/bin/env bash
# Measures a mount, alone or beside other mounted file systems in turn: medians over rounds, the CPU time that they cost,
# and how many times better ours is.
#
#   tests/bench.sh                                 a ring of its own, with its data in memory: it measures programs, not disks
#   tests/bench.sh --rounds 3 --against other=/mnt/other     the same, and another file system in turn
#   tests/bench.sh --mount /mnt/chord              a mount that is there
#   tests/bench.sh --nodes 10 --load names -- --files 20000  more nodes, one load, more files
#   tests/bench.sh --self                          tests its arithmetic
#
# Absolute figures mean little on a shared machine: compare the columns of one run. It needs root, to drop the kernel's
# caches.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/..
# shellcheck source=deploy/local/common.sh
. "$root/deploy/local/common.sh"
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1

usage() { sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; python3 -m bench --help; }

nodes=3 mount_point='' others=() options=() up_options=()
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --self) exec python3 -m bench --self ;;
  --nodes) nodes=$2; shift 2 ;;
  --mount) mount_point=$2; shift 2 ;;
  --against) others+=("$2"); shift 2 ;;
  --insecure) up_options+=(--insecure); shift ;;
  --load | --rounds) options+=("$1" "$2"); shift 2 ;;
  --) shift; options+=("$@"); break ;;
  *) fail "unknown option $1: see --help" ;;
  esac
done
[ "$(id -u)" = 0 ] || fail "dropping the kernel's caches needs root"

if [ -n "$mount_point" ]; then
  exec python3 -m bench "chordfs=$mount_point" "${others[@]}" "${options[@]}"
fi

ring=$(mktemp -d /dev/shm/chordfs-bench.XXXXXX)
take_down() {
  "$root/deploy/local/down.sh" --data "$ring/data" >/dev/null || true
  rm -rf "$ring"
}
trap take_down EXIT
mount_point=$ring/mnt
"$root/deploy/local/up.sh" --nodes "$nodes" "${up_options[@]}" --data "$ring/data" --mount "$mount_point" >&2
programs=${CARGO_TARGET_DIR:-$root/target}/release
# A ring that has just begun still makes nodes voters; what that costs is not to be measured.
is_settled() { "$programs/storage-node" status --node 127.0.0.1 | grep -q '^health  *OK'; }
wait_until 60 is_settled || fail "the ring does not settle within a minute"
remount="umount '$mount_point' && '$programs/mount.chordfs' 127.0.0.1,127.0.0.2,127.0.0.3 '$mount_point'"
python3 -m bench "chordfs=$mount_point,$remount" "${others[@]}" "${options[@]}"
