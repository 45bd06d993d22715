//! What somebody can do who sits on the wire, holds connections open, or has stolen a node's disk.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use chordfs_identity::{CertificateAuthority, Credentials, Role, Tls};
use chordfs_net::{operator_token::authority_path, transport::Connector};
use harness::{Lab, TempMount, hostile_network::HostileNetwork, wait_for};
use hyper::StatusCode;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::Rng;
use tokio::{io::AsyncReadExt, runtime::Runtime, time::timeout};

use super::visitors::{Outsider, SOON, Visitor, credentials, resident_mib, ring, storage_node};

/// How many files are written, over and over.
const FILES: usize = 20;
/// Until each kind of fault has happened so often.
const FAULTS_OF_A_KIND: usize = 6;
const HOSTILE_AT_MOST: Duration = Duration::from_secs(240);

/// TLS finds each altered byte; what the program sees is a connection that ended.
#[test]
fn a_network_that_alters_bytes_changes_nothing_that_is_stored() {
    let seed: u64 = rand::rng().random();
    eprintln!("seed {seed}");
    let mut lab = Lab::start_with_identities(3);
    let invite = |lab: &Lab| lab.storage_node(0, &["invite"], &["--role", "client"]).ok().trim().to_owned();
    let (behind, beside) = (Outsider::new(), Outsider::new());
    let network = {
        let (token, name) = (invite(&lab), lab.add_workstation());
        lab.on_workstation(name, || {
            let network = HostileNetwork::start(seed);
            behind.mount(&token).ok();
            network
        })
    };
    let (token, name) = (invite(&lab), lab.add_workstation());
    lab.on_workstation(name, || beside.mount(&token)).ok();
    network.begin();
    let began = Instant::now();
    let mut round = 0;
    while network.fewest_faults() < FAULTS_OF_A_KIND && began.elapsed() < HOSTILE_AT_MOST {
        write_and_compare(&behind.point(), &beside.point(), round);
        write_and_compare(&beside.point(), &behind.point(), round);
        round += 1;
    }
    network.end();
    eprintln!("{round} rounds in {:?}", began.elapsed());
    assert!(network.fewest_faults() >= FAULTS_OF_A_KIND, "after {round} rounds");
    for written in round.saturating_sub(FILES)..round {
        assert_eq!(fs::read(file(&behind.point(), written)).unwrap(), contents(written), "file {written}");
    }
    behind.unmount();
    beside.unmount();
    let check = lab.storage_node(0, &["check"], &["--verify"]).stdout;
    assert!(check.lines().any(|line| line.starts_with("0 missing, 0 damaged,")), "{check}");
}

fn file(mount: &Path, round: usize) -> std::path::PathBuf {
    mount.join(format!("file-{}", round % FILES))
}

fn contents(round: usize) -> Vec<u8> {
    (0..100_000 + round * 100).map(|at| (at * 31 + round * 7 + (at >> 8)) as u8).collect()
}

/// Writes a file through one mount, and reads it through the other.
fn write_and_compare(writer: &Path, reader: &Path, round: usize) {
    let path = file(writer, round);
    fs::write(&path, contents(round)).unwrap_or_else(|error| panic!("round {round}: write: {error}"));
    fs::File::open(&path).and_then(|file| file.sync_all()).unwrap_or_else(|error| panic!("round {round}: {error}"));
    let found = fs::read(file(reader, round)).unwrap_or_else(|error| panic!("round {round}: read: {error}"));
    assert!(found == contents(round), "round {round}: other bytes than were written");
}

#[test]
fn idle_connections_of_strangers_keep_nobody_out() {
    keep_idle(1_500);
}

#[test]
#[ignore = "slow: ten thousand handshakes; SLOW_TESTS=1 tests/check.sh runs it"]
fn ten_thousand_idle_connections_of_strangers_keep_nobody_out() {
    keep_idle(10_000);
}

fn keep_idle(count: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let cluster = ring(1);
    let authority = CertificateAuthority::load(&authority_path(&cluster.nodes[0].data)).unwrap();
    let connector = Connector::pinned(authority.fingerprint()).unwrap();
    let runtime = Runtime::new().unwrap();
    let before = resident_mib(cluster.pid(0));
    let mut idle = Vec::new();
    for number in 0..count {
        let address = SocketAddr::from((cluster.ip(0), 5057 + (number % 3) as u16));
        let connected = runtime.block_on(async { timeout(SOON, connector.connect(address)).await });
        // A connection that is refused, or ended soon, keeps nobody out either.
        idle.extend(connected.expect("an answer in time").ok());
    }
    assert!(idle.len() > count / 4, "only {} connections of {count} were taken", idle.len());
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), "contents").unwrap();
    fs::File::open(mount.join("file")).unwrap().sync_all().unwrap();
    assert_eq!(fs::read_to_string(TempMount::new(&cluster).join("file")).unwrap(), "contents");
    let status = storage_node(&cluster, &["status"]).stdout;
    assert!(status.contains("leader"), "{status}");
    let grown = resident_mib(cluster.pid(0)).saturating_sub(before);
    assert!(grown < 64 + count as u64 / 16, "{count} connections took {grown} MiB");
    drop(idle);
}

/// A port of files takes so many connections of one identity.
const MAX_OF_IDENTITY: usize = 256;
/// How long the end of a connection is waited for that was taken and is kept.
const SILENCE: Duration = Duration::from_secs(3);

