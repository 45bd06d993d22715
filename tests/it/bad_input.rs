//! Bad input gets a clear error and changes nothing, and the node continues to serve.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{
    Cluster, TempMount, binary,
    disk::{self, Disk},
    programs::run_command,
    raw_rpc::RawRpc,
    tree,
};
use rmpv::Value;

#[test]
fn hostile_messages_end_their_connection_only() {
    let cluster = Cluster::start(1);
    let oversized: &[u8] = &[0xc6, 0x7f, 0xff, 0xff, 0xff];
    let nested = vec![0x91; 10_000];
    let not_rpc = [0x93, 0x01, 0x00, 0xc0];
    for bytes in [oversized, &nested, &not_rpc, &[0xc1; 10], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut rpc = RawRpc::connect(cluster.ip(0)).unwrap();
        rpc.send_bytes(bytes).unwrap();
        assert!(rpc.is_closed_by_peer(), "{:?}", &bytes[..bytes.len().min(10)]);
    }
    // Half a request and no more, beside a connection that still works.
    let mut half = RawRpc::connect(cluster.ip(0)).unwrap();
    half.send_bytes(&[0x94, 0x00]).unwrap();
    let mut rpc = RawRpc::connect(cluster.ip(0)).unwrap();
    for (method, params) in [
        ("find_successor", vec![]),
        ("find_successor", vec!["seven".into()]),
        ("find_successor", vec![Value::from(-1)]),
        ("join", vec![Value::Array(vec!["127.0.0.1".into()])]),
        ("notify", vec![Value::Array(vec!["no address".into(), 1.into(), 1.into()])]),
        ("get_successor", vec![Value::Nil]),
        ("no_such_call", vec![]),
        ("kill", vec![]),
    ] {
        let error = rpc.call(method, params.clone()).unwrap().expect_err(method);
        assert!(error.as_str().is_some_and(|text| text.len() > 5), "{method} {params:?}: {error}");
    }
    let far = rpc.node("get_successor", vec![Value::from(1_000)]).unwrap();
    assert_eq!(far.ip, "");
    let wrapped = rpc.node("find_successor", vec![Value::from(1_u64 << 40)]).unwrap();
    assert_eq!(wrapped, rpc.node("get_info", vec![]).unwrap());
    assert_eq!(rpc.call("create", vec![]).unwrap(), Ok(Value::Nil), "create is ignored with success in a ring");
}

