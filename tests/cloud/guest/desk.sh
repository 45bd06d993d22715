#!/bin/sh
# Mounts as a user does who has configured the ring in /etc/chordfs.conf: the command names only the mount point. Runs
# in the workstation's network namespace and a mount namespace of its own, with a private /etc and /mnt.
#
#   desk.sh FOLDER SOURCE
set -eu
folder=$1 source=$2

mkdir -p "$folder/etc" "$folder/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/work" overlay /etc
mount -t tmpfs -o mode=755,size=1m tmpfs /mnt
mkdir /mnt/chord
printf '# the ring\nring = "%s"\n' "$source" >/etc/chordfs.conf
cd /
exec mount.chordfs /mnt/chord
