//! Holes: made by fallocate(2), found by lseek(2), kept by copies.

use harness::{Cluster, TempMount, programs::shell};

use super::{folder, prints_the_same_as_on_a_local_disk};

/// Prints where a file has data and where it has holes.
const LAYOUT: &str = "
layout() { python3 -c '
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY); at = 0; size = os.fstat(fd).st_size; parts = []
while at < size:
    try: data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError: parts.append((\"hole\", at, size)); break
    if data > at: parts.append((\"hole\", at, data))
    hole = os.lseek(fd, data, os.SEEK_HOLE); parts.append((\"data\", data, hole)); at = hole
print(size, parts)
' $1; }
";

#[test]
fn holes_are_made_and_found_as_on_a_local_disk() {
    let script = format!(
        "{LAYOUT}
        truncate -s 1M empty; layout empty
        head -c 100000 /dev/urandom > f; cp f whole; layout f
        fallocate -p -o 8192 -l 16384 f; layout f; fallocate -p -o 30000 -l 10000 f; layout f
        fallocate -p -o 90000 -l 1000000 f; layout f
        cmp -n 8192 f whole; cmp -n 5423 -i 24576 f whole
        cmp -n 16384 -i 8192:0 f /dev/zero; cmp -n 10000 -i 30000:0 f /dev/zero; cmp -n 10000 -i 90000:0 f /dev/zero
        fallocate -p -o 10000 -l 100 f; layout f
        cp whole z; fallocate -z -o 98304 -l 20000 z; stat -c %s z; cmp -n 98304 z whole; cmp -i 98304:0 -n 20000 z /dev/zero
        fallocate -z -n -o 120000 -l 20000 z; stat -c %s z
        fallocate -l 50000 small; stat -c %s small; fallocate -n -l 90000 small; stat -c %s small; cmp -n 50000 small /dev/zero
        echo text > after; truncate -s 100000 after; printf end >> after; layout after
        python3 -c '
import os, errno
fd = os.open(\"f\", os.O_RDWR)
for at, whence in [(100000, os.SEEK_DATA), (100000, os.SEEK_HOLE), (5, os.SEEK_DATA), (99999, os.SEEK_HOLE)]:
    try: print(os.lseek(fd, at, whence))
    except OSError as e: print(errno.errorcode[e.errno])
os.pwrite(fd, b\"x\", 12288); print(os.lseek(fd, 8192, os.SEEK_DATA), os.lseek(fd, 12288, os.SEEK_HOLE))
'"
    );
    prints_the_same_as_on_a_local_disk(&folder("holes"), &script);
}

#[test]
fn copies_of_sparse_files_stay_sparse_and_equal() {
    let script = format!(
        "{LAYOUT}
        truncate -s 100M sparse; printf middle | dd of=sparse bs=1 seek=50000000 conv=notrunc status=none
        cp sparse copy; cmp sparse copy; tar -cSf archive.tar sparse; mkdir d; tar -C d -xf archive.tar; cmp sparse d/sparse
        rsync -S sparse rsynced; cmp sparse rsynced
        layout copy; layout d/sparse; [ $(stat -c %s archive.tar) -lt 100000 ] && echo small
        "
    );
    prints_the_same_as_on_a_local_disk(&folder("sparse"), &script);
}

#[test]
fn a_hole_is_seen_by_the_other_mount_and_keeps_what_both_write_beside_it() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    shell("head -c 1000000 /dev/zero | tr '\\0' x > f", one.path()).ok();
    for round in 0..10 {
        let at = round * 50_000;
        shell(&format!("fallocate -p -o {at} -l 30000 f"), two.path()).ok();
        shell(&format!("printf yy | dd of=f bs=1 seek={} conv=notrunc status=none", at + 29_999), one.path()).ok();
        let seen = [&one, &two].map(|mount| std::fs::read(mount.join("f")).unwrap());
        assert!(seen[0] == seen[1], "round {round}");
        let piece = &seen[0][at..at + 30_003];
        assert!(piece[..29_999].iter().all(|byte| *byte == 0) && piece[29_999..] == *b"yyxx", "round {round}");
    }
}
