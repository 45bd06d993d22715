#!/usr/bin/env bash
# Measures a mount: prints one `name value unit` a line. Without an argument it starts a ring of three nodes with their
# data in memory, mounts it, and takes both down again; so it compares programs and not disks.
#
# Absolute figures mean little on a shared machine: compare ratios of runs made one after the other.
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

# A mount that has nothing cached: for our own ring a new one, for a given mount the kernel's caches are dropped.
go_cold() {
  sync -f "$mount_point"
  if [ -n "$own_ring" ]; then
    umount "$mount_point"
    "$binaries/mount.chordfs" "$(printf '127.0.0.%s,' 1 2 3 | sed 's/,$//')" "$mount_point"
  else
    echo 3 >/proc/sys/vm/drop_caches
  fi
}

# CPU seconds that the ring and the mounts have used, of all processes of that name.
cpu_seconds() {
  local ticks=0 pid
  # By one name at a time: pgrep takes no longer pattern.
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
