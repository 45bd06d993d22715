//! The experiment of the course project that chordfs began as: one node and three small files, a second node, five
//! nodes, a file of seven chunks; every chunk ends on exactly three nodes.

use std::{collections::HashMap, fs, time::Duration};

use harness::{Cluster, Stored, python, tree, wait_for};

fn upload(cluster: &Cluster, name: &str, contents: &[u8]) {
    let path = cluster.folder().join(name);
    fs::write(&path, contents).unwrap();
    python("upload.py", &[&cluster.ip(0).to_string(), &path], cluster.folder()).ok();
}

/// The nodes that list each chunk.
fn holders(cluster: &Cluster) -> HashMap<Stored, Vec<usize>> {
    let mut holders: HashMap<Stored, Vec<usize>> = HashMap::new();
    for node in cluster.live() {
        for stored in cluster.ls(node) {
            holders.entry(stored).or_default().push(node);
        }
    }
    holders
}

fn wait_for_copies(cluster: &Cluster, chunks: usize, copies: usize) {
    wait_for(&format!("{chunks} chunks on {copies} nodes each"), Duration::from_secs(60), || {
        let holders = holders(cluster);
        if holders.len() == chunks && holders.values().all(|nodes| nodes.len() == copies) {
            return Ok(());
        }
        Err(format!("{holders:?}"))
    });
}

fn contents_are_equal_everywhere(cluster: &Cluster) {
    for (stored, nodes) in holders(cluster) {
        assert!(stored.bytes > 0, "{stored:?} is empty");
        let bodies: Vec<_> = nodes
            .iter()
            .map(|&node| {
                let url = format!("http://{}:5058/{}", cluster.ip(node), stored.name);
                reqwest::blocking::get(url).unwrap().bytes().unwrap()
            })
            .collect();
        assert!(bodies.iter().all(|body| *body == bodies[0] && body.len() as u64 == stored.bytes), "{stored:?}");
    }
}

#[test]
fn every_chunk_ends_on_exactly_three_nodes() {
    let mut cluster = Cluster::start(1);
    for (seed, name) in ["a.txt", "b.txt", "c.txt"].into_iter().enumerate() {
        upload(&cluster, name, &tree::bytes(seed as u64, 1000));
    }
    wait_for_copies(&cluster, 3, 1);
    cluster.add();
    cluster.wait_settled();
    wait_for_copies(&cluster, 3, 2);
    for _ in 0..3 {
        cluster.add();
    }
    cluster.wait_settled();
    let seven = tree::bytes(9, 6 * 4000 + 7);
    upload(&cluster, "d.txt", &seven);
    wait_for_copies(&cluster, 10, 3);
    contents_are_equal_everywhere(&cluster);
    let target = cluster.folder().join("back");
    python("download.py", &[&cluster.ip(3).to_string(), &"d.txt", &target], cluster.folder()).ok();
    assert_eq!(fs::read(target).unwrap(), seven);
}

/// The chunks that `from` hands to `to` through the old scripts' call.
fn handed_over(cluster: &Cluster, from: usize, to: usize) -> Vec<String> {
    let own = harness::raw_rpc::RawRpc::connect(cluster.ip(to)).unwrap().node("get_info", vec![]).unwrap();
    let answer = reqwest::blocking::Client::new()
        .post(format!("http://{}:5059/notify_join_system", cluster.ip(from)))
        .json(&serde_json::json!({"ip": own.ip, "port": own.port, "id": own.id}))
        .send()
        .unwrap();
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().unwrap();
    serde_json::from_value(answer["files"].clone()).unwrap()
}

/// Each of two nodes owns a part of the circle: together they hand over every chunk once.
#[test]
fn the_old_join_call_hands_over_what_the_other_owns() {
    let cluster = Cluster::start(2);
    upload(&cluster, "e.txt", &tree::bytes(1, 20 * 4000));
    wait_for_copies(&cluster, 20, 2);
    let (one, two) = (handed_over(&cluster, 0, 1), handed_over(&cluster, 1, 0));
    assert!(!one.is_empty() && !two.is_empty(), "{one:?} {two:?}");
    let mut all = [one, two].concat();
    all.sort();
    let mut expected: Vec<_> = (1..=20).map(|index| format!("e.txt_chunk_{index}")).collect();
    expected.sort();
    assert_eq!(all, expected);
}
