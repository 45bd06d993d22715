//! What programs on two mounts may rely on, sentence by sentence as in `deploy/docs/semantics.md`.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use harness::{Cluster, TempMount, programs::shell, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const CHUNK: usize = 4096;

fn two_mounts() -> (Cluster, TempMount, TempMount) {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    (cluster, one, two)
}

/// Runs both at the same time.
fn race<A: Send, B: Send>(one: impl FnOnce() -> A + Send, two: impl FnOnce() -> B + Send) -> (A, B) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            one()
        });
        start.wait();
        let two = two();
        (one.join().unwrap(), two)
    })
}

/// Maps a file of two chunks, writes into both, and leaves it mapped while others look.
const MAPPED: &str = "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR); view = mmap.mmap(fd, 8192)
for word in sys.stdin:
    word = word.strip().encode()
    if word == b'show':
        print(view[:4].decode(), view[4096:4100].decode(), flush=True)
    else:
        view[:4] = view[4096:4100] = word; view.flush(); print('written', flush=True)
";

/// A program that has a file mapped.
struct Mapping {
    child: std::process::Child,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Mapping {
    fn of(path: &Path) -> Self {
        let mut python = std::process::Command::new("python3");
        python.args(["-c", MAPPED]).arg(path);
        let mut child =
            python.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn ask(&mut self, word: &str) -> String {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{word}").unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.output, &mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_a_program_writes_through_a_mapping_is_seen_by_others_when_it_has_synced_it() {
    let (_cluster, one, two) = two_mounts();
    fs::write(one.join("mapped"), [b'.'; 2 * CHUNK]).unwrap();
    let (mut writer, mut reader) = (Mapping::of(&one.join("mapped")), Mapping::of(&two.join("mapped")));
    assert_eq!(reader.ask("show"), ".... ....");
    for word in ["aaaa", "bbbb"] {
        assert_eq!(writer.ask(word), "written");
        let bytes = fs::read(two.join("mapped")).unwrap();
        assert_eq!((&bytes[..4], &bytes[CHUNK..CHUNK + 4]), (word.as_bytes(), word.as_bytes()));
        // Also through a mapping that the other program has already.
        assert_eq!(reader.ask("show"), format!("{word} {word}"));
    }
}

#[test]
fn a_truncation_and_a_write_happen_one_after_the_other() {
    let (_cluster, one, two) = two_mounts();
    let (old, new, size) = ([b'o'; 5 * CHUNK], [b'n'; CHUNK], 2 * CHUNK + 100);
    let mut seen = [false; 2];
    for round in 0..40 {
        let at = (round % 4) * CHUNK + 10;
        fs::write(one.join("f"), old).unwrap();
        let open = |mount: &TempMount| OpenOptions::new().write(true).open(mount.join("f")).unwrap();
        let (writer, cutter) = (open(&one), open(&two));
        let write = || {
            writer.write_all_at(&new, at as u64).unwrap();
            writer.sync_all().unwrap();
        };
        race(write, || cutter.set_len(size as u64).unwrap());
        let mut first = old.to_vec();
        first[at..at + CHUNK].copy_from_slice(&new);
        first.truncate(size);
        let mut last = old[..size].to_vec();
        last.resize(size.max(at + CHUNK), 0);
        last[at..at + CHUNK].copy_from_slice(&new);
        let found = [&one, &two].map(|mount| fs::read(mount.join("f")).unwrap());
        assert!(found[0] == found[1], "round {round}: the mounts disagree");
        assert!(found[0] == first || found[0] == last, "round {round}: {} bytes", found[0].len());
        if first != last {
            seen[usize::from(found[0] == last)] = true;
        }
    }
    eprintln!("the write came first: {}, and last: {}", seen[0], seen[1]);
}

#[test]
fn a_name_that_is_replaced_leads_to_the_old_file_or_the_new_one() {
    let (_cluster, one, two) = two_mounts();
    let text = |number: usize| format!("{number} ").repeat(3000);
    fs::write(one.join("f"), text(0)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..80 {
                fs::write(one.join("new"), text(number)).unwrap();
                fs::rename(one.join("new"), one.join("f")).unwrap();
            }
            is_over.store(true, Relaxed);
        });
        let mut newest = 0;
        while !is_over.load(Relaxed) {
            let found = fs::read_to_string(two.join("f")).unwrap();
            let number: usize = found.split(' ').next().unwrap().parse().unwrap();
            assert!(found == text(number), "a mixture, or a part, of {number}");
            assert!(number >= newest, "{number} after {newest}");
            newest = number;
        }
    });
    assert_eq!(fs::read_to_string(two.join("f")).unwrap(), text(79));
}

#[test]
fn a_folder_is_removed_or_gets_a_new_entry_and_never_both() {
    let (_cluster, one, two) = two_mounts();
    let mut removed = 0;
    for round in 0..60 {
        let folder = format!("d{round}");
        fs::create_dir(one.join(&folder)).unwrap();
        assert!(two.join(&folder).exists());
        let (made, gone) =
            race(|| fs::write(one.join(&folder).join("entry"), "x"), || fs::remove_dir(two.join(&folder)));
        match (made, gone) {
            (Ok(()), Err(error)) => assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty),
            (Err(error), Ok(())) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                removed += 1;
            }
            other => panic!("round {round}: {other:?}"),
        }
        for mount in [&one, &two] {
            assert_eq!(mount.join(&folder).join("entry").exists(), mount.join(&folder).exists(), "round {round}");
        }
    }
    eprintln!("{removed} of 60 were removed");
}

