//! The memory of a mount: its ceilings and a bound beside them, whatever programs do.

use std::fs;

use harness::{Cluster, TempMount, programs::shell};

const MIB: u64 = 1 << 20;

/// A line of /proc/PID/status, in bytes.
fn status_line(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the mount runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("Linux has this line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}

/// A mount that was to use 320 MiB grew to 900 and stayed there.
#[test]
fn a_mount_takes_its_ceilings_and_no_more_than_100_mib_beside_them() {
    let cluster = Cluster::start(3);
    let mount = TempMount::with_options(&cluster, &["cache=64M", "dirty=32M"]);
    let pid = mount.pid();
    let write_and_read = "
        for i in 1 2 3 4; do dd if=/dev/zero of=f$i bs=1M count=64 status=none & done; wait
        for i in 1 2 3 4; do
            dd if=/dev/zero of=g$i bs=64k count=1024 status=none &
            dd if=f$i of=/dev/null bs=1M iflag=direct status=none &
        done; wait
        for i in 1 2 3 4; do
            for k in $(seq 0 40 1000); do
                dd if=/dev/zero of=g$i bs=60k seek=$k count=1 conv=notrunc status=none
                dd if=f$i of=/dev/null bs=64k skip=$k count=8 iflag=direct status=none
            done &
        done; wait
    ";
    shell(write_and_read, mount.path()).ok();
    let peak = status_line(pid, "VmHWM:");
    assert!(peak < (64 + 32 + 100) * MIB, "{} MiB at the peak", peak / MIB);
    // The pages of the program itself are not given back.
    harness::wait::wait_for("memory is given back", std::time::Duration::from_secs(30), || {
        let now = status_line(pid, "RssAnon:") / MIB;
        if now < 64 + 60 { Ok(()) } else { Err(format!("{now} MiB")) }
    });
}
