#!/bin/sh
# Boots an instance inside its network namespace and a mount namespace of its own: mounts a disk of a given size at
# /srv/chordfs, makes /etc and /run private to the instance, then runs the user data, as cloud-init does.
#
#   boot.sh FOLDER DISK_SIZE USER_DATA
#
# The mounts disappear with the last process of the mount namespace.
set -eu
folder=$1 size=$2 user_data=$3

# An empty /srv hides the machine's; nothing in that is needed.
mount -t tmpfs -o mode=755,size=1m tmpfs /srv
mkdir /srv/chordfs
mount -t tmpfs -o "mode=700,size=$size" tmpfs /srv/chordfs
mkdir -p "$folder/etc" "$folder/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/work" overlay /etc
mount -t tmpfs -o mode=755,size=1m tmpfs /run

# This namespace began with a copy of the machine's mounts. The copies of FUSE mounts must go: they would keep a mount
# alive until this instance ends, even after its user has unmounted it.
while read -r _ point kind _; do
  case $kind in fuse | fuse.*) umount -l "$point" ;; esac
done </proc/self/mounts

cd /
exec "$user_data"
