//! Two workstations on one ring: the changes of one are visible on the other.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::FileExt,
    thread,
    time::Duration,
};

use harness::{Cluster, TempMount, wait_for};
use serde_json::Value;

#[test]
fn a_file_closed_in_one_mount_is_read_in_the_other() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    for round in 0..20 {
        let contents = format!("round {round} {}", "x".repeat(round * 700));
        fs::write(one.join("file"), &contents).unwrap();
        assert_eq!(fs::read_to_string(two.join("file")).unwrap(), contents);
        fs::write(two.join("file"), &contents[1..]).unwrap();
        assert_eq!(fs::read_to_string(one.join("file")).unwrap(), contents[1..]);
    }
}

/// A log that one mount keeps open and another truncates, as `logrotate` does: the next line used to land behind a
/// hole.
#[test]
fn an_append_goes_to_the_end_that_another_mount_has_made() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    let mut log = OpenOptions::new().append(true).create(true).open(one.join("log")).unwrap();
    log.write_all(&[b'x'; 10_000]).unwrap();
    log.sync_all().unwrap();
    for round in 0..3 {
        fs::write(two.join("log"), "").unwrap();
        // An answer of the namespace arrives after the change feed of everything done before it.
        assert!(!one.join(format!("no-such-file-{round}")).exists());
        log.write_all(b"line\n").unwrap();
        log.sync_all().unwrap();
        assert_eq!(fs::read_to_string(two.join("log")).unwrap(), "line\n");
        assert_eq!(fs::read_to_string(one.join("log")).unwrap(), "line\n");
    }
}

/// A mount opens and fetches the small files of a directory in advance; what it has then must not outlive the leases
/// under which it came.
#[test]
fn files_that_one_mount_has_read_ahead_are_current_when_another_has_written_them() {
    let cluster = Cluster::start(3);
    let (writer, reader) = (TempMount::new(&cluster), TempMount::new(&cluster));
    fs::create_dir(writer.join("d")).unwrap();
    let path = |number: usize| format!("d/{number:03}");
    let mut expected: Vec<String> = (0..60).map(|number| format!("first of {number}")).collect();
    for (number, text) in expected.iter().enumerate() {
        fs::write(writer.join(path(number)), text).unwrap();
    }
    for round in 0..40 {
        for (number, text) in expected.iter_mut().enumerate() {
            // In each round others: when the reader comes to them, it has read them ahead since the last round.
            match (number + round) % 7 {
                0 => *text = format!("written in round {round} {}", "x".repeat(number * 100)),
                1 => *text = format!("renamed in round {round}"),
                _ => continue,
            }
            if (number + round) % 7 == 0 {
                fs::write(writer.join(path(number)), &text).unwrap();
            } else {
                fs::write(writer.join("new"), &text).unwrap();
                fs::rename(writer.join("new"), writer.join(path(number))).unwrap();
            }
            assert_eq!(&fs::read_to_string(reader.join(path(number))).unwrap(), text, "round {round}, at once");
        }
        for (number, text) in expected.iter().enumerate() {
            assert_eq!(&fs::read_to_string(reader.join(path(number))).unwrap(), text, "round {round}, file {number}");
        }
    }
}

#[test]
fn one_of_many_exclusive_creators_wins() {
    let cluster = Cluster::start(3);
    let mounts = [TempMount::new(&cluster), TempMount::new(&cluster)];
    for round in 0..20 {
        let name = format!("lock-{round}");
        let create = |mount: &TempMount| match OpenOptions::new().write(true).create_new(true).open(mount.join(&name)) {
            Ok(_) => 1,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => 0,
            Err(error) => panic!("{error}"),
        };
        let wins: usize = thread::scope(|scope| {
            let (a, b) = (scope.spawn(|| create(&mounts[0])), scope.spawn(|| create(&mounts[1])));
            a.join().unwrap() + b.join().unwrap()
        });
        assert_eq!(wins, 1, "{name}");
    }
}

