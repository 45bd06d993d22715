//! The short forms of `tests/experiments.sh`: they run to their end, their tables are whole, and what they observe is
//! right. They are too short for figures, so no time is looked at.

use std::{ffi::OsStr, fs, path::Path};

use harness::{binary, run};
use tempfile::TempDir;

#[test]
fn load_measures_every_operation_of_all_clients() {
    let outcome = Outcome::of("load");
    let operations = outcome.column("operation");
    assert_eq!(operations, ["read", "write", "list"]);
    assert_eq!(outcome.column("measured"), ["100"; 3], "2 repetitions of 5 clients with 10 of each");
    assert_eq!(outcome.column("failed attempts"), ["0"; 3]);
}

#[test]
fn caching_compares_caches_that_are_on_with_caches_that_are_off() {
    // With one in 43 seeds no write follows any of the twenty reads at probability 0.2.
    let outcome = Outcome::with("caching", &[&"--seed", &"1"]);
    assert_eq!(outcome.column("probability"), ["0.0", "0.2", "0.4", "0.6", "0.8", "all"]);
    let (on, off) = (outcome.column("hits on"), outcome.column("hits off"));
    assert!(on[..5].iter().all(|hits| hits.parse::<u64>().is_ok_and(|hits| hits > 0)), "{on:?}");
    assert_eq!(off[..5], ["0"; 5]);
    assert_eq!(outcome.column("write ms on")[0], "-", "with probability 0 nothing is written");
    assert!(outcome.column("write ms on")[1..5].iter().all(|latency| latency.contains('±')));
}

#[test]
fn faults_lose_no_operation_and_leave_equal_voters_and_three_holders() {
    let outcome = Outcome::of("faults");
    let runs = outcome.column("run");
    assert_eq!(runs, ["undisturbed 1", "disturbed 1", "all disturbed", "published"]);
    assert_eq!(outcome.column("lost"), ["0", "0", "0", "26"]);
    assert_eq!(outcome.column("operations")[..2], ["240"; 2]);
    for step in ["follower killed", "follower back", "leader killed", "leader back"] {
        assert!(outcome.text.contains(step), "no {step}:\n{}", outcome.text);
    }
    assert!(outcome.text.contains("equal names through 5 nodes, and in 3 voters"), "{}", outcome.text);
    assert!(outcome.text.contains("three equal holders of every chunk"), "{}", outcome.text);
}

#[test]
fn resizing_fails_no_operation_while_nodes_join_and_leave() {
    let outcome = Outcome::of("resizing");
    let (pools, nodes) = (outcome.column("pool"), outcome.column("nodes"));
    let rows = || pools.iter().zip(&nodes);
    let of = |pool: &str| rows().filter(|row| *row.0 == pool).map(|row| *row.1).collect::<Vec<_>>();
    assert_eq!(of("stays"), ["2", "all"]);
    assert_eq!(of("grows"), ["1", "1 to 2", "2", "2 to 3", "3", "all"]);
    assert_eq!(of("shrinks"), ["3", "3 to 2", "2", "2 to 1", "1", "all"]);
    assert_eq!(outcome.column("failed operations"), ["0"; 14]);
    for (requests, nodes) in outcome.column("requests").iter().zip(&nodes).filter(|(_, nodes)| nodes.len() == 1) {
        assert!(requests.parse::<u64>().is_ok_and(|requests| requests >= 20), "{requests} with {nodes}");
    }
    assert!(outcome.text.contains("every read is compared with what was last written"), "{}", outcome.text);
}

#[test]
fn a_ring_that_grows_holds_each_chunk_as_often_as_it_can() {
    let outcome = Outcome::of("ring");
    let (nodes, holders) = (outcome.column("nodes"), outcome.column("holders"));
    for (size, copies) in [(1, 1), (2, 2), (5, 3)] {
        let rows: Vec<_> = (0..nodes.len()).filter(|&row| nodes[row] == size.to_string()).collect();
        assert_eq!(rows.len(), 7, "{}", outcome.text);
        for row in rows {
            assert_eq!(holders[row].split(' ').count(), copies, "{}", outcome.text);
        }
    }
}

#[test]
fn the_scaler_grows_a_pool_that_misses_and_shrinks_one_that_hits() {
    let outcome = Outcome::of("scaler");
    let (what, nodes) = (outcome.column("what"), outcome.column("nodes"));
    let of = |kind: &str| what.iter().zip(&nodes).filter(|row| *row.0 == kind).map(|row| *row.1).collect::<Vec<_>>();
    let changes: Vec<_> = of("decision").into_iter().filter(|change| *change != "1 → 1").collect();
    assert_eq!(changes, ["1 → 2", "2 → 1"], "{}", outcome.text);
    assert!(of("reads of much").contains(&"2") && of("reads of little").contains(&"1"), "{}", outcome.text);
    assert_eq!(outcome.column("failed reads").last(), Some(&"0"), "{}", outcome.text);
}

/// The files that an experiment has written.
struct Outcome {
    text: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Outcome {
    #[track_caller]
    fn of(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// The outcome of an experiment with further arguments.
    fn with(name: &str, arguments: &[&dyn AsRef<OsStr>]) -> Self {
        let folder = TempDir::with_prefix("chordfs-experiments-").expect("a temporary folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments.sh");
        let programs = binary("storage-node").parent().expect("it is in a folder").to_owned();
        let out = folder.path();
        let common: [&dyn AsRef<OsStr>; 6] = [&name, &"--short", &"--programs", &programs, &"--out", &out];
        run(script, &[&common, arguments].concat(), out).ok();
        let read = |kind: &str| fs::read_to_string(out.join(format!("{name}.{kind}"))).expect("it was written");
        let picture = read("svg");
        for condition in ["seed ", "load average", "repetition", "cores of", "commit "] {
            assert!(picture.contains(condition), "the picture does not say: {condition}");
        }
        let png = fs::read(out.join(format!("{name}.png"))).expect("it was written");
        assert!(png.starts_with(b"\x89PNG"));
        let csv = read("csv");
        let mut lines = csv.lines().map(cells);
        let header = lines.next().expect("a table has a header");
        Self { text: read("txt"), header, rows: lines.collect() }
    }

    #[track_caller]
    fn column(&self, name: &str) -> Vec<&str> {
        let at = self.header.iter().position(|column| column == name);
        let at = at.unwrap_or_else(|| panic!("no column {name:?} in {:?}", self.header));
        self.rows.iter().map(|row| row[at].as_str()).collect()
    }
}

/// The cells of a line of CSV; only the last one may hold commas.
fn cells(line: &str) -> Vec<String> {
    let plain = line.split('"').next().unwrap_or_default();
    plain.split(',').map(str::to_owned).collect()
}
