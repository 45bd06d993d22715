//! Nodes that die during a write. No acknowledged data is lost, and the program at the mount sees no error.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use harness::{Cluster, TempMount, binary, run, tree, wait_for};

/// Kills a node while a file of `len` bytes is being written, and compares the file afterwards.
fn write_and_kill(cluster: &mut Cluster, mount: &TempMount, name: &str, victim: usize, len: u64) {
    let path = mount.join(name);
    let seed = victim as u64;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = File::create(&path)?;
            tree::write_stream(&mut file, seed, len)?;
            file.sync_all()
        });
        wait_for("the copy is under way", Duration::from_secs(60), || match fs::metadata(&path) {
            Ok(found) if found.len() > len / 4 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        cluster.kill(victim);
        writer.join().expect("the writer does not panic").expect("the copy ends without an error");
    });
    let mut expected = cluster.folder().to_owned();
    expected.push(format!("expected-{name}"));
    tree::write_stream(&mut File::create(&expected).unwrap(), seed, len).unwrap();
    assert_eq!(tree::digest(&path).unwrap(), tree::digest(&expected).unwrap(), "{name} with the node dead");
}

#[test]
fn a_copy_survives_the_death_of_any_node_and_of_the_leader() {
    copies_survive(192 << 20);
}

#[test]
#[ignore = "slow: two copies of 1 GiB; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_copy_of_a_gibibyte_survives_the_death_of_any_node_and_of_the_leader() {
    copies_survive(1 << 30);
}

/// Copies `len` bytes while a node other than the leader dies, and again while the leader dies.
fn copies_survive(len: u64) {
    let mut cluster = Cluster::start(5);
    let mount = TempMount::new(&cluster);
    let first = cluster.leader();
    let other = (0..5).find(|&node| node != first).unwrap();
    for (name, victim) in [("one", other), ("leading", first)] {
        write_and_kill(&mut cluster, &mount, name, victim, len);
        cluster.start_node(victim);
        cluster.wait_settled();
    }
    // Through a mount that has nothing cached, after all nodes are back.
    let fresh = TempMount::new(&cluster);
    for name in ["one", "leading"] {
        let expected = cluster.folder().join(format!("expected-{name}"));
        assert_eq!(tree::digest(&fresh.join(name)).unwrap(), tree::digest(&expected).unwrap(), "{name}");
    }
}

#[test]
fn synced_data_survives_a_crash_of_all_nodes() {
    let mut cluster = Cluster::start(5);
    let mount = TempMount::new(&cluster);
    let mut written = Vec::new();
    for seed in 0..20_u64 {
        let contents = tree::bytes(seed, 1 + seed as usize * 9_000);
        let mut file = File::create(mount.join(format!("f{seed}"))).unwrap();
        file.write_all(&contents).unwrap();
        file.sync_all().unwrap();
        written.push(contents);
    }
    for node in 0..5 {
        cluster.kill(node);
    }
    for node in 0..5 {
        cluster.start_node(node);
    }
    cluster.wait_settled();
    let fresh = TempMount::new(&cluster);
    for (seed, contents) in written.iter().enumerate() {
        for at in [&mount, &fresh] {
            assert!(fs::read(at.join(format!("f{seed}"))).unwrap() == *contents, "f{seed}");
        }
    }
}

/// A small `fsync` is in the log of the namespace only, until the leader has stored its chunks on their holders.
#[test]
fn a_small_fsync_survives_a_crash_of_all_nodes_before_its_chunks_are_stored() {
    let mut cluster = Cluster::start(3);
    let (mount, leader) = (TempMount::new(&cluster), cluster.leader());
    let mut written = Vec::new();
    // On a busy machine the chunks of the first ones may be stored before the leader is asked.
    while written.len() < 10 || cluster.status(leader)["namespace"]["logged"]["chunks"] == 0 {
        let contents = tree::bytes(written.len() as u64, 1 + written.len() * 1_000);
        let mut file = File::create(mount.join(format!("f{}", written.len()))).unwrap();
        file.write_all(&contents).unwrap();
        file.sync_all().unwrap();
        written.push(contents);
        assert!(written.len() < 60, "the log has never kept any data");
    }
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_settled();
    let fresh = TempMount::new(&cluster);
    for (seed, contents) in written.iter().enumerate() {
        assert!(fs::read(fresh.join(format!("f{seed}"))).unwrap() == *contents, "f{seed}");
    }
    let leader = cluster.leader();
    wait_for(
        "the log keeps no data",
        Duration::from_secs(30),
        || match &cluster.status(leader)["namespace"]["logged"] {
            logged if logged["chunks"] == 0 => Ok(()),
            logged => Err(logged.to_string()),
        },
    );
    let chunks: usize = written.iter().map(|contents| contents.len().div_ceil(4096)).sum();
    wait_for("all nodes have all chunks", Duration::from_secs(60), || {
        let counts: Vec<usize> = (0..3).map(|node| cluster.ls(node).len()).collect();
        if counts == [chunks; 3] { Ok(()) } else { Err(format!("{counts:?}, not {chunks}")) }
    });
}

