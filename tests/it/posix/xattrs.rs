//! Extended attributes and access control lists: what programs see on a mount is what they see on a local disk.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use harness::{Cluster, TempMount, programs::shell};

use super::{folder, prints_the_same_as_on_a_local_disk};

#[test]
fn attributes_are_as_on_a_local_disk() {
    let script = "
        error() { \"$@\" 2>&1 >/dev/null | sed 's/.*: //' || true; }
        touch f; mkdir d; ln -s f s; mkfifo p
        setfattr -n user.one -v 1 f; setfattr -n user.empty f; setfattr -n trusted.t -v x s
        setfattr -n security.mine -v y p; setfattr -n user.dir -v z d
        getfattr -d -m - f d; getfattr -h -d -m - s p
        error setfattr -h -n user.no -v 1 s; error setfattr -x user.absent f; error getfattr -n user.absent f
        setfattr -n user.one -v 22 f; setfattr -x user.empty f; getfattr -d f
        python3 -c '
import os, errno
def error(call, *args):
    try: call(*args); print(\"fine\")
    except OSError as e: print(errno.errorcode[e.errno])
error(os.setxattr, \"f\", \"user.one\", b\"x\", os.XATTR_CREATE)
error(os.setxattr, \"f\", \"user.none\", b\"x\", os.XATTR_REPLACE)
error(os.setxattr, \"f\", \"user.\" + 250 * \"n\", b\"x\")
error(os.setxattr, \"f\", \"user.\" + 251 * \"n\", b\"x\")
error(os.setxattr, \"f\", \"strange.name\", b\"x\")
error(os.setxattr, \"f\", \"system.strange\", b\"x\")
print(sorted(os.listxattr(\"f\"))[0][:20], len(os.getxattr(\"f\", \"user.one\")))
'
        cp -a f copy; getfattr -d copy; mv f moved; getfattr -d -m user.one moved; ln moved link; getfattr -d -m user.one link
    ";
    prints_the_same_as_on_a_local_disk(&folder("xattrs"), script);
}

#[test]
fn lists_are_as_on_a_local_disk() {
    let script = "
        umask 027
        touch f; setfacl -m u:1000:rw,g:1001:r f; stat -c %a f; getfacl -n f
        chmod 600 f; getfacl -n f; chmod 751 f; getfacl -n f; setfacl -b f; getfacl -n f; stat -c %a f
        mkdir d; setfacl -d -m u::rwx,u:1000:rwx,g::r-x,o::- d; touch d/f; mkdir d/d d/d/e; mkfifo d/p; ln -s f d/s
        getfacl -n d d/f d/d d/d/e d/p; stat -c '%a %n' d d/* d/d/e
        setfacl -k d; touch d/plain; stat -c %a d/plain; getfacl -n d/plain
        ! setfacl -d -m u:1000:r f 2>/dev/null; mkdir sgid; chmod 2775 sgid; setfacl -d -m g:1001:rwx sgid
        mkdir sgid/below; stat -c %a sgid/below; getfacl -n sgid/below
        cp -a d copy; getfacl -n copy/f; umask 0; touch masked; stat -c %a masked; umask 077; touch masked2; stat -c %a masked2
    ";
    prints_the_same_as_on_a_local_disk(&folder("lists"), script);
}

fn may(uid: u32, command: &str, folder: &Path) -> bool {
    use std::os::unix::process::CommandExt;
    let mut run = Command::new("sh");
    run.args(["-c", command]).current_dir(folder).uid(uid).gid(uid).stderr(std::process::Stdio::null());
    run.status().unwrap().success()
}

#[test]
fn lists_are_enforced_for_users_and_seen_by_the_other_mount_at_once() {
    let cluster = Cluster::start(3);
    let mounts = [(); 2].map(|()| TempMount::with_options(&cluster, &["allow_other"]));
    let [one, two] = mounts.each_ref().map(|mount| mount.path());
    shell("echo text > f; chmod 600 f; chmod 755 .; echo more > other; chmod 644 other", one);
    for round in 0..10 {
        let may_read = [1000, 1001].map(|uid| may(uid, "cat f >/dev/null", two));
        assert_eq!(may_read, [false, false], "{round}");
        shell("setfacl -m u:1000:rw f", one).ok();
        let may_read = [1000, 1001].map(|uid| may(uid, "cat f >/dev/null", two));
        assert_eq!(may_read, [true, false], "{round}");
        assert!(may(1000, "echo line >> f", two) && !may(1001, "echo line >> f", one));
        shell("setfacl -b f; chmod 600 f; setfacl -m u:1000:- other", two);
        assert!(!may(1000, "cat other >/dev/null", one) && may(1001, "cat other >/dev/null", one));
        shell("setfacl -b other; chmod 644 other", one);
    }
}

#[test]
fn archives_and_copies_keep_attributes_and_lists() {
    let folder = folder("archives");
    let script = "
        mkdir from; cd from; touch f; mkdir d; setfattr -n user.origin -v here f; setfacl -m u:1000:rwx f
        setfacl -d -m g:1001:rx d; setfacl -m g:1001:rx d; touch d/inside; cd ..
        mkdir tar rsync
        tar --acls --xattrs --xattrs-include='*' -C from -cf archive.tar . && tar --acls --xattrs --xattrs-include='*' -C tar -xf archive.tar
        rsync -aHAX from/ rsync/
        cp -a from copy
        for tree in tar rsync copy; do
            diff <(cd from; getfacl -nR .; getfattr -Rd -m - .) <(cd $tree; getfacl -nR .; getfattr -Rd -m - .)
        done
        echo same
    ";
    assert_eq!(shell(script, &folder).ok(), "same\n");
}

/// The kernel leaves it to the mount to take the bits away.
#[test]
fn a_set_id_program_that_somebody_else_writes_loses_its_bits() {
    let script = "
        for mode in 6777 6767 2767; do
            echo text > f$mode; chmod $mode f$mode
            setpriv --reuid 1000 --regid 1000 --clear-groups sh -c \"echo more >> f$mode\"; stat -c %a f$mode
            chmod $mode f$mode; setpriv --reuid 1000 --regid 1000 --clear-groups truncate -s 1 f$mode; stat -c %a f$mode
            chmod $mode f$mode; echo more >> f$mode; stat -c %a f$mode
            chmod $mode f$mode; chown 7 f$mode; stat -c %a f$mode
        done
        mkdir d; chmod 6775 d; chown 7 d; stat -c %a d
    ";
    let folder = folder("set-id");
    std::fs::set_permissions(&*folder, PermissionsExt::from_mode(0o777)).unwrap();
    prints_the_same_as_on_a_local_disk(&folder, script);
}

#[test]
fn attributes_survive_a_restart_of_the_ring() {
    let mut cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    shell("touch f; setfattr -n user.kept -v here f; setfacl -m u:1000:rwx f; sync f", mount.path());
    cluster.kill(0);
    cluster.start_node(0);
    cluster.wait_ready(0);
    // Another mount remembers nothing.
    let fresh = TempMount::new(&cluster);
    let seen = shell("getfattr --only-values -n user.kept f; getfacl -n f", fresh.path()).ok();
    assert!(seen.starts_with("here") && seen.contains("user:1000:rwx"), "{seen}");
}
