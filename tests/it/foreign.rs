//! Foreign Chord nodes in our ring: they own keys and store nothing, without a visible effect at a mount.

use std::{fs, net::SocketAddr, time::Duration};

use harness::{Cluster, ForeignNode, RawRpc, TempMount, binary, run, tree, wait_for};
use serde_json::Value;

fn ring(cluster: &Cluster) -> Value {
    let url = format!("http://{}:5059/ring", cluster.ip(0));
    reqwest::blocking::get(url).expect("the node answers").json().expect("the ring is JSON")
}

/// Waits until the nodes have these states. `states` is sorted.
fn wait_for_states(cluster: &Cluster, states: &[&str]) {
    wait_for("all see the same ring", Duration::from_secs(60), || {
        let ring = ring(cluster);
        let mut found: Vec<&str> =
            ring["nodes"].as_array().unwrap().iter().filter_map(|node| node["state"].as_str()).collect();
        found.sort_unstable();
        if found == states { Ok(()) } else { Err(ring.to_string()) }
    });
}

fn assert_clean(cluster: &Cluster) {
    let node = cluster.ip(0).to_string();
    wait_for("every chunk has its holders", Duration::from_secs(60), || {
        let outcome = run(binary("storage-node"), &[&"check", &"--grace", &"0", &"--node", &node], cluster.folder());
        if outcome.code == Some(0) { Ok(()) } else { Err(format!("{}{}", outcome.stdout, outcome.stderr)) }
    });
}

/// A foreign node joins a ring of three just before one of them, and so owns nearly all of its arc.
fn join_before_the_first(cluster: &Cluster) -> (ForeignNode, u32) {
    let victim = RawRpc::connect(cluster.ip(0)).unwrap().node("get_info", vec![]).unwrap();
    let id = (victim.id as u32).wrapping_sub(1);
    let [a, b, c, _] = cluster.ip(0).octets();
    let foreign =
        ForeignNode::join(SocketAddr::from(([a, b, c, 200], 5057)), id, SocketAddr::from((cluster.ip(1), 5057)));
    wait_for_states(cluster, &["foreign", "up", "up", "up"]);
    (foreign, id)
}

#[test]
fn a_foreign_member_owns_keys_and_others_keep_them() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("before"), tree::bytes(1, 400_000)).unwrap();
    let (foreign, id) = join_before_the_first(&cluster);
    fs::write(mount.join("after"), tree::bytes(2, 400_000)).unwrap();
    let fresh = TempMount::new(&cluster);
    for (name, seed) in [("before", 1), ("after", 2)] {
        assert!(fs::read(fresh.join(name)).unwrap() == tree::bytes(seed, 400_000), "{name}");
    }
    assert_clean(&cluster);
    look_ups_through_it(&cluster, &foreign, id);
    cluster.add_through(foreign.address);
    wait_for_states(&cluster, &["foreign", "up", "up", "up", "up"]);
    fs::write(fresh.join("joined"), tree::bytes(3, 400_000)).unwrap();
    assert!(fs::read(mount.join("joined")).unwrap() == tree::bytes(3, 400_000));
    assert_clean(&cluster);
    drop(foreign);
    fs::write(mount.join("without"), tree::bytes(4, 400_000)).unwrap();
    wait_for_states(&cluster, &["up", "up", "up", "up"]);
    let last = TempMount::new(&cluster);
    for (name, seed) in [("before", 1), ("after", 2), ("joined", 3), ("without", 4)] {
        assert!(fs::read(last.join(name)).unwrap() == tree::bytes(seed, 400_000), "{name}");
    }
    assert_clean(&cluster);
}

/// It speaks no TLS, so it is reached plainly, and only there where the operator allows it.
#[test]
fn a_foreign_member_of_a_ring_with_identities_takes_part_in_look_ups_and_stores_nothing() {
    let mut cluster = Cluster::empty();
    cluster.has_identities = true;
    (0..3).for_each(|_| {
        cluster.add();
    });
    cluster.wait_settled();
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("before"), tree::bytes(1, 400_000)).unwrap();
    let (foreign, id) = join_before_the_first(&cluster);
    look_ups_through_it(&cluster, &foreign, id);
    fs::write(mount.join("after"), tree::bytes(2, 400_000)).unwrap();
    let fresh = TempMount::new(&cluster);
    for (name, seed) in [("before", 1), ("after", 2)] {
        assert!(fs::read(fresh.join(name)).unwrap() == tree::bytes(seed, 400_000), "{name}");
    }
    assert_clean(&cluster);
    drop(foreign);
    wait_for_states(&cluster, &["up", "up", "up"]);
    assert_clean(&cluster);
}

fn look_ups_through_it(cluster: &Cluster, foreign: &ForeignNode, id: u32) {
    let SocketAddr::V4(address) = foreign.address else { panic!("the tests have IPv4 addresses") };
    let mut through_it = RawRpc::connect(*address.ip()).unwrap();
    let mut through_us = RawRpc::connect(cluster.ip(2)).unwrap();
    for key in [0, id, id.wrapping_add(1), id.wrapping_sub(1000), 1 << 30, 3 << 30] {
        wait_for("both find the same owner", Duration::from_secs(20), || {
            let owner =
                |rpc: &mut RawRpc| rpc.node("find_successor", vec![key.into()]).map_err(|error| error.to_string());
            let (ours, theirs) = (owner(&mut through_us)?, owner(&mut through_it)?);
            if ours == theirs { Ok(()) } else { Err(format!("{key}: {ours:?} and {theirs:?}")) }
        });
    }
}

/// Only a node without `--join` founds a namespace, so a ring that a foreign node had founded never got one, and
/// nothing said why.
#[test]
fn a_node_in_the_ring_of_a_foreign_founder_founds_the_namespace_on_request() {
    let mut cluster = Cluster::empty();
    let data = cluster.folder().join("first");
    let first = cluster.push_stopped(data);
    let [a, b, ..] = cluster.ip(first).octets();
    let founder = ForeignNode::found(SocketAddr::from(([a, b, 0, 200], 5057)), 7);
    cluster.start_node_through(first, Some(founder.address));
    wait_for("the node reports what is missing", Duration::from_secs(60), || {
        let answer = reqwest::blocking::get(format!("http://{}:5059/readyz", cluster.ip(first)));
        let (status, text) = answer.map(|it| (it.status(), it.text().unwrap())).map_err(|error| error.to_string())?;
        if status == 503 && text.contains("--found-namespace") { Ok(()) } else { Err(format!("{status} {text}")) }
    });
    cluster.run_args = vec!["--found-namespace"];
    cluster.add_through(founder.address);
    cluster.run_args.clear();
    cluster.wait_ready(first);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), tree::bytes(5, 100_000)).unwrap();
    assert!(fs::read(mount.join("file")).unwrap() == tree::bytes(5, 100_000));

    // The option stays in a unit file: a node that has been in the ring ignores it.
    cluster.kill(first);
    cluster.run_args = vec!["--found-namespace"];
    cluster.start_node(first);
    cluster.wait_ready(first);
}
