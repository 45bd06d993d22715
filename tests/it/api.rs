//! The API for programs: a Python program uses it at two nodes, beside a mount that sees the same files.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use harness::{Cluster, TempMount, programs::python_module, python, wait_for};
use reqwest::blocking::Client;

#[test]
fn a_program_and_a_mount_see_the_same_files() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let (node, other) = (cluster.ip(0).to_string(), cluster.ip(2).to_string());
    let outcome = python("api.py", &[&node, &other, &mount.path()], cluster.folder());
    assert_eq!(outcome.ok().trim(), "ok");
}

#[test]
fn a_list_of_keys_is_whole_or_fails_while_a_node_dies() {
    const FOLDERS: usize = 100;
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let url = format!("http://{}:5058", cluster.ip((leader + 1) % 3));
    let http = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    for at in 0..FOLDERS {
        let answer = http.put(format!("{url}/{at}/file")).body("x").send().unwrap();
        assert_eq!(answer.status(), 201);
    }
    let (whole, ended, began) = (AtomicUsize::new(0), AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Relaxed) && began.elapsed() < Duration::from_secs(150) {
                if let Some(keys) = list(&http, &url) {
                    assert_eq!(keys, FOLDERS, "a list that ended well is not whole");
                    whole.fetch_add(1, Relaxed);
                }
            }
        });
        wait_for("lists are whole", Duration::from_secs(60), || more_than(&whole, 2));
        cluster.kill(leader);
        let before = whole.load(Relaxed);
        wait_for("lists are whole again", Duration::from_secs(60), || more_than(&whole, before + 2));
        ended.store(true, Relaxed);
    });
}

/// The keys of a whole list; `None` if it was refused or cut off.
fn list(http: &Client, url: &str) -> Option<usize> {
    let answer = http.post(format!("{url}/api/list_keys")).send().ok()?;
    let status = answer.status().as_u16();
    let text = answer.text().ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    match status {
        200 => Some(json["keys"].as_array().expect("a list").len()),
        _ => {
            assert_eq!((status, &json["error"]["code"]), (503, &503.into()));
            None
        }
    }
}

fn more_than(count: &AtomicUsize, least: usize) -> Result<(), String> {
    let count = count.load(Relaxed);
    if count > least { Ok(()) } else { Err(format!("{count} lists")) }
}

/// Schemathesis makes requests from the description, good and bad ones, and compares the answers with it.
#[test]
fn a_node_answers_as_its_description_says() {
    let cluster = Cluster::start(1);
    let description = format!("http://{}:5058/api/openapi.json", cluster.ip(0));
    // An endless stream is nothing for it. And a schema cannot tell which names are too long in bytes, or which
    // preconditions hold, so whether a request is refused is left to the other tests.
    let args: [&dyn AsRef<std::ffi::OsStr>; 11] = [
        &"run",
        &description,
        &"--exclude-path",
        &"/api/events",
        &"--exclude-checks",
        &"positive_data_acceptance,negative_data_rejection",
        &"--max-time",
        &"30",
        &"--seed",
        &"1",
        &"--no-color",
    ];
    python_module("schemathesis.cli", &args, cluster.folder()).ok();
}
