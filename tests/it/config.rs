//! The configuration of a ring, and the caches that it configures: `storage-node config`, `/config` and `/status` of
//! real nodes.

use std::{fs, time::Duration};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkName, ChunkRef, Version, take_record},
    chunk_api::encode_refs,
};
use harness::{Cluster, Outcome, Stored, TempMount, binary, run, tree, wait_for};
use serde_json::{Value, json};

/// A node asks for the configuration every two seconds; this leaves room for a busy machine.
const SOON: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);
const HOT_CHUNKS: usize = 20;

fn config(cluster: &Cluster, node: usize, args: &[&str]) -> Outcome {
    let address = cluster.ip(node).to_string();
    let all = [&["config"], args, &["--node", &address]].concat();
    let all: Vec<&dyn AsRef<std::ffi::OsStr>> = all.iter().map(|arg| arg as &dyn AsRef<std::ffi::OsStr>).collect();
    run(binary("storage-node"), &all, cluster.folder())
}

fn shown(cluster: &Cluster, node: usize) -> Value {
    serde_json::from_str(&config(cluster, node, &["show", "--json"]).ok()).unwrap()
}

/// Returns the status and the answer of a request that changes the configuration.
fn put(cluster: &Cluster, node: usize, body: &str) -> (u16, String) {
    let url = format!("http://{}:5059/config", cluster.ip(node));
    let request = reqwest::blocking::Client::new().put(url).bearer_auth(cluster.operator_token(node));
    let answer = request.body(body.to_owned()).send().expect("the node answers");
    (answer.status().as_u16(), answer.text().expect("a text"))
}

#[track_caller]
fn wait_for_caches(cluster: &Cluster, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_for(what, SOON, || {
        let caches: Vec<Value> = cluster.live().into_iter().map(|node| cluster.status(node)["cache"].clone()).collect();
        if caches.iter().all(&is_so) { Ok(()) } else { Err(format!("{caches:?}")) }
    });
}

