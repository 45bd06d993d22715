#!/usr/bin/env bash
# Measures a mount: prints a line `name value unit` for each figure. Without an argument it starts a ring of three nodes
# with their data in memory, mounts it, and stops both at the end; so it measures the programs and not disks.
#
# Absolute figures mean little on a shared machine: compare the ratios of consecutive runs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/..

usage() { echo "usage: tests/bench.sh [MOUNT]   (SIZE_MIB=1024 FILES=5000 from the environment)"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac

size_mib=${SIZE_MIB:-1024}
files=${FILES:-5000}
own_ring=
mount_point=${1:-}

binaries=${CARGO_TARGET_DIR:-$root/target}/release

take_down() {
  [ -n "$own_ring" ] || return 0
  "$root/deploy/local/down.sh" --data "$own_ring/data" >/dev/null || true
  rm -rf "$own_ring"
}

if [ -z "$mount_point" ]; then
  own_ring=$(mktemp -d /dev/shm/chordfs-bench.XXXXXX)
  trap take_down EXIT
  mount_point=$own_ring/mnt
  "$root/deploy/local/up.sh" --data "$own_ring/data" --mount "$mount_point" >&2
fi

# Empties the caches: mounts our own ring anew; for a given mount it drops the kernel's caches.
go_cold() {
  sync -f "$mount_point"
  if [ -n "$own_ring" ]; then
    umount "$mount_point"
    "$binaries/mount.chordfs" "$(printf '127.0.0.%s,' 1 2 3 | sed 's/,$//')" "$mount_point"
  else
    echo 3 >/proc/sys/vm/drop_caches
  fi
}

# Prints the CPU seconds of all storage-node and mount.chordfs processes of this machine.
cpu_seconds() {
  local ticks=0 pid
  # One name at a time: pgrep -x matches at most 15 characters.
  for pid in $(pgrep -x storage-node; pgrep -x 'mount.chordfs' || true); do
    ticks=$((ticks + $(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat" 2>/dev/null || echo 0)))
  done
  awk -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" 'BEGIN { print ticks / hertz }'
}

work() { python3 "$here/bench/work.py" "$@" --size-mib "$size_mib" --files "$files" "$mount_point"; }

per_gib() { awk -v a="$1" -v b="$2" -v mib="$size_mib" -v name="$3" 'BEGIN { printf "%s %.2f CPU-s/GiB\n", name, (b - a) * 1024 / mib }'; }

before=$(cpu_seconds)
work sequential-write
per_gib "$before" "$(cpu_seconds)" sequential_write_cpu
go_cold
before=$(cpu_seconds)
work sequential-read --name cold_read
per_gib "$before" "$(cpu_seconds)" cold_read_cpu
work sequential-read --name warm_read
go_cold
work random-read
work small-files
go_cold
work stat-files
work remove-files
work small-files-eight
work untar
work clean
