//! Copies by copy_file_range(2), which `cp` uses: they share the stored chunks of their source.

use std::{fs, path::Path, time::Duration};

use harness::{Cluster, TempMount, binary, programs::shell, run, tree, wait_for};

use super::scrub::disk_bytes;

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// How many chunks of a file the nodes have, all copies counted.
fn wait_for_chunks(cluster: &Cluster, file: &str, is_enough: impl Fn(usize) -> bool) {
    let name = format!("{file}_chunk_");
    wait_for(&format!("chunks of {file}"), MINUTE, || {
        let all = cluster.live().into_iter().flat_map(|node| cluster.ls(node));
        match all.filter(|stored| stored.name.starts_with(&name)).count() {
            count if is_enough(count) => Ok(()),
            count => Err(format!("{count} chunks")),
        }
    });
}

fn write_synced(path: &Path, seed: u64, len: u64) {
    let mut file = fs::File::create(path).unwrap();
    tree::write_stream(&mut file, seed, len).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_copy_moves_no_bytes_and_outlives_its_source() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    write_synced(&one.join("source"), 1, 32 * MIB + 777);
    wait_for_chunks(&cluster, "source", |count| count == 3 * (32 * 256 + 1));
    let (before, contents) = (disk_bytes(&cluster), tree::digest(&one.join("source")).unwrap());
    shell("mkdir d; cp source d/copy; cp d/copy again; sync d/copy again", two.path()).ok();
    let added = disk_bytes(&cluster) - before;
    assert!(added < MIB, "{added} bytes were stored");
    let (whole, df) = (32 * MIB + 777, shell("stat -f -c '%b %f' .; stat -c %b d/copy", one.path()).ok());
    let numbers: Vec<u64> = df.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers[2] * 512, whole.next_multiple_of(512), "{df}");

    // What is changed in one is not changed in the others, and where the source goes its chunks stay.
    shell(
        "printf changed | dd of=again bs=1 seek=5000000 conv=notrunc status=none; truncate -s 20000001 source",
        one.path(),
    )
    .ok();
    assert_eq!(tree::digest(&one.join("d/copy")).unwrap(), contents);
    shell("cp d/copy expected; printf changed | dd of=expected bs=1 seek=5000000 conv=notrunc status=none; cmp again expected", one.path()).ok();
    fs::remove_file(two.join("source")).unwrap();
    // What dies later is deleted later.
    write_synced(&one.join("other"), 2, MIB);
    wait_for_chunks(&cluster, "other", |count| count == 3 * 256);
    fs::remove_file(one.join("other")).unwrap();
    wait_for_chunks(&cluster, "other", |count| count == 0);
    let fresh = TempMount::new(&cluster);
    assert_eq!(tree::digest(&fresh.join("d/copy")).unwrap(), contents);
    shell("cmp again expected", fresh.path()).ok();
    let node = cluster.ip(0).to_string();
    let served = shell(&format!("curl -sf http://{node}:5058/d/copy | cmp - d/copy"), fresh.path());
    served.ok();
    let check = run(binary("storage-node"), &[&"check", &"--verify", &"--node", &node], cluster.folder());
    check.ok();
    fs::remove_dir_all(fresh.join("d")).unwrap();
    shell("rm again expected", fresh.path()).ok();
    wait_for_chunks(&cluster, "source", |count| count == 0);
}

/// Random ranges, at chunks and beside them, over and under each other, in one file and in two.
const RANGES: &str = r#"
import hashlib, os, random, sys
random.seed(int(sys.argv[1])); PAGE = 4096
fds = [os.open(name, os.O_RDWR | os.O_CREAT, 0o644) for name in ("a", "b")]
def show():
    for fd in fds:
        size = os.fstat(fd).st_size
        print(size, hashlib.sha256(os.pread(fd, size, 0)).hexdigest()[:16], end=" ")
    print()
def offset(): return random.randrange(400) * PAGE + random.choice([0, 0, 0, 1, 1000, 4095])
for step in range(60):
    kind = random.randrange(8)
    if kind == 0:
        os.pwrite(random.choice(fds), random.randbytes(random.randrange(300000)), offset())
    elif kind == 1:
        os.ftruncate(random.choice(fds), offset())
    elif kind == 2:
        os.pwrite(random.choice(fds), random.randbytes(random.randrange(1, 5000)), offset())
    else:
        source, target, at, to = random.choice(fds), random.choice(fds), offset(), offset()
        if random.random() < 0.7: to = to - to % PAGE + at % PAGE
        left = random.choice([random.randrange(1, 2000000), random.randrange(64, 400) * PAGE, 10**9])
        size = os.fstat(source).st_size
        if source == target: left = min(left, abs(at - to), max(size - at, 0))
        while left > 0:
            done = os.copy_file_range(source, target, left, at, to)
            if done == 0: break
            left, at, to = left - done, at + done, to + done
    show()
"#;

#[test]
fn ranges_are_copied_as_on_a_local_disk() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    let local = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        eprintln!("seed {seed}");
        let script =
            format!("rm -f a b; cat > ranges.py <<'END'\n{RANGES}\nEND\npython3 ranges.py {seed}; sha256sum a b");
        let (expected, seen) = (shell(&script, local.path()).ok(), shell(&script, one.path()).ok());
        for (line, (seen, expected)) in seen.lines().zip(expected.lines()).enumerate() {
            assert_eq!(seen, expected, "seed {seed}, line {line}");
        }
        assert_eq!(seen.lines().count(), expected.lines().count());
        assert!(expected.ends_with(&shell("sha256sum a b", two.path()).ok()), "seed {seed}, on the other mount");
    }
}
