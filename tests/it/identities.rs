//! A ring with identities: everything works as without, strangers get nothing, and nothing can be read on the wire.

mod every_call;
mod folders;
mod hostile;
mod root_squash;
mod visitors;
mod wire;

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use chordfs_types::namespace::{self, Change, FileKind, Ino, NamespaceOp, NewNode, Query, Request, Response, Time};
use harness::{Cluster, TempMount, wait_for};
use hyper::StatusCode;
use nix::sys::socket::{setsockopt, sockopt};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::visitors::{Outsider, SOON, invite, ring, storage_node, visitors};

#[test]
fn mounts_commands_and_restarts_need_no_step_more() {
    let mut cluster = ring(3);
    let mount = TempMount::new(&cluster);
    let contents = vec![7; 300_000];
    fs::write(mount.join("file"), &contents).unwrap();
    fs::File::open(mount.join("file")).unwrap().sync_all().unwrap();
    cluster.kill(1);
    assert_eq!(fs::read(mount.join("file")).unwrap(), contents, "with one node dead");
    cluster.start_node_alone(1);
    cluster.wait_settled();
    cluster.wait_for_voters(3);
    cluster.add();
    cluster.wait_settled();
    mount.unmount();
    let again = TempMount::new(&cluster);
    assert_eq!(fs::read(again.join("file")).unwrap(), contents);
    assert!(!cluster.ls(0).is_empty());
    storage_node(&cluster, &["status"]).ok();
    wait_for("the check finds no fault", SOON, || {
        let check = storage_node(&cluster, &["check", "--verify"]);
        if check.code == Some(0) { Ok(()) } else { Err(check.stdout) }
    });
    storage_node(&cluster, &["config", "set", "pool.largest=5"]).ok();
}

/// A node that could not prove that it belongs to the ring would be one that anybody could start.
#[test]
fn a_node_without_an_identity_is_not_let_in() {
    let mut cluster = ring(1);
    cluster.has_identities = false;
    let stranger = cluster.push_stopped(cluster.folder().join("stranger"));
    let member = SocketAddr::from((cluster.ip(0), 5057));
    cluster.start_node_through(stranger, Some(member));
    wait_for("the stranger is refused", Duration::from_secs(60), || {
        let log = cluster.log(0);
        if log.contains("refusing a call") && log.contains("chordfs_place") { Ok(()) } else { Err(log) }
    });
    assert!(cluster.check_ring().is_err(), "the stranger is alone");
    cluster.kill(stranger);
    let voters = cluster.status(0)["namespace"]["voters"].as_array().map(Vec::len);
    assert_eq!(voters, Some(1));
}

/// A folder keeps what it has begun with, and a node says so instead of guessing.
#[test]
fn a_node_with_identities_and_a_ring_without_are_kept_apart() {
    let mut cluster = Cluster::start(1);
    cluster.has_identities = true;
    let member = SocketAddr::from((cluster.ip(0), 5057));
    let newcomer = cluster.push_stopped(cluster.folder().join("newcomer"));
    cluster.start_node_through(newcomer, Some(member));
    cluster.wait_failed(newcomer);
    assert!(cluster.log(newcomer).contains("--insecure"), "{}", cluster.log(newcomer));
    cluster.stop(0);
    cluster.start_node_alone(0);
    cluster.wait_ready(0);
    assert!(cluster.log(0).contains("belongs to a ring without identities"), "{}", cluster.log(0));
    assert_eq!(cluster.status(0)["insecure"], true);
    assert!(storage_node(&cluster, &["status"]).stdout.contains("security          none: whoever"));

    let mut secured = ring(1);
    assert_eq!(secured.status(0)["insecure"], false);
    secured.stop(0);
    secured.has_identities = false;
    secured.start_node_alone(0);
    secured.wait_failed(0);
    assert!(secured.log(0).contains("without --insecure"), "{}", secured.log(0));
}

/// A mount that had no identity tried for half a minute, and then told of a ring without a majority.
#[test]
fn a_user_who_was_not_invited_is_told_how_to_be() {
    let cluster = ring(1);
    let refused = Outsider::new().mount(&cluster.ip(0).to_string());
    assert!(refused.code != Some(0) && refused.stderr.contains("invite --role client"), "{}", refused.stderr);
}

