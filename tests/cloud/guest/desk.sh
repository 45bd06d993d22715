#!/bin/sh
# A person's mount, run in the workstation's network namespace and a mount namespace of its own: /etc/chordfs.conf names
# the ring, and the command names nothing but where. An /etc and a /mnt of which the machine sees nothing.
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
