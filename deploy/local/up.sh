#!/usr/bin/env bash
# Builds chordfs, starts a ring on this machine and mounts it. Run again, it uses the same data.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/local/common.sh
. "$here/common.sh"

usage() {
  cat <<EOT
usage: deploy/local/up.sh [--nodes N] [--mount DIR] [--data DIR] [--no-mount] [--insecure]

Starts a ring of N storage nodes on 127.0.0.1 to 127.0.0.N and mounts it.
  --nodes N     how many nodes, 1 to 32 (default 3)
  --mount DIR   where to mount (default $(default_mount))
  --data DIR    where the nodes keep their data, logs and pids (default $(default_data))
  --no-mount    start the ring only
  --insecure    a new ring without identities and encryption
EOT
}

nodes=3
mount_point=$(default_mount)
data=$(default_data)
mounting=yes
insecure=()
while [ $# -gt 0 ]; do
  case $1 in
    --nodes | --mount | --data)
      [ $# -ge 2 ] || fail "$1 needs a value (see --help)"
      case $1 in
        --nodes) nodes=$2 ;;
        --mount) mount_point=$2 ;;
        --data) data=$2 ;;
      esac
      shift 2
      ;;
    --no-mount) mounting=no; shift ;;
    --insecure) insecure=(--insecure); shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
done
[[ $nodes =~ ^([1-9]|[12][0-9]|3[0-2])$ ]] || fail "--nodes takes a number from 1 to 32, not $nodes"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# install_missing COMMAND PACKAGE: installs the package with apt-get if the command is missing.
install_missing() {
  command -v "$1" >/dev/null && return
  command -v apt-get >/dev/null || fail "$1 is missing, and so is apt-get to install it: install the package $2"
  say "installing $2"
  as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
}

build() {
  command -v cargo >/dev/null || fail "cargo is missing: install the Rust toolchain from https://rustup.rs"
  say "building (the first time takes some minutes)"
  (cd "$here/../.." && cargo build --release --quiet -p storage-node -p fuse-client)
}

binaries() { printf '%s/release' "${CARGO_TARGET_DIR:-$here/../../target}"; }

ready() { curl -fsS --max-time 2 -o /dev/null "http://$1:5059/readyz" 2>/dev/null; }

# The nodes share this machine's cores: more threads than cores wake each other in vain.
threads_each() { local each=$(($(nproc) / nodes)); printf '%s' $((each > 1 ? each : 1)); }

# A node without --join founds a ring, so only node 1 of a new ring starts without it. Once the ring exists, node 1 joins
# too: if it had lost its folder, it would found a second namespace beside the one that the other nodes keep.
start_node() {
  local number=$1 ip=127.0.0.$1 dir=$data/node-$1 join=()
  if [ "$number" != 1 ]; then
    join=(--join 127.0.0.1)
  elif [ -f "$data/formed" ]; then
    join=(--join 127.0.0.2)
  fi
  mkdir -p "$dir"
  setsid "$(binaries)/storage-node" run --data "$dir" --ip "$ip" "${join[@]}" "${insecure[@]}" --threads "$(threads_each)" \
    </dev/null >>"$dir/log" 2>&1 &
  remember "$data/node-$number.pid" $!
  started+=("$data/node-$number.pid")
}

# Stops the nodes that this run started if it fails half-way; nodes that ran before are left alone.
clean_up() {
  local status=$? pid_file
  [ "$status" = 0 ] && return
  for pid_file in "${started[@]}"; do
    alive "$pid_file" && kill "$(pid_of "$pid_file")" 2>/dev/null
    rm -f "$pid_file"
  done
}

up_or_ended() { ready "127.0.0.$1" || ! alive "$data/node-$1.pid"; }

bring_up() {
  local number=$1
  wait_until 60 up_or_ended "$number" || fail "node $number is not ready after 60 s; see $data/node-$number/log"
  alive "$data/node-$number.pid" || fail "node $number has stopped: $(tail -n 1 "$data/node-$number/log")"
}

# With fewer than three voters the loss of one node could be the loss of the namespace.
enough_voters() {
  local wanted=$((nodes < 3 ? nodes : 3)) voters
  voters=$("$(binaries)/storage-node" status --one 2>/dev/null | sed -n 's/^voters *//p' | tr ',' '\n' | wc -l)
  [ "$voters" -ge "$wanted" ]
}

[ -c /dev/fuse ] || [ "$mounting" = no ] || fail "/dev/fuse is missing: load the kernel module (modprobe fuse), or use --no-mount"
[ "$mounting" = no ] || install_missing fusermount3 fuse3
install_missing curl curl
install_missing cc gcc
build
mkdir -p "$data" || fail "cannot create the folder $data"
started=()
trap clean_up EXIT

# A ring keeps what it has begun with.
if [ -d "$data/node-1/identity" ]; then insecure=(); elif [ -f "$data/formed" ]; then insecure=(--insecure); fi
fresh=()
for number in $(seq "$nodes"); do
  alive "$data/node-$number.pid" && continue
  ! ready "127.0.0.$number" || fail "port 5059 of 127.0.0.$number is in use by another ring: stop that ring first"
  fresh+=("$number")
done
# The first node of a new ring must be ready before others join. Nodes of an existing ring find each other.
for number in "${fresh[@]}"; do
  start_node "$number"
  [ "$number" != 1 ] || [ -f "$data/formed" ] || bring_up 1
done
for number in $(seq "$nodes"); do bring_up "$number"; done
wait_until 60 enough_voters || fail "the namespace has too few voters after 60 s; see $(binaries)/storage-node status"
[ "$nodes" = 1 ] || touch "$data/formed"

if [ "$mounting" = yes ] && ! mountpoint -q "$mount_point"; then
  mkdir -p "$mount_point" || fail "cannot create the folder $mount_point"
  sources=$(seq -s, -f '127.0.0.%g' "$nodes")
  "$(binaries)/mount.chordfs" "$sources" "$mount_point" -o "log=$data/mount.log"
  printf '%s\n' "$mount_point" >"$data/mount"
fi

say "ring:   $nodes nodes, 127.0.0.1 to 127.0.0.$nodes, data in $data"
[ "$mounting" = no ] || say "mount:  $mount_point"
say "programs: storage-node and mount.chordfs are in $(realpath "$(binaries)")"
say "status: $(binaries)/storage-node status"
say "stop:   $here/down.sh --data $data"
