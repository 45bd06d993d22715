#!/bin/sh
# Installs chordfs on a machine with systemd: programs, units, user. Run again, it replaces them. It starts nothing: write
# the settings (/etc/chordfs/node.env) first, then run `systemctl enable --now chordfs-node`, and in an Auto Scaling group
# `systemctl enable --now chordfs-autoscaler` too.
#
#   install.sh [--with-agent]      from an unpacked package: ../bin and this folder
#
# --with-agent installs CloudWatch's agent too (Amazon Linux), with its settings.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

fail() { echo "error: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "run this as root"
case ${1:-} in
  "" | --with-agent) ;;
  *) fail "usage: install.sh [--with-agent]" ;;
esac
for file in "$here/../bin/storage-node" "$here/../bin/mount.chordfs" "$here/prepare-disk" "$here/chordfs-node.service" \
  "$here/chordfs-autoscaler.service"; do
  [ -f "$file" ] || fail "the package is incomplete: $file is missing"
done

# Installs the packages for mounting and formatting; a minimal image may lack them.
packages() {
  command -v mkfs.xfs >/dev/null && command -v fusermount3 >/dev/null && return
  if command -v dnf >/dev/null; then
    dnf install -y -q xfsprogs fuse3
  elif command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq xfsprogs fuse3 >/dev/null
  else
    fail "xfsprogs and fuse3 are missing, and so are dnf and apt-get to install them: install both packages"
  fi
}

agent() {
  dnf install -y -q amazon-cloudwatch-agent
  install -m 644 "$here/cloudwatch-agent.json" /opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json
  systemctl enable amazon-cloudwatch-agent
}

packages
install -m 755 "$here/../bin/storage-node" /usr/local/bin/storage-node
# The second path is where mount(8) looks for `mount -t chordfs`; the first is in a shell's PATH.
install -m 755 "$here/../bin/mount.chordfs" /usr/local/bin/mount.chordfs
ln -sf /usr/local/bin/mount.chordfs /sbin/mount.chordfs
install -D -m 755 "$here/prepare-disk" /usr/local/lib/chordfs/prepare-disk
install -D -m 644 "$here/chordfs-node.service" /etc/systemd/system/chordfs-node.service
install -D -m 644 "$here/chordfs-autoscaler.service" /etc/systemd/system/chordfs-autoscaler.service
id -u chordfs >/dev/null 2>&1 ||
  useradd --system --user-group --no-create-home --home-dir /srv/chordfs --shell /sbin/nologin chordfs
install -d -m 755 /etc/chordfs
[ "${1:-}" != --with-agent ] || agent
systemctl daemon-reload
