#!/bin/sh
# An instance's boot, run inside its network namespace and a mount namespace of its own: a disk of a size at /srv/chordfs,
# and an /etc and /run of which the machine sees nothing. Then the user data, as cloud-init runs it.
#
#   boot.sh FOLDER DISK_SIZE USER_DATA
#
# The mounts end with the last process in here.
set -eu
folder=$1 size=$2 user_data=$3

# The disk comes first: /srv is hidden by what follows, and with it nothing that is needed.
mount -t tmpfs -o mode=755,size=1m tmpfs /srv
mkdir /srv/chordfs
mount -t tmpfs -o "mode=700,size=$size" tmpfs /srv/chordfs
mkdir -p "$folder/etc" "$folder/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/work" overlay /etc
mount -t tmpfs -o mode=755,size=1m tmpfs /run

# The copy of the machine's mounts that this namespace began with must not keep somebody's FUSE mount alive: it would end
# with this instance only, whenever its own user unmounts it.
while read -r _ point kind _; do
  case $kind in fuse | fuse.*) umount -l "$point" ;; esac
done </proc/self/mounts

cd /
exec "$user_data"