fn post_raw(cluster: &Cluster, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect((cluster.ip(0), 5058)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    // A peer that refuses early may reset the connection after its answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn upload_named(cluster: &Cluster, name: &str) -> u16 {
    let body = format!(
        "--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\r\ncontents\r\n--B--\r\n"
    );
    let status =
        post_raw(cluster, "POST /upload HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=B", body.as_bytes());
    status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{name}: {status:?}"))
}

#[test]
fn uploads_with_bad_names_store_nothing() {
    let cluster = Cluster::start(1);
    assert_eq!(upload_named(&cluster, "good.txt"), 204);
    let long = "n".repeat(4_000);
    for name in ["..", ".", "", "a/b", "../up", "a\0b", &long, "c.txt_chunk_0", "c.txt_chunk_4294967296"] {
        let status = upload_named(&cluster, name);
        assert!((400..500).contains(&status), "{name:?}: {status}");
    }
    let listing: serde_json::Value = reqwest::blocking::Client::new()
        .get(format!("http://{}:5058/", cluster.ip(0)))
        .header("Accept", "application/json")
        .send()
        .unwrap()
        .json()
        .unwrap();
    let text = listing.to_string();
    assert!(text.contains("good.txt") && !text.contains("up") && !text.contains("nnn"), "{text}");
    let no_file = "--B\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--B--\r\n";
    let head = "POST /upload HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=B";
    assert!(post_raw(&cluster, head, no_file.as_bytes()).contains(" 400 "));
    assert!(post_raw(&cluster, "POST /upload HTTP/1.1", b"no multipart").contains(" 4"));
}

#[test]
fn damaged_batches_are_refused_whole() {
    let cluster = Cluster::start(1);
    let file = chordfs_types::chunk::FileName::new("batch").unwrap();
    let mut batch = bytes::BytesMut::new();
    for index in 1..=3 {
        let id = chordfs_types::chunk::ChunkId { version: chordfs_types::chunk::Version(9), index };
        chordfs_types::chunk::encode_record(
            &mut batch,
            &file,
            id,
            chordfs_types::chunk::chunk_key(&file, index),
            b"data",
        );
    }
    let send = |body: &[u8]| post_raw(&cluster, "POST /chunks/put?copies=3&durable=true HTTP/1.1", body);
    let mut flipped = batch.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(send(&flipped).contains(" 400 "));
    assert!(send(&batch[..batch.len() - 1]).contains(" 400 "));
    assert!(post_raw(&cluster, "POST /chunks/get HTTP/1.1", &[0xff; 40]).contains(" 400 "));
    assert_eq!(cluster.ls(0), []);
    let answer = send(&batch);
    assert!(answer.contains(" 204 "), "{answer}");
    assert_eq!(cluster.ls(0).len(), 3);
}

/// Runs a command that must fail with one line on stderr that contains `mentions`.
#[track_caller]
fn fails(command: &mut Command, mentions: &str) -> i32 {
    let outcome = run_command(command, Duration::from_secs(60));
    let code = outcome.code.expect("an exit code");
    assert!(code != 0, "it succeeded: {}", outcome.stdout);
    assert_eq!(outcome.stderr.trim().lines().count(), 1, "one line, not:\n{}", outcome.stderr);
    assert!(outcome.stderr.contains(mentions), "{mentions:?} is not in {:?}", outcome.stderr);
    code
}

fn node_command(data: &Path, ip: &str) -> Command {
    let mut command = Command::new(binary("storage-node"));
    command.arg("run").arg("--data").arg(data).args(["--ip", ip]).env("RUST_LOG", "error");
    command
}

#[test]
fn unusable_data_folders_are_named() {
    let cluster = Cluster::start(1);
    let used = cluster.nodes[0].data.clone();
    fails(&mut node_command(&used, "127.0.99.1"), used.to_str().unwrap());
    let file = cluster.folder().join("a file");
    fs::write(&file, "").unwrap();
    fails(&mut node_command(&file, "127.0.99.1"), "a file");
    let newer = cluster.folder().join("newer");
    fs::create_dir(&newer).unwrap();
    let format = fs::read_to_string(used.join("FORMAT")).unwrap();
    fs::write(newer.join("FORMAT"), format.replace('1', "999")).unwrap();
    fails(&mut node_command(&newer, "127.0.99.1"), "999");
    let taken = cluster.folder().join("taken");
    fails(&mut node_command(&taken, &cluster.ip(0).to_string()), "5057");
    fails(&mut node_command(Path::new("/proc/chordfs"), "127.0.99.1"), "/proc/chordfs");
}

fn mount_command(source: &str, point: &Path) -> Command {
    let mut command = Command::new(binary("mount.chordfs"));
    command.arg(source).arg(point);
    command
}

#[test]
fn unusable_mount_points_are_named() {
    let cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    let source = cluster.source();
    let mut point = cluster.folder().join("missing");
    assert_eq!(fails(&mut mount_command(&source, &point), "missing"), 32);
    point = cluster.folder().join("plain");
    fs::write(&point, "").unwrap();
    assert_eq!(fails(&mut mount_command(&source, &point), "plain"), 32);
    point = cluster.folder().join("full");
    fs::create_dir_all(point.join("x")).unwrap();
    assert_eq!(fails(&mut mount_command(&source, &point), "full"), 32);
    assert_eq!(fails(&mut mount_command(&source, mount.path()), "mounted"), 32);
    point = cluster.folder().join("empty");
    fs::create_dir(&point).unwrap();
    let mut unreachable = mount_command("127.0.99.7", &point);
    assert_eq!(fails(unreachable.args(["-o", "deadline=3"]), "127.0.99.7"), 32);
    assert_eq!(fails(mount_command(&source, &point).args(["-o", "cache=lots"]), "cache"), 1);
    assert_eq!(fails(mount_command(&source, &point).args(["-o", "nonsense"]), "nonsense"), 1);
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let cluster = Cluster::start(1);
    let writable = TempMount::new(&cluster);
    fs::write(writable.join("f"), "x").unwrap();
    let mount = TempMount::with_options(&cluster, &["ro"]);
    assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "x");
    assert_eq!(fs::write(mount.join("f"), "y").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::create_dir(mount.join("d")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
}

/// A node's disk that is detached when the test ends, also when it fails.
struct Attached(PathBuf);

impl Drop for Attached {
    fn drop(&mut self) {
        disk::detach(&self.0);
    }
}

#[test]
fn a_full_disk_is_enospc_and_deleting_still_works() {
    let mut cluster = Cluster::empty();
    let small = Attached(cluster.folder().join("small"));
    Disk::Memory(192).attach(&small.0);
    cluster.add_with_data(small.0.clone());
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("kept"), tree::bytes(3, 1 << 20)).unwrap();
    let fill = || -> std::io::Result<()> {
        for number in 0..100 {
            let mut file = fs::File::create(mount.join(format!("fill-{number}")))?;
            file.write_all(&tree::bytes(number, 4 << 20))?;
            file.sync_all()?;
        }
        Ok(())
    };
    assert_eq!(fill().unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(fs::read(mount.join("kept")).unwrap() == tree::bytes(3, 1 << 20), "nothing acknowledged is lost");
    assert!(fs::read(mount.join("fill-0")).unwrap() == tree::bytes(0, 4 << 20));
    for entry in fs::read_dir(mount.path()).unwrap().flatten() {
        if entry.file_name() != "kept" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    harness::wait_for("the space comes back", Duration::from_secs(90), || {
        fs::write(mount.join("again"), tree::bytes(4, 4 << 20)).map_err(|error| error.to_string())
    });
    drop(mount);
    cluster.kill(0);
}
