//! The pages that nodes serve, in a real browser.

use std::ffi::OsStr;

use harness::Cluster;

#[test]
fn people_use_the_page_of_files() {
    let cluster = Cluster::start(1);
    let node = cluster.ip(0).to_string();
    assert_eq!(harness::browser("files_page.py", &[&node], cluster.folder()).ok().trim(), "ok");
}

#[test]
fn people_watch_the_console_while_nodes_fail() {
    let mut cluster = Cluster::empty();
    cluster.run_args = vec!["--history-period", "3s"];
    for _ in 0..3 {
        cluster.add();
    }
    cluster.wait_settled();
    let [node, dying] = [0, 2].map(|at| cluster.ip(at).to_string());
    let [pid, dying_pid] = [0, 2].map(|at| cluster.pid(at).to_string());
    let args: [&dyn AsRef<OsStr>; 4] = [&node, &pid, &dying, &dying_pid];
    assert_eq!(harness::browser("console_page.py", &args, cluster.folder()).ok().trim(), "ok");
}

#[test]
fn operators_change_the_ring_in_the_console() {
    let cluster = Cluster::start(2);
    let (node, other) = (cluster.ip(0).to_string(), cluster.ip(1).to_string());
    let args: [&dyn AsRef<OsStr>; 3] = [&node, &cluster.operator_token(0), &other];
    assert_eq!(harness::browser("operator_forms.py", &args, cluster.folder()).ok().trim(), "ok");
}
