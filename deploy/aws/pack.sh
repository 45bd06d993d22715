#!/usr/bin/env bash
# Makes the package that the image is built from: the two programs and the files of deploy/node.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
usage() {
  cat <<EOT
usage: deploy/aws/pack.sh [--binaries DIR]

Makes target/chordfs-VERSION-ARCH.tar.gz and prints its path. Without --binaries it makes a release build of the programs.
Build on a machine whose C library is no newer than Amazon Linux 2023's (2.34), or in its container.
EOT
}

binaries=
while [ $# -gt 0 ]; do
  case $1 in
    --binaries) [ $# -ge 2 ] || fail "--binaries needs a folder"; binaries=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
done
if [ -z "$binaries" ]; then
  cargo build --release --quiet -p storage-node -p fuse-client --features storage-node/aws,fuse-client/aws >&2
  binaries=${CARGO_TARGET_DIR:-target}/release
fi
for program in storage-node mount.chordfs; do
  [ -x "$binaries/$program" ] || fail "$binaries has no $program: build it, or give another folder with --binaries"
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
package=$PWD/target/chordfs-${version:-0.0.0}-$(uname -m).tar.gz
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
mkdir -p "$staging/bin" "$staging/node" target
# -L: mount.chordfs is a link to the program in the build folder.
cp -L "$binaries/storage-node" "$binaries/mount.chordfs" "$staging/bin/"
strip "$staging"/bin/* 2>/dev/null || true
cp deploy/node/* deploy/aws/cloudwatch-agent.json "$staging/node/"
# Fixed owners and order: the archive does not depend on the user who packs it or on the order of a folder.
tar --owner=0 --group=0 --sort=name -czf "$package" -C "$staging" bin node
printf '%s\n' "$package"