#[test]
fn one_identity_leaves_the_others_their_connections() {
    let cluster = ring(1);
    let (runtime, address) = (Runtime::new().unwrap(), SocketAddr::from((cluster.ip(0), 5058)));
    let greedy = credentials(&cluster, &runtime, Role::Client);
    let other = Visitor { name: "other", connector: credentials(&cluster, &runtime, Role::Client) };
    let surplus = 40;
    let ended = runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..MAX_OF_IDENTITY + surplus {
            connections.push(greedy.connect(address).await.unwrap());
        }
        assert!(other.call(address, "GET", "/chunks/space").await.is_some(), "another client is let in");
        let looks = connections.into_iter().map(|mut connection| {
            tokio::spawn(async move { timeout(SILENCE, connection.read(&mut [0])).await.is_ok() })
        });
        let mut ended = 0;
        for look in looks.collect::<Vec<_>>() {
            ended += usize::from(look.await.unwrap());
        }
        ended
    });
    assert_eq!(ended, surplus);
}

/// With the files of a node's folder somebody is that node until it is revoked.
#[test]
fn what_was_stolen_from_a_node_is_worth_nothing_once_it_is_revoked() {
    let cluster = ring(3);
    let (runtime, address) = (Runtime::new().unwrap(), |port| SocketAddr::from((cluster.ip(0), port)));
    let copy = tempfile::tempdir().unwrap();
    fs::copy(cluster.nodes[2].data.join("identity/node.pem"), copy.path().join("node.pem")).unwrap();
    let stolen = Credentials::load(&copy.path().join("node.pem")).unwrap();
    let id = stolen.owner().identity.id.to_string();
    let thief = Visitor { name: "thief", connector: Connector::over(&Tls::new(&stolen).unwrap()) };
    let may = || {
        let neighbours = runtime.block_on(thief.rpc(address(5057), "chordfs_neighbours", vec![])).is_some();
        let identity = runtime.block_on(thief.call(address(5059), "GET", "/raft/identity"));
        let chunks = runtime.block_on(thief.call(address(5058), "GET", "/chunks/digest?after=0&upto=0"));
        let is_open = |status: Option<StatusCode>| status.is_some_and(|status| status != StatusCode::FORBIDDEN);
        [neighbours, is_open(identity), is_open(chunks)]
    };
    assert_eq!(may(), [true; 3], "the files are all that a node has");
    storage_node(&cluster, &["revoke", &id]).ok();
    wait_for("the thief is kept out of all ports", Duration::from_secs(60), || match may() {
        [false, false, false] => Ok(()),
        open => Err(format!("{open:?}")),
    });
}

/// The versions and cipher suites that a server takes, found as `testssl` does it: by offering one after the other.
#[test]
fn only_tls_1_3_with_its_strong_suites_is_spoken() {
    let cluster = ring(1);
    let suites_of_old: Vec<u16> = vec![0xc02b, 0xc02c, 0xcca9, 0xc009, 0xc00a, 0x009c, 0x002f, 0x000a, 0x0005];
    for port in 5057..=5059 {
        let address = SocketAddr::from((cluster.ip(0), port));
        for version in [0x0300, 0x0301, 0x0302, 0x0303] {
            assert_eq!(offer(address, version, false, &suites_of_old), None, "{port}: version {version:#06x}");
        }
        let taken: Vec<u16> = (0x1301..=0x1307).filter_map(|suite| offer(address, 0x0303, true, &[suite])).collect();
        let strong = [0x1301, 0x1302, 0x1303];
        assert!(!taken.is_empty() && taken.iter().all(|suite| strong.contains(suite)), "{port}: {taken:#06x?}");
    }
}

/// The suite that the server chooses, if it goes on with the handshake.
fn offer(address: SocketAddr, version: u16, is_tls_1_3: bool, suites: &[u16]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&client_hello(version, is_tls_1_3, suites)).unwrap();
    let mut answer = vec![0; 5 + 4 + 2 + 32 + 1];
    // An alert is shorter, and the connection ends after it.
    stream.read_exact(&mut answer).ok()?;
    let (handshake, server_hello) = (22, 2);
    if (answer[0], answer[5]) != (handshake, server_hello) {
        return None;
    }
    let mut rest = vec![0; usize::from(answer[43]) + 2];
    stream.read_exact(&mut rest).unwrap();
    let suite = rest.last_chunk::<2>().expect("it has two bytes at least");
    Some(u16::from_be_bytes(*suite))
}

fn client_hello(version: u16, is_tls_1_3: bool, suites: &[u16]) -> Vec<u8> {
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let mut extensions = [
        // Curves x25519 and P-256, and the usual signatures.
        extension(10, &with_length_of_two(&[0, 0x1d, 0, 0x17])),
        extension(13, &with_length_of_two(&[4, 3, 5, 3, 8, 4, 8, 7])),
    ]
    .concat();
    if is_tls_1_3 {
        let point = [&[0, 0x1d, 0, 32][..], &[9], &[0; 31]].concat();
        extensions.extend(extension(43, &[2, 3, 4]));
        extensions.extend(extension(51, &with_length_of_two(&point)));
    }
    let random = [7; 32];
    let no_session = [0];
    let no_compression = [1, 0];
    let body = [
        &version.to_be_bytes()[..],
        &random,
        &no_session,
        &with_length_of_two(&suites),
        &no_compression,
        &with_length_of_two(&extensions),
    ]
    .concat();
    let handshake = [&[1, 0][..], &with_length_of_two(&body)].concat();
    [&[22, 3, 1][..], &with_length_of_two(&handshake)].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length_of_two(body)].concat()
}

fn with_length_of_two(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("it is short").to_be_bytes()[..], bytes].concat()
}
