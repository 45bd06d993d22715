#!/usr/bin/env bash
# The memory of a mount at its peak, beside the ceilings that it was given: four writers and four readers at once, and
# then small overwrites beside reads, on a ring of three nodes with their data in memory. Prints a line for each pair of
# ceilings, with the bound that the mount promises: its two ceilings and 100 MiB. The exit code is 1 if a peak is above.
#
# The reads and writes are also timed, so that memory is never saved at the cost of speed without anybody seeing it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
# shellcheck source=deploy/local/common.sh
. "$root/deploy/local/common.sh"

usage() { echo "usage: tests/bench/memory.sh   (SIZE_MIB=256 from the environment: the size of each of four files)"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac

size_mib=${SIZE_MIB:-256}
beside_mib=100
binaries=${CARGO_TARGET_DIR:-$root/target}/release
ring=$(mktemp -d /dev/shm/chordfs-memory.XXXXXX)
mount_point=$ring/mnt
ips=(127.0.0.1 127.0.0.2 127.0.0.3)
above=0

take_down() {
  "$root/deploy/local/down.sh" --data "$ring/data" >/dev/null || true
  rm -rf "$ring"
}
trap take_down EXIT
"$root/deploy/local/up.sh" --nodes "${#ips[@]}" --data "$ring/data" --mount "$mount_point" >&2

mount_runs() { pgrep -f "mount.chordfs .*$mount_point" >/dev/null; }
no_mount_runs() { ! mount_runs; }

# mount_with CACHE DIRTY: both in MiB.
mount_with() {
  umount "$mount_point"
  wait_until 30 no_mount_runs || fail "the mount at $mount_point does not end"
  "$binaries/mount.chordfs" "$(IFS=,; printf '%s' "${ips[*]}")" "$mount_point" -o "cache=$1M,dirty=$2M,log=$ring/mount.log"
}

# peak: the most memory that the mount's process has taken, in MiB.
peak() {
  local pid
  pid=$(pgrep -f "mount.chordfs .*$mount_point") || fail "the mount at $mount_point has ended; see $ring/mount.log"
  awk '/^VmHWM:/ { printf "%d", $2 / 1024 }' "/proc/$pid/status"
}

write_files() {
  local i
  for i in 1 2 3 4; do dd if=/dev/zero of="$mount_point/f$i" bs=1M count="$size_mib" conv=fsync status=none & done
  wait
}

read_beside_writes() {
  local i
  for i in 1 2 3 4; do
    dd if=/dev/zero of="$mount_point/g$i" bs=64k count=$((size_mib * 16)) status=none &
    dd if="$mount_point/f$i" of=/dev/null bs=1M iflag=direct status=none &
  done
  wait
}

overwrite_beside_reads() {
  local i k
  for i in 1 2 3 4; do
    for k in $(seq 0 40 $((size_mib * 16 - 64))); do
      dd if=/dev/zero of="$mount_point/g$i" bs=60k seek="$k" count=1 conv=notrunc status=none
      dd if="$mount_point/f$i" of=/dev/null bs=64k skip="$k" count=8 iflag=direct status=none
    done &
  done
  wait
}

# timed COMMAND: prints its seconds.
timed() {
  local before=$EPOCHREALTIME
  "$@"
  awk -v a="$before" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

# measure CACHE DIRTY
measure() {
  local written mixed overwritten reached bound=$(($1 + $2 + beside_mib))
  mount_with "$1" "$2"
  written=$(timed write_files) mixed=$(timed read_beside_writes) overwritten=$(timed overwrite_beside_reads)
  reached=$(peak)
  printf 'cache %d MiB, dirty %d MiB: peak %d MiB of %d; written in %s s, read beside writes in %s s, small overwrites in %s s\n' \
    "$1" "$2" "$reached" "$bound" "$written" "$mixed" "$overwritten"
  [ "$reached" -le "$bound" ] || above=1
  rm -f "$mount_point"/[fg][1-4]
}

echo "# $(nproc) processors, Linux $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), files of $size_mib MiB"
measure 64 32
measure 256 64
[ "$above" = 0 ] || fail "the mount took more memory than it promises"