/// What anybody who reached the ports could do to a ring without identities, and who may now.
#[test]
fn each_role_may_do_what_it_needs_and_strangers_nothing() {
    let cluster = ring(1);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), "contents").unwrap();
    fs::File::open(mount.join("file")).unwrap().sync_all().unwrap();
    let runtime = Runtime::new().unwrap();
    let (files, admin) = (SocketAddr::from((cluster.ip(0), 5058)), SocketAddr::from((cluster.ip(0), 5059)));
    let everybody = ["metrics", "read-only-client", "client", "squashed-client", "squashed-read-only-client"];
    let readers = ["read-only-client", "client", "squashed-client", "squashed-read-only-client"];
    let cases: &[(SocketAddr, &str, &str, &[&str])] = &[
        (files, "GET", "/file", &["plain", "read-only-client", "client"]),
        (files, "POST", "/chunks/get", &readers),
        (files, "POST", "/chunks/put?copies=1&durability=disk", &["client", "squashed-client"]),
        (files, "POST", "/chunks/delete", &[]),
        (files, "GET", "/chunks/list?after=0&upto=0&from=0", &[]),
        (files, "POST", "/chunks/gone", &[]),
        (files, "DELETE", "/missing", &["plain", "client"]),
        (admin, "GET", "/healthz", &[&["plain", "no certificate", "expired"][..], &everybody].concat()),
        (admin, "GET", "/metrics", &[&["plain"][..], &everybody].concat()),
        (admin, "GET", "/chunks", &[]),
        (admin, "POST", "/raft/append?to=1&of=1", &[]),
        (admin, "POST", "/raft/vote?to=1&of=1", &[]),
        (admin, "POST", "/raft/snapshot?to=1&of=1", &[]),
        (admin, "POST", "/raft/leave?uid=1", &[]),
        (admin, "GET", "/raft/identity", &[]),
        (admin, "POST", "/drain/peer", &[]),
    ];
    for visitor in visitors(&cluster, &runtime) {
        for (address, method, path, allowed) in cases {
            let status = runtime.block_on(visitor.call(*address, method, path));
            let is_let_in = status.is_some_and(|status| status != StatusCode::FORBIDDEN);
            assert_eq!(is_let_in, allowed.contains(&visitor.name), "{}: {method} {path}: {status:?}", visitor.name);
        }
        // Needs an operator's token, whoever asks.
        for (method, path) in [("POST", "/drain?allow_fewer_copies=true"), ("PUT", "/config"), ("POST", "/delete-all")]
        {
            let status = runtime.block_on(visitor.call(admin, method, path));
            let connects = visitor.name != "another ring's";
            let expected = connects.then_some(StatusCode::UNAUTHORIZED);
            assert_eq!(status, expected, "{}: {path}", visitor.name);
        }
        if !["plain"].into_iter().chain(everybody).any(|name| name == visitor.name) {
            let answer = runtime.block_on(visitor.rpc(SocketAddr::from((cluster.ip(0), 5057)), "get_info", vec![]));
            assert_eq!(answer, None, "{}", visitor.name);
        }
    }
    assert_eq!(fs::read_to_string(mount.join("file")).unwrap(), "contents");
}

#[test]
fn the_namespace_itself_checks_the_role() {
    let cluster = ring(1);
    let runtime = Runtime::new().unwrap();
    let ring_port = SocketAddr::from((cluster.ip(0), 5057));
    let query = || Request::Query(Query::GetAttr { ino: Ino::ROOT });
    let open = || {
        let change = Change::OpenSession { nonce: rand::random(), client: "visitor".into(), holds_leases: false };
        Request::Apply(NamespaceOp { origin: None, now: Time::now(), change })
    };
    let revoke = || {
        let change = Change::RevokeOperatorToken { node_uid: 1, forget: false };
        Request::Apply(NamespaceOp { origin: None, now: Time::now(), change })
    };
    for visitor in visitors(&cluster, &runtime) {
        let asked = runtime.block_on(visitor.namespace(ring_port, query()));
        let may_read = matches!(asked, Some(Response::Answered(Ok(_), _)));
        let is_reader = visitor.name.ends_with("client");
        assert_eq!(may_read, is_reader, "{}: {asked:?}", visitor.name);
        let revoked = runtime.block_on(visitor.namespace(ring_port, revoke()));
        assert!(!matches!(revoked, Some(Response::Applied(Ok(_), _))), "{}: {revoked:?}", visitor.name);
        let tokens = runtime.block_on(visitor.namespace(ring_port, Request::Query(Query::OperatorTokens)));
        assert!(!matches!(tokens, Some(Response::Answered(Ok(_), _))), "{}: {tokens:?}", visitor.name);
        if !may_read {
            continue;
        }
        let opened = runtime.block_on(visitor.namespace(ring_port, open()));
        let Some(Response::Applied(Ok(namespace::Reply::Session { session, .. }), _)) = opened else {
            panic!("{}: {opened:?}", visitor.name);
        };
        let made = runtime.block_on(visitor.namespace(ring_port, make(session, visitor.name)));
        let is_made = matches!(made, Some(Response::Applied(Ok(_), _)));
        assert_eq!(is_made, visitor.name == "client", "{}: {made:?}", visitor.name);
    }
}

