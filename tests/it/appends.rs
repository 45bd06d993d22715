//! Appends of several mounts to one file: no record is lost, torn, or in another order than its program wrote it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

use harness::{Cluster, TempMount};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A record says how long it is, so that one that is torn or overwritten is noticed.
fn record(writer: usize, number: usize) -> Vec<u8> {
    let length = 20 + (writer * 7919 + number * 6007) % 9000;
    let mut record = format!("{writer} {number} {length} ").into_bytes();
    record.resize(length - 1, b'a' + (number % 26) as u8);
    record.push(b'\n');
    record
}

fn open(path: &Path, can_read: bool) -> File {
    OpenOptions::new().read(can_read).append(true).create(true).open(path).unwrap()
}

/// Checks that the file consists of records, and returns the numbers of each writer in the order in which they stand.
fn numbers(contents: &[u8]) -> BTreeMap<usize, Vec<usize>> {
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for line in contents.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split(' ').map_while(|word| word.parse::<usize>().ok());
        let (Some(writer), Some(number)) = (words.next(), words.next()) else { panic!("no record: {text:.60}") };
        assert!(line == record(writer, number), "torn: {text:.60}");
        found.entry(writer).or_default().push(number);
    }
    found
}

#[test]
fn records_that_programs_on_several_mounts_append_are_all_there_and_whole() {
    const RECORDS: usize = 150;
    let cluster = Cluster::start(3);
    let mounts = [TempMount::new(&cluster), TempMount::new(&cluster), TempMount::new(&cluster)];
    // Two writers on each of two mounts; the third only reads.
    let writers = [(0, false), (0, true), (1, false), (1, true)];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut longest = 0;
            while !is_over.load(Relaxed) {
                // What is there stays there, and is whole records.
                let contents = fs::read(mounts[2].join("log")).unwrap_or_default();
                assert!(contents.len() >= longest, "{} bytes were there, and now {}", longest, contents.len());
                longest = contents.len();
                numbers(&contents);
            }
        });
        let threads = writers.map(|(mount, can_read)| {
            let path = mounts[mount].join("log");
            let writer = 2 * mount + usize::from(can_read);
            scope.spawn(move || {
                let mut file = open(&path, can_read);
                for number in 0..RECORDS {
                    file.write_all(&record(writer, number)).unwrap();
                    if number % 40 == 17 {
                        file = open(&path, can_read);
                    }
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, Relaxed);
        reader.join().unwrap();
    });
    for mount in &mounts {
        let found = numbers(&fs::read(mount.join("log")).unwrap());
        let all: Vec<usize> = (0..RECORDS).collect();
        assert_eq!(found, BTreeMap::from([0, 1, 2, 3].map(|writer| (writer, all.clone()))));
    }
}

/// What programs that start, append a line and end do.
#[test]
fn lines_that_short_programs_append_in_turn_follow_each_other() {
    let cluster = Cluster::start(3);
    let mounts = [TempMount::new(&cluster), TempMount::new(&cluster)];
    let mut expected = String::new();
    for number in 0..200 {
        // Sometimes several in a row by the same mount.
        let mount = &mounts[number / 3 % 2];
        let line = format!("line {number}\n");
        open(&mount.join("log"), false).write_all(line.as_bytes()).unwrap();
        expected.push_str(&line);
        if number % 10 == 9 {
            assert_eq!(fs::read_to_string(mounts[number / 10 % 2].join("log")).unwrap(), expected);
        }
    }
}

/// A mount that dies while it appends keeps nobody from appending for longer than its session lasts, and leaves no part
/// of a record in between.
#[test]
#[ignore = "slow: a dead mount's session lasts a minute; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_file_is_appended_to_after_a_mount_has_died_that_did() {
    let cluster = Cluster::start(3);
    let (mut dying, living) = (Some(TempMount::new(&cluster)), TempMount::new(&cluster));
    let path = dying.as_ref().unwrap().join("log");
    let mut log = open(&living.join("log"), false);
    let (of_dying, mut of_living) = (AtomicUsize::new(0), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = open(&path, false);
            while file.write_all(&record(1, of_dying.load(Relaxed))).is_ok() {
                of_dying.fetch_add(1, Relaxed);
            }
        });
        while of_dying.load(Relaxed) < 30 {
            log.write_all(&record(0, of_living)).unwrap();
            of_living += 1;
        }
        let pid = dying.as_ref().unwrap().pid();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        drop(dying.take());
    });
    for number in of_living..of_living + 50 {
        log.write_all(&record(0, number)).unwrap();
    }
    let found = numbers(&fs::read(living.join("log")).unwrap());
    assert_eq!(found[&0], (0..of_living + 50).collect::<Vec<_>>());
    let of_dead = &found[&1];
    assert_eq!(of_dead, &(0..of_dead.len()).collect::<Vec<_>>());
}
