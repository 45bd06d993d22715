//! The API for programs: a Python program uses it at two nodes, beside a mount that sees the same files.

use harness::{Cluster, TempMount, python};

#[test]
fn a_program_and_a_mount_see_the_same_files() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let (node, other) = (cluster.ip(0).to_string(), cluster.ip(2).to_string());
    let outcome = python("api.py", &[&node, &other, &mount.path()], cluster.folder());
    assert_eq!(outcome.ok().trim(), "ok");
}