/// Makes a file in the top folder.
fn make(session: namespace::SessionId, name: &str) -> Request {
    let name = namespace::EntryName::new(name.as_bytes().to_vec()).unwrap();
    let node = NewNode {
        kind: FileKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        rdev: 0,
        chunk_bytes: 4096,
        target: Default::default(),
    };
    let change = Change::Make { parent: Ino::ROOT, name, node, exclusive: true };
    let origin = Some(namespace::OpId { session, sequence: 1, answered_below: 1 });
    Request::Apply(NamespaceOp { origin, now: Time::now(), change })
}

#[test]
fn an_invitation_brings_a_mount_in_once_and_revoking_keeps_it_out() {
    let cluster = ring(1);
    let source = cluster.ip(0).to_string();
    let (guest, other, reader) = (Outsider::new(), Outsider::new(), Outsider::new());
    assert_ne!(guest.mount(&source).code, Some(0), "nobody has invited it");
    let token = invite(&cluster, &["--role", "client", "--name", "guest", "--expires", "1h"]);
    guest.mount(&token).ok();
    fs::write(guest.point().join("file"), "contents").unwrap();
    guest.unmount();
    assert_ne!(other.mount(&token).code, Some(0), "the invitation is used up");
    guest.mount(&source).ok();
    assert_eq!(fs::read_to_string(guest.point().join("file")).unwrap(), "contents", "it keeps its identity");
    let token = invite(&cluster, &["--role", "client", "--read-only", "--name", "reader"]);
    reader.mount(&token).ok();
    assert_eq!(fs::read_to_string(reader.point().join("file")).unwrap(), "contents");
    let error = fs::write(reader.point().join("new"), "contents").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    let listed = storage_node(&cluster, &["identities"]).ok();
    let line = listed.lines().find(|line| line.ends_with("guest")).unwrap_or_else(|| panic!("{listed}"));
    storage_node(&cluster, &["revoke", line.split_whitespace().next().unwrap()]).ok();
    wait_for("the guest is kept out", Duration::from_secs(60), || {
        match fs::write(guest.point().join("late"), "contents").and_then(|()| sync(&guest.point().join("late"))) {
            Ok(()) => Err("it still writes".into()),
            Err(_) => Ok(()),
        }
    });
    assert_eq!(fs::read_to_string(reader.point().join("file")).unwrap(), "contents", "the others stay");
    assert!(storage_node(&cluster, &["identities"]).ok().contains("revoked"));
}

/// A token on a command line is shown to every user of the machine as long as the process runs.
#[test]
fn an_invitation_in_a_file_brings_a_mount_in_and_no_process_leaves_a_core_dump() {
    let cluster = ring(1);
    let (guest, token) = (Outsider::new(), TempDir::with_prefix("chordfs-token-").unwrap());
    let file = token.path().join("token");
    fs::write(&file, invite(&cluster, &["--role", "client"])).unwrap();
    let options = format!("deadline=5,invitation={}", file.display());
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let refused = guest.mount_with("none", &options);
    assert!(refused.code != Some(0) && refused.stderr.contains("chmod"), "{}", refused.stderr);
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    // The option does not hide that SOURCE is wrong, and the invitation is not used up by that.
    let wrong = guest.mount_with("host:99999:/", &options);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("99999"), "{:?}: {}", wrong.code, wrong.stderr);
    guest.mount_with("none", &options).ok();
    fs::write(guest.point().join("file"), "contents").unwrap();
    guest.unmount();
    // As a line of fstab is used again at each start.
    guest.mount_with(&cluster.ip(0).to_string(), &options).ok();
    assert_eq!(fs::read_to_string(guest.point().join("file")).unwrap(), "contents");
    let mount = TempMount::new(&cluster);
    for pid in [cluster.pid(0), mount.pid()] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let soft = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(soft.split_whitespace().next(), Some("0"), "{limits}");
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[test]
fn an_invitation_brings_a_node_in() {
    let mut cluster = ring(1);
    let token = invite(&cluster, &["--role", "node", "--name", "second"]);
    let token: &'static str = Box::leak(token.into_boxed_str());
    cluster.run_args = vec!["--join", token];
    cluster.add();
    cluster.wait_settled();
    cluster.wait_for_voters(2);
    assert!(storage_node(&cluster, &["identities"]).ok().lines().any(|line| line.ends_with("second")));
}

