#!/usr/bin/env bash
# What the nodes' cache of chunks saves: the CPU that random reads of 4 KiB of a hot set take through a mount that has
# hardly anything in memory itself, with the cache and without it, in turns on the same ring. Prints a line for each
# turn, and the means at the end. The data lie in memory, so that the disk does not count.
#
# Before each measurement the same reads run once uncounted, with the cache and without it alike: they fill the caches
# of the nodes. A new mount then makes the measured reads.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
# shellcheck source=deploy/local/common.sh
. "$root/deploy/local/common.sh"

usage() { echo "usage: tests/bench/cache.sh   (SIZE_MIB=256 READS=100000 TURNS=3 from the environment; READS is for each of 4 jobs)"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac

size_mib=${SIZE_MIB:-256}
reads=${READS:-100000}
turns=${TURNS:-3}
jobs=4
# Every node may be asked for every chunk, and a chunk takes somewhat more memory than its 4 KiB.
capacity=$((2 * size_mib))M
binaries=${CARGO_TARGET_DIR:-$root/target}/release
command -v fio >/dev/null || fail "fio is missing: install the package fio"
ring=$(mktemp -d /dev/shm/chordfs-cache.XXXXXX)
mount_point=$ring/mnt
ips=(127.0.0.1 127.0.0.2 127.0.0.3)

take_down() {
  "$root/deploy/local/down.sh" --data "$ring/data" >/dev/null || true
  rm -rf "$ring"
}
trap take_down EXIT
"$root/deploy/local/up.sh" --nodes "${#ips[@]}" --data "$ring/data" --mount "$mount_point" >&2

# cpu_of PID...: prints the CPU seconds of these processes.
cpu_of() {
  local ticks=0 pid
  for pid in "$@"; do
    ticks=$((ticks + $(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat")))
  done
  awk -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" 'BEGIN { print ticks / hertz }'
}

cpu_of_nodes() {
  local pids
  mapfile -t pids < <(cut -d' ' -f1 "$ring"/data/node-*.pid)
  cpu_of "${pids[@]}"
}

cpu_of_mount() {
  local pids
  mapfile -t pids < <(pgrep -f "mount.chordfs .*$mount_point")
  [ "${#pids[@]}" = 1 ] || fail "there are ${#pids[@]} processes of the mount at $mount_point"
  cpu_of "${pids[@]}"
}

# metric NAME: prints the values of all nodes, one a line.
metric() {
  local ip
  for ip in "${ips[@]}"; do curl -fsS --max-time 5 "http://$ip:5059/metrics" | awk -v name="$1" '$1 == name { print $2 }'; done
}

sum() { metric "$1" | awk '{ sum += $1 } END { print sum + 0 }'; }

no_mount_runs() { ! pgrep -f "mount.chordfs .*$mount_point" >/dev/null; }

# A new mount with a small cache of its own: hardly any read is answered without a node.
go_cold() {
  umount "$mount_point"
  wait_until 30 no_mount_runs || fail "the mount at $mount_point does not end"
  "$binaries/mount.chordfs" "$(IFS=,; printf '%s' "${ips[*]}")" "$mount_point" -o "cache=4M,log=$ring/mount.log"
}

# read_at_random SEED: prints KiB read and reads per second. The same seed makes the same reads.
read_at_random() {
  fio --name=hot --filename="$mount_point/hot" --rw=randread --bs=4k --direct=1 --size="${size_mib}m" \
    --io_size="$((4 * reads))k" --norandommap --numjobs="$jobs" --group_reporting --randseed="$1" \
    --output-format=terse --terse-version=3 | tail -n 1 | cut -d';' -f6,8 | tr ';' ' '
}

# has_capacity BYTES: whether every node has it.
has_capacity() { [ "$(metric chordfs_cache_capacity_bytes | awk -v bytes="$1" '$1 == bytes' | wc -l)" = "${#ips[@]}" ]; }

# set_capacity off|on
set_capacity() {
  local value=off bytes=0
  [ "$1" = off ] || { value=$capacity; bytes=$((2 * size_mib << 20)); }
  "$binaries/storage-node" config set "cache.capacity=$value" --node "${ips[0]}" >/dev/null
  wait_until 30 has_capacity "$bytes" || fail "the nodes do not follow cache.capacity=$value: too little memory? see SIZE_MIB"
}

# measure TURN off|on: prints and keeps a line.
measure() {
  local nodes mount hits misses kib iops
  set_capacity "$2"
  go_cold
  read_at_random "$1" >/dev/null
  go_cold
  nodes=$(cpu_of_nodes) mount=$(cpu_of_mount)
  hits=$(sum chordfs_cache_hits_total) misses=$(sum chordfs_cache_misses_total)
  read -r kib iops < <(read_at_random "$1")
  awk -v turn="$1" -v cache="$2" -v kib="$kib" -v iops="$iops" -v n0="$nodes" -v n1="$(cpu_of_nodes)" \
    -v m0="$mount" -v m1="$(cpu_of_mount)" -v h0="$hits" -v h1="$(sum chordfs_cache_hits_total)" \
    -v s0="$misses" -v s1="$(sum chordfs_cache_misses_total)" 'BEGIN {
      reads = kib / 4; looked = h1 - h0 + s1 - s0
      printf "turn %d cache %-3s %7.1f us of the nodes and %7.1f us of the mount for a read, %d reads, %d reads/s, %.1f%% hits\n",
        turn, cache, (n1 - n0) * 1e6 / reads, (m1 - m0) * 1e6 / reads, reads, iops, looked ? 100 * (h1 - h0) / looked : 0
    }' | tee -a "$ring/lines"
}

dd if=/dev/urandom of="$mount_point/hot" bs=1M count="$size_mib" conv=fsync status=none
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "# $(nproc) x ${processor:-$(uname -m)}, Linux $(uname -r), $(awk '/^MemTotal/ { printf "%d", $2 / 1048576 }' /proc/meminfo) GiB, load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "# ${#ips[@]} nodes, file of $size_mib MiB, cache $capacity on each node, $jobs jobs of $reads reads of 4 KiB, $turns turns"
for turn in $(seq "$turns"); do
  # The order changes from turn to turn, so that a drift of the machine counts for both.
  if [ $((turn % 2)) = 1 ]; then order=(off on); else order=(on off); fi
  for cache in "${order[@]}"; do measure "$turn" "$cache"; done
done
awk '{ nodes[$4] += $5; mount[$4] += $11; count[$4]++ }
  END {
    for (cache in count)
      printf "mean, cache %-3s %7.1f us of the nodes, %7.1f us of the mount\n", cache, nodes[cache] / count[cache], mount[cache] / count[cache]
    printf "with the cache the nodes take %.2f times the CPU, nodes and mount together %.2f times\n",
      nodes["on"] / nodes["off"], (nodes["on"] + mount["on"]) / (nodes["off"] + mount["off"])
  }' "$ring/lines"
