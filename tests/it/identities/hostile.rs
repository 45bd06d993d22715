//! Messages that no honest program sends, to each port of a node, by everybody who can connect: without encryption, with
//! it and without a certificate, with a certificate that may only read, and in place of a handshake. The node lives, its
//! memory has a bound, and what is stored stays.
//!
//! Each message is a good one that was damaged. `CHORDFS_TEST_SEED` repeats a run, and `CHORDFS_TEST_MESSAGES` says how
//! many there are.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use chordfs_identity::{CertificateAuthority, Role};
use chordfs_net::{operator_token::authority_path, transport::Connector};
use chordfs_types::{
    chunk::{ChunkId, FileName, Version, chunk_key, encode_record},
    namespace::{Change, EntryName, Ino, NamespaceOp, Query, Request, Time, calls::NAMESPACE, encode},
};
use harness::{TempMount, wait_for};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rmpv::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use super::visitors::{SOON, credentials, resident_mib, ring, storage_node};

const AT_ONCE: usize = 16;
const PER_CONNECTION: usize = 64;
/// How long an answer to what may be half a message is waited for.
const SILENCE: Duration = Duration::from_millis(20);
const MAX_GROWTH_MIB: u64 = 700;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plane {
    Ring,
    Files,
    Admin,
}

/// How the attacker connects.
#[derive(Clone)]
enum Approach {
    Over(Connector),
    /// What he sends takes the place of the first message of TLS.
    Handshake,
}