/// Reads everything that passes the loopback interface from or to a network, until it is ended.
struct Capture {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Vec<u8>>,
}

impl Capture {
    fn start(network: [u8; 2]) -> Self {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        // SAFETY: the arguments are plain values, and the result is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol)) };
        assert!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: nobody else has the descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        setsockopt(&socket, sockopt::RcvBufForce, &(256 << 20)).unwrap();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let reader = thread::spawn(move || read_packets(&socket, &stopped, network));
        Self { stop, reader }
    }

    fn end(self) -> Vec<u8> {
        self.stop.store(true, SeqCst);
        self.reader.join().unwrap()
    }
}

fn read_packets(socket: &OwnedFd, stop: &AtomicBool, [a, b]: [u8; 2]) -> Vec<u8> {
    let (mut all, mut packet) = (Vec::new(), vec![0_u8; 1 << 17]);
    while !stop.load(SeqCst) {
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one structure, and it outlives the call.
        if unsafe { libc::poll(&mut poll, 1, 50) } <= 0 {
            continue;
        }
        // SAFETY: the buffer has that length.
        let length = unsafe { libc::recv(socket.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0) };
        let received = &packet[..usize::try_from(length).unwrap_or(0)];
        // Behind the 14 bytes of the Ethernet head, the addresses are the bytes 12 to 20 of that of IP.
        let is_ours = received.get(26..34).is_some_and(|addresses| {
            [&addresses[..4], &addresses[4..]].iter().any(|address| address.starts_with(&[127, a, b]))
        });
        if is_ours {
            all.extend_from_slice(received);
        }
    }
    all
}

/// What passes the wire while a ring works, and an operator's token of it.
fn traffic(has_identities: bool) -> (Vec<u8>, String) {
    let mut cluster = Cluster::empty();
    cluster.has_identities = has_identities;
    let capture = Capture::start(cluster.network());
    cluster.add();
    cluster.add();
    cluster.wait_settled();
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("a-most-secret-name"), "these contents are a secret, too ".repeat(1000)).unwrap();
    fs::File::open(mount.join("a-most-secret-name")).unwrap().sync_all().unwrap();
    mount.unmount();
    let again = TempMount::new(&cluster);
    assert!(fs::read_to_string(again.join("a-most-secret-name")).unwrap().starts_with("these"));
    storage_node(&cluster, &["config", "set", "pool.largest=5"]).ok();
    let check = storage_node(&cluster, &["check", "--verify"]).stdout;
    assert!(check.contains("0 missing"), "{check}");
    let token = cluster.operator_token(0);
    (capture.end(), token)
}

#[test]
fn no_name_no_contents_and_no_token_is_on_the_wire() {
    let contains = |traffic: &[u8], text: &str| traffic.windows(text.len()).any(|part| part == text.as_bytes());
    let secrets = |token: &str| ["a-most-secret-name".to_owned(), "contents are a secret".to_owned(), token.to_owned()];
    let (plain, token) = traffic(false);
    for secret in secrets(&token) {
        assert!(contains(&plain, &secret), "the capture sees {secret:?} where nothing is encrypted");
    }
    let (encrypted, token) = traffic(true);
    assert!(encrypted.len() > 100_000, "{} bytes", encrypted.len());
    for secret in secrets(&token) {
        assert!(!contains(&encrypted, &secret), "{secret:?} is on the wire");
    }
}