#[test]
fn a_setting_reaches_all_nodes_also_one_that_joins_later_and_survives_a_restart_of_all() {
    let mut cluster = Cluster::start(2);
    config(&cluster, 0, &["set", "cache.capacity=16M", "cache.policy=random", "pool.largest=5"]).ok();
    let configured = |cache: &Value| {
        cache["capacity_bytes"] == 16 << 20 && cache["policy"] == "random" && cache["config_version"] == 1
    };
    wait_for_caches(&cluster, "both nodes follow", configured);

    cluster.add();
    wait_for_caches(&cluster, "the new node follows", configured);
    let expected = shown(&cluster, 2);
    assert_eq!((&expected["cache"]["capacity"], &expected["pool"]["largest"]), (&json!("16M"), &json!(5)));

    cluster.wait_for_voters(3);
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_settled();
    wait_for_caches(&cluster, "all nodes follow after the restart", configured);
    for node in 0..3 {
        assert_eq!(shown(&cluster, node), expected);
    }
    let (status, text) = put(&cluster, 1, r#"{"version": 0, "cache": {"policy": "lru"}}"#);
    assert!(status == 409 && text.contains("look at it again"), "{status}: {text}");
    assert_eq!(put(&cluster, 1, r#"{"version": 1, "cache": {"policy": "lru"}}"#).0, 200);
    wait_for_caches(&cluster, "the second change reaches all", |cache| cache["policy"] == "lru");
}

#[test]
fn wrong_settings_change_nothing_a_deleted_file_leaves_the_caches_and_clearing_empties_all() {
    let cluster = Cluster::start(2);
    wrong_settings_change_nothing(&cluster);
    let mount = TempMount::new(&cluster);
    let contents = tree::bytes(5, HOT_CHUNKS * 4096);
    fs::write(mount.join("hot"), &contents).unwrap();
    wait_for("both nodes have the file", MINUTE, || match [0, 1].map(|node| cluster.ls(node).len()) {
        [HOT_CHUNKS, HOT_CHUNKS] => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
    let hot = refs(&cluster.ls(0));
    for node in [0, 1, 0, 1] {
        assert_eq!(records(&cluster, node, &hot), HOT_CHUNKS);
    }
    let is_full = |cache: &Value| cache["hits"].as_u64() >= Some(20) && cache["items"].as_u64() >= Some(20);
    wait_for_caches(&cluster, "the second reads are hits", is_full);

    fs::remove_file(mount.join("hot")).unwrap();
    wait_for("both nodes have deleted the chunks", MINUTE, || match [0, 1].map(|node| cluster.ls(node).len()) {
        [0, 0] => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
    assert_eq!([0, 1].map(|node| records(&cluster, node, &hot)), [0, 0]);
    let new = tree::bytes(6, HOT_CHUNKS * 4096);
    fs::write(mount.join("hot"), &new).unwrap();
    fs::File::open(mount.join("hot")).unwrap().sync_all().unwrap();
    for node in [0, 1] {
        let url = format!("http://{}:5058/hot", cluster.ip(node));
        assert!(reqwest::blocking::get(url).unwrap().bytes().unwrap() == new, "node {node}");
    }

    let again = refs(&cluster.ls(0));
    let served = [0, 1].map(|node| records(&cluster, node, &again));
    assert!(served.iter().all(|records| *records > 0), "{served:?}");
    config(&cluster, 1, &["clear-cache"]).ok();
    wait_for_caches(&cluster, "both caches are empty", |cache| cache["items"] == 0);
    assert!(fs::read(mount.join("hot")).unwrap() == new, "clearing changes no file");
}

fn wrong_settings_change_nothing(cluster: &Cluster) {
    let before = shown(cluster, 0);
    for (settings, text) in [
        (&["cache.capacity=900T"][..], "cache.capacity: 989560464998400 bytes are more than this node can give"),
        (&["cache.capacity=0"], "cache.capacity: 0 bytes"),
        (&["cache.policy=fifo"], "cache.policy: \"fifo\" is no replacement policy: lru or random"),
        (&["pool.expand_ratio=0"], "pool.expand_ratio: 0 would not grow"),
        (&["pool.expand_ratio=1"], "pool.expand_ratio: 1 would not grow"),
        (&["pool.expand_ratio=-1"], "pool.expand_ratio: \"-1\" is no number"),
        (&["pool.shrink_ratio=NaN"], "pool.shrink_ratio: \"NaN\" is no number"),
        (
            &["cache.policy=random", "pool.min_miss_rate=0.6", "pool.max_miss_rate=0.3"],
            "pool.min_miss_rate: 0.6 must be",
        ),
        (&["pool.smallest=6", "pool.largest=5"], "pool.smallest: 6 is too large"),
        (&["cache.colour=red"], "cache.colour: no such setting"),
    ] {
        let outcome = config(cluster, 1, &[&["set"], settings].concat());
        assert!(outcome.code == Some(1) && outcome.stderr.contains(text), "{settings:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("nothing was changed"), "{}", outcome.stderr);
    }
    for body in ["", "{", "[]", r#"{"cache": 7}"#, r#"{"pool": {"shrink_ratio": null}}"#, r#"{"version": "x"}"#] {
        let (status, text) = put(cluster, 0, body);
        assert!(status == 400 && text.len() > 10, "{body}: {status} {text}");
    }
    assert_eq!([0, 1].map(|node| shown(cluster, node)), [before.clone(), before]);
}

fn refs(stored: &[Stored]) -> Vec<ChunkRef> {
    let chunk = |stored: &Stored| {
        let name = ChunkName::parse(stored.name.as_bytes()).expect("the name of a chunk");
        ChunkRef { file: name.file, id: ChunkId { version: Version(stored.version), index: name.index } }
    };
    stored.iter().map(chunk).collect()
}

/// The number of records that a node sends for these chunks.
fn records(cluster: &Cluster, node: usize, chunks: &[ChunkRef]) -> usize {
    let url = format!("http://{}:5058/chunks/get", cluster.ip(node));
    let request = reqwest::blocking::Client::new().post(url).body(encode_refs(chunks));
    let mut body: Bytes = request.send().expect("the node answers").bytes().expect("a body");
    std::iter::from_fn(|| (!body.is_empty()).then(|| take_record(&mut body).expect("a sound record"))).count()
}