#[test]
fn a_node_that_was_away_gets_what_it_missed() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("before"), tree::bytes(1, 100_000)).unwrap();
    cluster.kill(2);
    fs::write(mount.join("after"), tree::bytes(2, 100_000)).unwrap();
    cluster.start_node(2);
    cluster.wait_settled();
    wait_for("all three nodes have the same chunks", Duration::from_secs(60), || {
        let lists: Vec<_> = (0..3)
            .map(|node| {
                let mut list = cluster.ls(node);
                list.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
                list
            })
            .collect();
        let lens: Vec<_> = lists.iter().map(Vec::len).collect();
        if lists[0] == lists[1] && lists[1] == lists[2] && lens[0] >= 50 { Ok(()) } else { Err(format!("{lens:?}")) }
    });
}

/// A node without a vote took itself for new when it was started without `--join`: it founded a namespace of its own
/// and never started again. Of a ring of five, three came back.
#[test]
fn all_nodes_find_their_ring_again_without_join() {
    let mut cluster = Cluster::start(5);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), tree::bytes(3, 500_000)).unwrap();
    for node in 0..5 {
        cluster.kill(node);
        cluster.start_node_alone(node);
        cluster.wait_ready(node);
    }
    for node in 0..5 {
        cluster.kill(node);
    }
    for node in 0..5 {
        cluster.start_node_alone(node);
    }
    for node in 0..5 {
        cluster.wait_ready(node);
    }
    cluster.wait_settled();
    assert!(fs::read(mount.join("file")).unwrap() == tree::bytes(3, 500_000));
}

/// One flipped byte in a voter's log used to cost all entries behind it, and then the whole namespace folder.
#[test]
fn a_voter_with_a_damaged_log_refuses_to_start_and_is_filled_by_the_others_after_rejoin() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), tree::bytes(7, 300_000)).unwrap();
    let victim = (cluster.leader() + 1) % 3;
    (0..200).for_each(|at| fs::write(mount.join(format!("small-{at}")), "text").unwrap());
    cluster.stop(victim);
    let log = newest_log(&cluster.nodes[victim].data);
    let mut damaged = fs::read(&log).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&log, &damaged).unwrap();

    cluster.start_node(victim);
    cluster.wait_failed(victim);
    let text = cluster.log(victim);
    assert!(text.contains("is damaged") && text.contains("storage-node rejoin"), "{text}");
    assert!(fs::read(&log).unwrap() == damaged, "nothing was cut");

    let data = cluster.nodes[victim].data.clone();
    run(binary("storage-node"), &[&"rejoin", &"--yes", &"--data", &data], cluster.folder()).ok();
    cluster.start_node(victim);
    cluster.wait_ready(victim);
    // Its former id counts as a voter until it is found dead.
    wait_for("the node votes under its new id", Duration::from_secs(120), || {
        let status = cluster.status(victim);
        if status["namespace"]["voter"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    // With the other two it is a majority only if it has the whole namespace.
    let other = (victim + 1) % 3;
    cluster.kill(other);
    assert!(fs::read(mount.join("file")).unwrap() == tree::bytes(7, 300_000));
    fs::write(mount.join("after"), "text").unwrap();
}

fn newest_log(data: &Path) -> PathBuf {
    let logs = fs::read_dir(data.join("namespace")).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    logs.max().expect("a voter has a log")
}