fn text_of(method: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn call(method: &str, params: Vec<Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let message = Value::Array(vec![0.into(), 7.into(), method.into(), Value::Array(params)]);
    rmpv::encode::write_value(&mut bytes, &message).unwrap();
    bytes
}

fn requests_to_the_namespace() -> Vec<Request> {
    let name = EntryName::new("file").unwrap();
    let change = |change| Request::Apply(NamespaceOp { origin: None, now: Time::default(), change });
    vec![
        Request::Query(Query::Lookup { parent: Ino::ROOT, name: name.clone() }),
        Request::Query(Query::ReadDir { ino: Ino::ROOT, after: Some(name.clone()) }),
        Request::Query(Query::Open { ino: Ino(2) }),
        Request::Query(Query::Contents { ino: Ino(0), first: 0 }),
        change(Change::OpenSession { nonce: 7, client: "hostile".to_owned(), holds_leases: true }),
        change(Change::Unlink { parent: Ino::ROOT, name, hold: false }),
    ]
}

/// Good messages.
fn corpus(plane: Plane) -> Vec<Vec<u8>> {
    let file = FileName::new("file").unwrap();
    match plane {
        Plane::Ring => {
            let node = || Value::Array(vec!["127.0.0.1".into(), 5057.into(), 9.into()]);
            let mut calls = vec![
                call("get_info", vec![]),
                call("find_successor", vec![Value::from(u32::MAX)]),
                call("notify", vec![node()]),
                call("join", vec![node()]),
                call("chordfs_place", vec![node()]),
                call("chordfs_route", vec![7.into()]),
            ];
            let encoded = |request: &Request| Value::Binary(encode(request).to_vec());
            calls.extend(requests_to_the_namespace().iter().map(|request| call(NAMESPACE, vec![encoded(request)])));
            calls
        }
        Plane::Files => {
            let mut batch = bytes::BytesMut::new();
            for index in 1..=3 {
                let id = ChunkId { version: Version(1 << 40), index };
                encode_record(&mut batch, &file, id, chunk_key(&file, index), b"data of a chunk");
            }
            let form = b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"hostile\"\r\n\r\ncontents\r\n--B--\r\n";
            vec![
                text_of("POST", "/chunks/put?copies=3&durable=true", "application/octet-stream", &batch),
                text_of("POST", "/chunks/get", "application/octet-stream", &batch[..40]),
                text_of("POST", "/chunks/delete", "application/octet-stream", &batch[..40]),
                text_of("POST", "/upload", "multipart/form-data; boundary=B", form),
                text_of("PUT", "/hostile/upload", "text/plain", b"contents"),
                text_of("POST", "/api/list_keys", "application/json", b"{\"prefix\": \"a\"}"),
                text_of("GET", "/kept?x=%41%ff", "text/plain", b""),
            ]
        }
        Plane::Admin => vec![
            text_of("POST", "/identity", "application/json", br#"{"request": "AAAA", "role": "node", "name": "x"}"#),
            text_of("POST", "/raft/append?to=1&of=1", "application/octet-stream", &[7; 90]),
            text_of("POST", "/raft/snapshot?to=1&of=1", "application/octet-stream", &[7; 90]),
            text_of("PUT", "/config", "application/json", br#"{"cache.capacity": "1G"}"#),
            text_of("POST", "/login", "application/x-www-form-urlencoded", b"token=chordfs-1234"),
            text_of("POST", "/notify_join_system", "application/json", br#"{"ip": "127.0.0.1"}"#),
            text_of("GET", "/ring/history", "text/plain", b""),
        ],
    }
}

/// A message of TLS that begins a handshake.
fn client_hello() -> Vec<u8> {
    let body: Vec<u8> = [3_u8, 3].into_iter().chain([9; 32]).chain([0, 0, 4, 0x13, 1, 0x13, 3, 1, 0]).collect();
    let handshake: Vec<u8> = [1_u8, 0, 0, body.len() as u8].into_iter().chain(body).collect();
    [22_u8, 3, 1, 0, handshake.len() as u8].into_iter().chain(handshake).collect()
}

fn damaged(rng: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(0..4) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 0x7f, 0x80, 0xff, b'%', 0xc6, 0xdd][rng.random_range(0..7)],
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, (0..rng.random_range(1..20)).map(|_| rng.random()).collect::<Vec<u8>>())),
            4 => {
                let end = (at + rng.random_range(1..30)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => drop(bytes.drain(at..(at + rng.random_range(1..12)).min(bytes.len()))),
        }
    }
    bytes
}

/// Sends messages until the node ends the connection, and looks at some answers on the way.
async fn send_all(mut connection: impl AsyncRead + AsyncWrite + Unpin, messages: &[Vec<u8>]) -> usize {
    let (mut sent, mut answer) = (0, vec![0; 1 << 16]);
    for message in messages {
        if !matches!(timeout(SOON, connection.write_all(message)).await, Ok(Ok(()))) {
            break;
        }
        sent += 1;
        if sent % 8 == 0
            && let Ok(Ok(0) | Err(_)) = timeout(SILENCE, connection.read(&mut answer)).await
        {
            break;
        }
    }
    sent.max(1)
}

/// One attacker: connects again and again until he has sent so many messages.
async fn attack(address: SocketAddr, approach: Approach, good: Arc<Vec<Vec<u8>>>, seed: u64, count: usize) {
    let (mut rng, mut left) = (StdRng::seed_from_u64(seed), count);
    while left > 0 {
        let good: Vec<&Vec<u8>> = (0..PER_CONNECTION.min(left)).map(|_| good.choose(&mut rng).expect("some")).collect();
        let messages: Vec<Vec<u8>> = good.into_iter().map(|good| damaged(&mut rng, good)).collect();
        let sent = match &approach {
            Approach::Over(connector) => match timeout(SOON, connector.connect(address)).await {
                Ok(Ok(connection)) => send_all(connection, &messages).await,
                _ => 1,
            },
            Approach::Handshake => match timeout(SOON, TcpStream::connect(address)).await {
                Ok(Ok(connection)) => send_all(connection, &messages[..1]).await,
                _ => 1,
            },
        };
        left -= sent.min(left);
    }
}

fn attack_from_all_sides(messages: usize) {
    let seed = std::env::var("CHORDFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    eprintln!("CHORDFS_TEST_SEED={seed}");
    let cluster = ring(3);
    let mount = TempMount::new(&cluster);
    let contents = vec![7; 200_000];
    fs::write(mount.join("kept"), &contents).unwrap();
    fs::File::open(mount.join("kept")).unwrap().sync_all().unwrap();
    let runtime = Runtime::new().unwrap();
    let authority = CertificateAuthority::load(&authority_path(&cluster.nodes[0].data)).unwrap();
    let approaches = [
        Approach::Over(Connector::Plain),
        Approach::Over(Connector::pinned(authority.fingerprint()).unwrap()),
        Approach::Over(credentials(&cluster, &runtime, Role::ReadOnlyClient)),
        Approach::Handshake,
    ];
    let before = resident_mib(cluster.pid(0));
    let each = messages.div_ceil(3 * approaches.len() * AT_ONCE);
    for (number, plane) in [Plane::Ring, Plane::Files, Plane::Admin].into_iter().enumerate() {
        let address = SocketAddr::from((cluster.ip(0), 5057 + number as u16));
        for (way, approach) in approaches.iter().enumerate() {
            let is_handshake = matches!(approach, Approach::Handshake);
            let good = Arc::new(if is_handshake { vec![client_hello()] } else { corpus(plane) });
            let seed = |attacker: usize| seed.wrapping_add((number * 1000 + way * 100 + attacker) as u64);
            let attackers = (0..AT_ONCE)
                .map(|attacker| runtime.spawn(attack(address, approach.clone(), good.clone(), seed(attacker), each)));
            for attacker in attackers.collect::<Vec<_>>() {
                runtime.block_on(attacker).unwrap();
            }
        }
    }
    let url = format!("http://{}:5059/readyz", cluster.ip(0));
    wait_for("the node serves", SOON, || {
        let answer = reqwest::blocking::get(&url).map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.text().unwrap_or_default()) }
    });
    let grown = resident_mib(cluster.pid(0)).saturating_sub(before);
    assert!(grown < MAX_GROWTH_MIB, "the node grew by {grown} MiB");
    assert_eq!(fs::read(mount.join("kept")).unwrap(), contents);
    fs::write(mount.join("after"), "still writing").unwrap();
    assert_eq!(fs::read_to_string(TempMount::new(&cluster).join("after")).unwrap(), "still writing");
    let status = cluster.status(0);
    assert_eq!(status["namespace"]["voters"].as_array().map(Vec::len), Some(3));
    wait_for("the check finds no fault", SOON, || {
        let check = storage_node(&cluster, &["check", "--verify"]);
        let is_whole = check.stdout.lines().any(|line| line.starts_with("0 missing, 0 damaged,"));
        if is_whole { Ok(()) } else { Err(check.stdout) }
    });
}

fn messages(usual: usize) -> usize {
    std::env::var("CHORDFS_TEST_MESSAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

#[test]
fn no_message_stops_a_node_or_changes_what_is_stored() {
    attack_from_all_sides(messages(6_000));
}

#[test]
#[ignore = "slow: a million messages; SLOW_TESTS=1 tests/check.sh runs it"]
fn no_message_of_a_million_stops_a_node_or_changes_what_is_stored() {
    attack_from_all_sides(messages(1_000_000));
}
