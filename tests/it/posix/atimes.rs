//! When files were read last: by default the first read after a change counts.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use harness::{Cluster, TempMount, programs::shell, wait_for};

type Nanos = i128;

fn nanos(secs: i64, nanos: i64) -> Nanos {
    i128::from(secs) * 1_000_000_000 + i128::from(nanos)
}

fn atime(path: &Path) -> Nanos {
    let metadata = fs::symlink_metadata(path).unwrap();
    nanos(metadata.atime(), metadata.atime_nsec())
}

fn ctime(path: &Path) -> Nanos {
    let metadata = fs::symlink_metadata(path).unwrap();
    nanos(metadata.ctime(), metadata.ctime_nsec())
}

/// Reads, and returns the time before and after.
fn read(mount: &TempMount, name: &str) -> (Nanos, Nanos) {
    let before = atime(&mount.join(name));
    shell(&format!("cat {name}"), mount.path()).ok();
    (before, atime(&mount.join(name)))
}

fn see_the_same(one: &TempMount, two: &TempMount, name: &str) {
    let expected = atime(&one.join(name));
    wait_for("the other mount sees it", Duration::from_secs(30), || {
        let seen = atime(&two.join(name));
        if seen == expected { Ok(()) } else { Err(format!("{seen} and not {expected}")) }
    });
}

#[test]
fn a_read_sets_the_atime_once_after_each_change() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    shell("echo text > f; mkdir d; touch d/entry; ln -s f link", mount.path()).ok();
    let changed = ctime(&mount.join("f"));
    let (before, after) = read(&mount, "f");
    assert!(before <= changed && after > changed, "{before} {changed} {after}");
    assert_eq!(read(&mount, "f"), (after, after), "it was not changed since");
    assert_eq!(ctime(&mount.join("f")), changed, "reading changes nothing else");
    shell("echo more >> f", mount.path()).ok();
    assert!(read(&mount, "f").1 > ctime(&mount.join("f")));
    shell("touch -a -d '2001-02-03 04:05:06 UTC' f", mount.path()).ok();
    assert_eq!(atime(&mount.join("f")), nanos(981_173_106, 0), "as a program has set it");
    assert!(read(&mount, "f").1 > ctime(&mount.join("f")));
    let listed = atime(&mount.join("d"));
    shell("ls d", mount.path()).ok();
    assert!(atime(&mount.join("d")) > listed);
    let linked = atime(&mount.join("link"));
    shell("readlink link", mount.path()).ok();
    assert!(atime(&mount.join("link")) > linked);

    // It is kept, and other mounts see it.
    let expected = ["f", "d", "link"].map(|name| atime(&mount.join(name)));
    mount.unmount();
    let fresh = TempMount::new(&cluster);
    assert_eq!(["f", "d", "link"].map(|name| atime(&fresh.join(name))), expected);
}

#[test]
fn options_say_which_reads_count() {
    let cluster = Cluster::start(3);
    let never = TempMount::with_options(&cluster, &["noatime"]);
    let each = TempMount::with_options(&cluster, &["strictatime"]);
    fs::write(never.join("never"), "text").unwrap();
    let (before, after) = read(&never, "never");
    assert_eq!(before, after);
    fs::write(each.join("each"), "text").unwrap();
    let times: Vec<Nanos> = (0..3).map(|_| read(&each, "each").1).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    see_the_same(&each, &never, "each");
}