#[test]
fn an_open_file_stays_when_its_name_is_removed_also_if_the_remover_and_the_leader_die() {
    let (mut cluster, one, two) = two_mounts();
    let contents: Vec<u8> = (0..50_000).map(|number| (number % 251) as u8).collect();
    fs::write(one.join("f"), &contents).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(one.join("f")).unwrap();
    fs::remove_file(two.join("f")).unwrap();
    assert_eq!(fs::metadata(one.join("f")).unwrap_err().kind(), ErrorKind::NotFound);
    let remover = two.pid();
    kill(Pid::from_raw(remover as i32), Signal::SIGKILL).unwrap();
    drop(two);
    let leader = cluster.leader();
    cluster.kill(leader);
    let mut found = Vec::new();
    file.read_to_end(&mut found).unwrap();
    assert!(found == contents);
    file.write_all_at(b"after", 10).unwrap();
    file.sync_all().unwrap();
    // Past what this mount and its kernel remember.
    shell("echo 1 > /proc/sys/vm/drop_caches", one.path()).ok();
    let mut start = [0; 20];
    file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!((&start[..10], &start[10..15]), (&contents[..10], &b"after"[..]));
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    cluster.start_node(leader);
    cluster.wait_settled();
}

/// Everything that stat(2) shows but what a mount chooses itself.
fn shown(path: &Path) -> impl PartialEq + std::fmt::Debug + use<> {
    let found = fs::symlink_metadata(path).unwrap();
    let times = [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())];
    (found.ino(), found.mode(), found.nlink(), found.size(), found.blocks(), times)
}

#[test]
fn both_mounts_show_the_same_times_and_sizes_as_soon_as_a_change_has_returned() {
    let (_cluster, one, two) = two_mounts();
    fs::create_dir(one.join("d")).unwrap();
    let path = |mount: &TempMount, name: &str| mount.join("d").join(name);
    type Change<'a> = Box<dyn Fn(&TempMount) + 'a>;
    let write = |mount: &TempMount| File::create(path(mount, "f")).unwrap().write_all(&[7; 9000]).unwrap();
    let changes: Vec<(&str, Change)> = vec![
        ("write", Box::new(write)),
        ("chmod", Box::new(|mount| fs::set_permissions(path(mount, "f"), fs::Permissions::from_mode(0o600)).unwrap())),
        (
            "truncate",
            Box::new(|mount| OpenOptions::new().write(true).open(path(mount, "f")).unwrap().set_len(100).unwrap()),
        ),
        ("link", Box::new(|mount| fs::hard_link(path(mount, "f"), path(mount, "link")).unwrap())),
        ("rename", Box::new(|mount| fs::rename(path(mount, "link"), path(mount, "moved")).unwrap())),
        ("unlink", Box::new(|mount| fs::remove_file(path(mount, "moved")).unwrap())),
        ("mkdir", Box::new(|mount| fs::create_dir(path(mount, "sub")).unwrap())),
        ("rmdir", Box::new(|mount| fs::remove_dir(path(mount, "sub")).unwrap())),
    ];
    for round in 0..4 {
        for (what, change) in &changes {
            let (changing, other) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
            change(changing);
            for name in ["d", "d/f"] {
                let (seen, expected) = (shown(&other.join(name)), shown(&changing.join(name)));
                assert_eq!(seen, expected, "{name} after {what}, round {round}");
            }
        }
    }
}

#[test]
fn writes_of_two_programs_to_different_bytes_are_both_kept_and_to_the_same_the_later_wins() {
    let (_cluster, one, two) = two_mounts();
    fs::write(one.join("f"), [b'.'; CHUNK]).unwrap();
    for round in 0..20_u8 {
        let open = |mount: &TempMount| OpenOptions::new().write(true).open(mount.join("f")).unwrap();
        let (first, second) = (open(&one), open(&two));
        let (a, b) = (b'a' + round, b'A' + round);
        let write = |file: &File, byte: u8, own: u64| {
            file.write_all_at(&[byte; 10], own).unwrap();
            file.write_all_at(&[byte; 10], 2000).unwrap();
            file.sync_all().unwrap();
        };
        race(|| write(&first, a, 100), || write(&second, b, 1000));
        let found = [&one, &two].map(|mount| fs::read(mount.join("f")).unwrap());
        assert!(found[0] == found[1], "round {round}");
        assert_eq!((&found[0][100..110], &found[0][1000..1010]), (&[a; 10][..], &[b; 10][..]), "round {round}");
        assert!(found[0][2000..2010] == [a; 10] || found[0][2000..2010] == [b; 10], "round {round}");
    }
}

/// What a program has written and not synced belongs to the file of its mount at once, and to others within seconds.
#[test]
fn what_is_written_and_stays_open_is_seen_by_the_other_mount_within_seconds() {
    let (_cluster, one, two) = two_mounts();
    let mut file = File::create(one.join("f")).unwrap();
    for round in 0..3 {
        writeln!(file, "round {round}").unwrap();
        let expected = fs::read_to_string(one.join("f")).unwrap();
        assert!(expected.ends_with(&format!("round {round}\n")));
        wait_for("the other mount", Duration::from_secs(20), || match fs::read_to_string(two.join("f")).unwrap() {
            seen if seen == expected => Ok(()),
            seen => Err(seen),
        });
    }
}
