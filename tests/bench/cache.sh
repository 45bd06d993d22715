#!/usr/bin/env bash
# What the nodes' cache of chunks saves: the CPU that random reads of 4 KiB of a hot set take through a mount that has
# nothing in memory itself, with the cache and without it, in turns on the same ring. Prints a line for each turn and
# the ratio at the end. Needs fio. The data lie in memory, so that the disk does not count.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..

usage() { echo "usage: tests/bench/cache.sh   (SIZE_MIB=256 READS=100000 TURNS=3 from the environment)"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac

size_mib=${SIZE_MIB:-256}
reads=${READS:-100000}
turns=${TURNS:-3}
binaries=${CARGO_TARGET_DIR:-$root/target}/release
ring=$(mktemp -d /dev/shm/chordfs-cache.XXXXXX)
mount_point=$ring/mnt

take_down() {
  "$root/deploy/local/down.sh" --data "$ring/data" >/dev/null || true
  rm -rf "$ring"
}
trap take_down EXIT
"$root/deploy/local/up.sh" --data "$ring/data" --mount "$mount_point" >&2

# Prints the CPU seconds of this ring's storage nodes.
cpu_of_nodes() {
  local ticks=0 pid
  for pid in $(pgrep -f "storage-node run --data $ring/data" || true); do
    ticks=$((ticks + $(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat")))
  done
  awk -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" 'BEGIN { print ticks / hertz }'
}

# A new mount with a small cache of its own: hardly any read is answered without a node.
go_cold() {
  umount "$mount_point"
  "$binaries/mount.chordfs" 127.0.0.1,127.0.0.2,127.0.0.3 "$mount_point" -o cache=4M
}

# SEED: the same reads for the same seed.
read_at_random() {
  fio --name=hot --filename="$mount_point/hot" --rw=randread --bs=4k --direct=1 --size="${size_mib}m" \
    --number_ios="$reads" --norandommap --numjobs=4 --group_reporting --randseed="$1" --output-format=terse --terse-version=3 |
    cut -d';' -f8
}

set_capacity() { "$binaries/storage-node" config set "cache.capacity=$1" >/dev/null; sleep 5; }

dd if=/dev/urandom of="$mount_point/hot" bs=1M count="$size_mib" conv=fsync status=none
go_cold
echo "# $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $reads reads by each of 4 jobs of $size_mib MiB, $turns turns"
totals=$ring/totals
for turn in $(seq "$turns"); do
  for capacity in off "$((2 * size_mib))M"; do
    set_capacity "$capacity"
    # Fills the cache of the nodes.
    [ "$capacity" = off ] || cat "$mount_point/hot" >/dev/null
    go_cold
    before=$(cpu_of_nodes)
    iops=$(read_at_random "$turn")
    after=$(cpu_of_nodes)
    awk -v a="$before" -v b="$after" -v n="$((4 * reads))" -v c="$capacity" -v iops="$iops" \
      'BEGIN { printf "cache %s: %.1f us of the nodes CPU a read, %s reads/s\n", c, (b - a) * 1e6 / n, iops }' |
      tee -a "$totals"
  done
done
awk '{ sum[$2 == "off:"] += $3 } END { printf "with the cache %.2f times the CPU of without\n", sum[0] / sum[1] }' "$totals"
"$binaries/storage-node" status | grep '^cache'