#[test]
fn renames_and_removals_reach_the_other_mount() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    fs::write(one.join("a"), "contents").unwrap();
    assert_eq!(fs::read_to_string(two.join("a")).unwrap(), "contents");
    fs::rename(one.join("a"), one.join("b")).unwrap();
    wait_for("the other mount sees the rename", Duration::from_secs(5), || {
        match (two.join("a").exists(), fs::read_to_string(two.join("b"))) {
            (false, Ok(text)) if text == "contents" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    fs::remove_file(two.join("b")).unwrap();
    wait_for("the first mount sees the removal", Duration::from_secs(5), || {
        if one.join("b").exists() { Err("b is still there".into()) } else { Ok(()) }
    });
}

/// Both write to the same 4 KB chunk; the second commit must not undo the first.
#[test]
fn writers_of_different_bytes_of_one_chunk_both_keep_their_bytes() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    fs::write(one.join("shared"), [b'.'; 4096]).unwrap();
    let open = |mount: &TempMount| OpenOptions::new().write(true).open(mount.join("shared")).unwrap();
    for round in 0..10_u64 {
        let (a, b) = (open(&one), open(&two));
        a.write_all_at(b"A", round * 100).unwrap();
        b.write_all_at(b"B", round * 100 + 50).unwrap();
        drop(a);
        drop(b);
    }
    let contents = fs::read(one.join("shared")).unwrap();
    for round in 0..10 {
        assert_eq!((contents[round * 100], contents[round * 100 + 50]), (b'A', b'B'), "round {round}");
    }
    assert_eq!(contents, fs::read(two.join("shared")).unwrap());
}

#[test]
fn a_file_removed_elsewhere_stays_readable_where_it_is_open() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(one.join("f")).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    file.sync_all().unwrap();
    fs::remove_file(two.join("f")).unwrap();
    let mut back = vec![0; 100_000];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back.iter().all(|byte| *byte == 7));
}

/// Bug: a mount that had not used a folder for a while gave its lease on it back when a script read the folder, and went
/// on answering from memory. Whatever others created there afterwards did not exist for it.
#[test]
fn a_folder_that_a_mount_has_given_back_shows_what_others_create_in_it() {
    let cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    let client = reqwest::blocking::Client::new();
    let url = |path: &str| format!("http://{}:5058/{path}", cluster.ip(0));
    // The second change in a folder is made in memory.
    for name in ["first", "second", "third"] {
        fs::write(mount.join(name), name).unwrap();
    }
    wait_for("a reader is told of all files", Duration::from_secs(20), || {
        let listed = client.get(url("")).send().unwrap().text().unwrap();
        if listed.contains("third") { Ok(()) } else { Err(listed) }
    });
    let leases = || {
        let sessions: Value =
            client.get(format!("http://{}:5059/sessions", cluster.ip(0))).send().unwrap().json().unwrap();
        let of_mount = sessions.as_array().unwrap().iter().find(|it| it["client"].as_str().unwrap().contains("/mnt"));
        of_mount.unwrap()["leases"].as_u64().unwrap()
    };
    let held = leases();
    wait_for("the mount gives a lease back", Duration::from_secs(20), || {
        client.get(url("")).send().unwrap();
        let left = leases();
        if left < held { Ok(()) } else { Err(format!("it holds {left} leases, and held {held}")) }
    });
    // Two of its keepalives later the leader knows that it has nothing open, and tells it nothing any longer.
    thread::sleep(Duration::from_secs(5));
    let form = reqwest::blocking::multipart::Form::new();
    let form = form.part("files", reqwest::blocking::multipart::Part::text("new").file_name("fourth"));
    assert_eq!(client.post(url("upload")).multipart(form).send().unwrap().status(), 204);
    assert_eq!(fs::read_to_string(mount.join("fourth")).unwrap(), "new");
}
