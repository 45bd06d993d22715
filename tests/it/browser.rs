//! The pages that nodes serve, in a real browser.

use std::{ffi::OsStr, fs, process::Command, time::Duration};

use harness::{Cluster, LocalPool, binary, programs::run_command};

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

/// From one node to `largest` and back.
fn resize_by_buttons(largest: usize) {
    let pool = LocalPool::start(&["--min", "1", "--max", "8", "--capacity", "64M", "--", "--history-period", "3s"]);
    pool.wait_ready();
    let node = pool.ip().to_string();
    let mut limit = Command::new(binary("storage-node"));
    limit.args(["config", "set", &format!("pool.largest={largest}"), "--node", &node]);
    run_command(&mut limit, Duration::from_secs(30)).ok();
    let token = fs::read_to_string(pool.data().join("1/operator-token")).unwrap();
    let args: [&dyn AsRef<OsStr>; 4] = [&node, &token.trim(), &largest.to_string(), &pool.data()];
    let shown = harness::browser("pool_buttons.py", &args, &pool.data());
    assert_eq!(shown.ok().trim(), "ok", "{}", pool.log());
}

#[test]
fn people_grow_and_shrink_the_pool_by_buttons() {
    resize_by_buttons(3);
}

#[test]
#[ignore = "slow: eight nodes come and go one by one; SLOW_TESTS=1 tests/check.sh runs it"]
fn people_grow_the_pool_to_eight_nodes_and_shrink_it_by_buttons() {
    resize_by_buttons(8);
}
