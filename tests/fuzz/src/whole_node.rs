//! A whole node as a target: it runs in this process, so that libFuzzer sees the coverage of everything behind its ports.
//!
//! An input is a byte that chooses the port, and what is then sent on a connection of its own. The node belongs to a ring
//! without identities: with them, TLS would stop nearly every input before anything is decoded. A panic in any of the
//! node's threads, a node that ends, and one that no longer answers are faults.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    panic,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use chordfs_net::rpc::Value;
use chordfs_node::{
    identity::SecurityConfig,
    lifecycle::{self, NodeConfig},
};
use chordfs_types::{
    chunk::{ChunkId, FileName, Version, chunk_key, encode_record},
    namespace::calls::NAMESPACE,
};

use crate::targets::request_corpus;

/// How long the node has to start, and to answer an honest question.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the answer to what may be half a message is waited for.
const ANSWER_TIME: Duration = Duration::from_millis(50);
/// After so many inputs the node is asked an honest question.
const ASK_EVERY: usize = 64;
/// The ports for the ring, files, and administration: the first one, and the two after it.
const RING_PORT: u16 = 5057;

static PANICS: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);
static INPUTS: AtomicUsize = AtomicUsize::new(0);
static NODE: LazyLock<IpAddr> = LazyLock::new(start_node);

/// Starts a node that runs as long as this process.
fn start_node() -> IpAddr {
    count_panics();
    // The usual addresses may be taken.
    let [a, b, c] = rand::random::<[u8; 3]>();
    let ip = IpAddr::V4(Ipv4Addr::new(127, a.clamp(1, 250), b, c.clamp(1, 250)));
    let folder = tempfile::tempdir().expect("a folder");
    let config = NodeConfig {
        security: SecurityConfig { insecure: true, ..SecurityConfig::default() },
        ..NodeConfig::new(folder.path().to_owned(), SocketAddr::new(ip, RING_PORT))
    };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let ended = runtime.expect("a runtime").block_on(lifecycle::run(config));
        eprintln!("the node has ended: {ended:?}");
        ENDED.fetch_add(1, SeqCst);
        drop(folder);
    });
    let give_up_at = Instant::now() + PATIENCE;
    while !answers(ip) {
        assert!(Instant::now() < give_up_at, "the node does not start");
        thread::sleep(Duration::from_millis(50));
    }
    ip
}

fn count_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, SeqCst);
        report(info);
    }));
}

/// Whether the node answers an honest question.
fn answers(ip: IpAddr) -> bool {
    let question = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let Some(mut stream) = send(SocketAddr::new(ip, RING_PORT + 2), question, PATIENCE) else { return false };
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

/// Sends all of it, and leaves the connection open: a server may drop a request whose sender has left.
fn send(address: SocketAddr, bytes: &[u8], answer_time: Duration) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    let timeouts = stream.set_read_timeout(Some(answer_time)).and(stream.set_write_timeout(Some(PATIENCE)));
    timeouts.expect("times that are not zero");
    // The node may have ended the connection after a part.
    let _ = stream.write_all(bytes);
    Some(stream)
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((port, sent)) = bytes.split_first() else { return };
    let ip = *NODE;
    let before = PANICS.load(SeqCst);
    if let Some(mut stream) = send(SocketAddr::new(ip, RING_PORT + u16::from(port % 3)), sent, ANSWER_TIME) {
        let _ = stream.read(&mut [0; 4096]);
    }
    assert_eq!(PANICS.load(SeqCst), before, "something in the node has panicked");
    assert_eq!(ENDED.load(SeqCst), 0, "the node has ended");
    if INPUTS.fetch_add(1, SeqCst).is_multiple_of(ASK_EVERY) {
        assert!(answers(ip), "the node no longer answers");
    }
}

pub(crate) fn corpus() -> Vec<Vec<u8>> {
    let to =
        |port: u8, messages: Vec<Vec<u8>>| messages.into_iter().map(move |message| [&[port], &message[..]].concat());
    to(0, ring_messages()).chain(to(1, file_messages())).chain(to(2, admin_messages())).collect()
}

fn ring_messages() -> Vec<Vec<u8>> {
    let call = |method: &str, params: Vec<Value>| {
        let mut bytes = Vec::new();
        let message = Value::Array(vec![0.into(), 7.into(), method.into(), Value::Array(params)]);
        rmpv::encode::write_value(&mut bytes, &message).expect("it is written to memory");
        bytes
    };
    let node = || Value::Array(vec!["127.0.0.1".into(), RING_PORT.into(), 9.into()]);
    let to_namespace = request_corpus().into_iter().map(|request| call(NAMESPACE, vec![Value::Binary(request)]));
    let to_ring = [
        call("get_info", vec![]),
        call("find_successor", vec![Value::from(u32::MAX)]),
        call("notify", vec![node()]),
        call("chordfs_place", vec![node()]),
        call("chordfs_route", vec![7.into()]),
    ];
    to_ring.into_iter().chain(to_namespace).collect()
}

fn http(line: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn file_messages() -> Vec<Vec<u8>> {
    let file = FileName::new("fuzz").expect("a good name");
    let mut record = BytesMut::new();
    let id = ChunkId { version: Version(1 << 40), index: 1 };
    encode_record(&mut record, &file, id, chunk_key(&file, 1), b"data of a chunk");
    let form = b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"fuzz\"\r\n\r\ncontents\r\n--B--\r\n";
    vec![
        http("POST /chunks/put?copies=1&durable=true", "application/octet-stream", &record),
        http("POST /chunks/get", "application/octet-stream", &record[..40]),
        http("GET /chunks/list?start=1&end=2", "text/plain", b""),
        http("POST /upload", "multipart/form-data; boundary=B", form),
        http("PUT /fuzz/upload", "text/plain", b"contents"),
        http("GET /fuzz?x=%41", "text/plain", b""),
        http("POST /api/list_keys", "application/json", b"{\"prefix\": \"a\"}"),
    ]
}

fn admin_messages() -> Vec<Vec<u8>> {
    vec![
        http("POST /raft/append?to=1&of=1", "application/octet-stream", &[7; 90]),
        http("POST /raft/snapshot?to=1&of=1", "application/octet-stream", &[7; 90]),
        http("PUT /config", "application/json", br#"{"cache.capacity": "1G"}"#),
        http("POST /identity", "application/json", br#"{"request": "AAAA", "role": "node", "name": "x"}"#),
        http("POST /login", "application/x-www-form-urlencoded", b"token=chordfs-1234"),
        http("POST /notify_join_system", "application/json", br#"{"ip": "127.0.0.1"}"#),
        http("GET /metrics", "text/plain", b""),
    ]
}
