//! The targets. Each takes bytes as a peer sends them and does with them what a node or a mount does first.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use chordfs_identity::{
    CertificateAuthority, CertifiedIdentity, Credentials, Identity, InvitationToken, NewKey, Role, Validity,
    new_identity,
};
use chordfs_net::rpc::{DialedStream, RpcLimits, RpcPeer, RpcService, Value, serve_stream};
use chordfs_tables::Tables;
use chordfs_types::{
    chunk::{ChunkId, ChunkName, ChunkRef, ChunkRun, FileName, VerifiedBatch, Version, chunk_key, encode_record},
    chunk_api,
    compare_api::{self, ChunkAt},
    namespace::{
        self, Change, Commit, EntryName, Extent, FileKind, Ino, NamespaceOp, NewNode, Query, RenameMode, Request,
        Response, SetAttr, Time, Truncate,
    },
    operator::OperatorToken,
    ring_id::RingId,
};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::whole_node;

/// One kind of input.
pub struct Target {
    pub name: &'static str,
    /// Panics if it finds a fault.
    pub run: fn(&[u8]),
    /// Good inputs.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// An input takes about as long as so many of the others.
    pub share: u64,
}

pub const TARGETS: &[Target] = &[
    Target { name: "chunk-records", run: chunk_records, corpus: record_corpus, share: 1 },
    Target { name: "chunk-bodies", run: chunk_bodies, corpus: chunk_body_corpus, share: 1 },
    Target { name: "namespace-requests", run: namespace_requests, corpus: request_corpus, share: 1 },
    Target { name: "namespace-answers", run: namespace_answers, corpus: answer_corpus, share: 1 },
    Target { name: "rpc-messages", run: rpc_messages, corpus: rpc_corpus, share: 1 },
    Target { name: "certificates", run: certificates, corpus: certificate_corpus, share: 1 },
    Target { name: "names-and-tokens", run: names_and_tokens, corpus: text_corpus, share: 1 },
    Target { name: "whole-node", run: whole_node::run, corpus: whole_node::corpus, share: 10 },
];

fn file() -> FileName {
    FileName::new("folder/file").expect("a good name")
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name.to_owned()).expect("a good name")
}

/// The body of a put: what is accepted is whole, and encodes to the same bytes.
fn chunk_records(bytes: &[u8]) {
    let Ok(batch) = VerifiedBatch::verify(Bytes::copy_from_slice(bytes)) else { return };
    let whole: usize = batch.records.iter().map(|(header, _)| header.record_bytes()).sum();
    assert_eq!(whole, bytes.len(), "an accepted batch has no rest");
}

fn record_corpus() -> Vec<Vec<u8>> {
    let mut batch = BytesMut::new();
    for index in 1..=3 {
        let id = ChunkId { version: Version(7), index };
        encode_record(&mut batch, &file(), id, chunk_key(&file(), index), &[index as u8; 40]);
    }
    let one = batch[..batch.len() / 3].to_vec();
    vec![batch.to_vec(), one]
}

/// The bodies of the other calls for chunks, and of those by which holders compare what they have.
fn chunk_bodies(bytes: &[u8]) {
    let _ = chunk_api::decode_batch::<ChunkRef>(bytes);
    let _ = chunk_api::decode_batch::<ChunkRun>(bytes);
    let _ = compare_api::decode_arcs(bytes);
    let _ = compare_api::decode_chunks(bytes);
    let _ = compare_api::decode_ids_request(bytes);
    let _ = compare_api::decode::<compare_api::IdsPage>(bytes);
}

fn chunk_body_corpus() -> Vec<Vec<u8>> {
    let id = ChunkId { version: Version(9), index: 2 };
    let refs = [ChunkRef { file: file(), id }];
    let runs = [ChunkRun { file: file(), version: Version(9), first: 1, count: 40 }];
    let chunks = vec![ChunkAt { key: RingId(77), id, bytes: 4096 }];
    vec![
        chunk_api::encode_refs(&refs).to_vec(),
        chunk_api::encode_runs(&runs).to_vec(),
        compare_api::encode(&chunks),
        compare_api::encode(&compare_api::IdsPage { chunks, more: true }),
    ]
}

/// A request to the namespace is decoded, and carried out on tables that have a few files.
fn namespace_requests(bytes: &[u8]) {
    let Ok(request) = namespace::decode::<Request>(bytes) else { return };
    let (mut tables, _) = small_tree();
    let ops = match request {
        Request::Apply(op) => vec![op],
        Request::ApplyList(ops) => ops,
        Request::Query(query) => return drop(tables.query(&query)),
        _ => return,
    };
    for (at, mut op) in ops.into_iter().take(20).enumerate() {
        // A node does this for nobody: sessions are those that the tables know.
        op.origin = None;
        let _ = tables.affected(&op.change);
        let _ = tables.apply(100 + at as u64, Time { secs: 100, nanos: 0 }, &op);
    }
    for ino in [Ino::ROOT, Ino(2), Ino(3)] {
        let _ = tables.query(&Query::ReadDir { ino, after: None });
        let _ = tables.query(&Query::Open { ino });
    }
}

/// Tables with a folder and a file of two extents, and the file.
fn small_tree() -> (Tables, Ino) {
    let (mut tables, mut index) = (Tables::new(), 0);
    let mut apply = |change: Change| {
        index += 1;
        let now = Time { secs: index, nanos: 0 };
        tables.apply(index as u64, now, &NamespaceOp { origin: None, now, change }).reply
    };
    let _ = apply(make("d", FileKind::Directory));
    let file = match apply(make("f", FileKind::File)) {
        Ok(namespace::Reply::Entry { attr, .. }) => attr.ino,
        other => panic!("a file cannot be made: {other:?}"),
    };
    let _ = apply(Change::Commit { ino: file, commit: commit() });
    (tables, file)
}

fn make(name: &str, kind: FileKind) -> Change {
    let node = NewNode { kind, mode: 0o644, uid: 1, gid: 1, rdev: 0, chunk_bytes: 4096, target: Bytes::new() };
    Change::Make { parent: Ino::ROOT, name: entry(name), node, exclusive: false }
}

fn commit() -> Commit {
    let extent = |first, version| Extent { first, count: 3, version: Version(version) };
    Commit { size_at_least: 30_000, extents: vec![extent(1, 5), extent(7, 6)], ..Commit::default() }
}

pub(crate) fn request_corpus() -> Vec<Vec<u8>> {
    let (_, file) = small_tree();
    let op = |change| NamespaceOp { origin: None, now: Time { secs: 9, nanos: 9 }, change };
    let truncate =
        SetAttr { truncate: Some(Truncate { size: 5000, tail: None }), mode: Some(0o600), ..SetAttr::default() };
    let changes = vec![
        make("new", FileKind::Symlink),
        Change::Commit { ino: file, commit: commit() },
        Change::SetAttr { ino: file, set: truncate },
        Change::Unlink { parent: Ino::ROOT, name: entry("f"), hold: true },
        Change::Rmdir { parent: Ino::ROOT, name: entry("d") },
        Change::Link { ino: file, parent: Ino::ROOT, name: entry("g") },
        Change::Rename {
            parent: Ino::ROOT,
            name: entry("f"),
            new_parent: Ino::ROOT,
            new_name: entry("d"),
            mode: RenameMode::Exchange,
            hold: false,
        },
        Change::AllocateVersions { count: 7 },
        Change::OpenSession { nonce: 3, client: "fuzz".into(), holds_leases: true },
    ];
    let queries = vec![
        Query::Lookup { parent: Ino::ROOT, name: entry("f") },
        Query::Extents { ino: file, from: 2 },
        Query::OpenEntries { ino: Ino::ROOT, after: Some(entry("d")), limit: 3 },
        Query::Resolve { path: vec![entry("d"), entry("x")] },
        Query::Unreferenced { runs: commit().extents },
        Query::Contents { ino: Ino(0), first: 0 },
    ];
    let list = Request::ApplyList(changes.iter().cloned().map(op).collect());
    let single = changes.into_iter().map(|change| Request::Apply(op(change)));
    let requests = single.chain(queries.into_iter().map(Request::Query)).chain([list]);
    requests.map(|request| namespace::encode(&request).to_vec()).collect()
}

fn namespace_answers(bytes: &[u8]) {
    if let Ok(answer) = namespace::decode::<Response>(bytes) {
        let again = namespace::encode(&answer);
        assert!(namespace::decode::<Response>(&again).is_ok(), "what was decoded is encoded and decoded again");
    }
}

fn answer_corpus() -> Vec<Vec<u8>> {
    let (tables, file) = small_tree();
    let queries = [
        Query::Open { ino: file },
        Query::ReadDir { ino: Ino::ROOT, after: None },
        Query::OpenEntries { ino: Ino::ROOT, after: None, limit: 9 },
        Query::Lookup { parent: Ino::ROOT, name: entry("missing") },
    ];
    let answers = queries.iter().map(|query| Response::Answered(tables.query(query), Default::default()));
    answers.map(|answer| namespace::encode(&answer).to_vec()).collect()
}

/// Answers each call with its parameters.
struct Echo;

impl RpcService for Echo {
    async fn call(&self, _: &RpcPeer, _: String, params: Vec<Value>) -> Result<Value, Value> {
        Ok(Value::Array(params))
    }
}

/// A connection on which the bytes arrive and then nothing more.
fn rpc_messages(bytes: &[u8]) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream =
            DialedStream { read: Box::new(std::io::Cursor::new(bytes.to_vec())), write: Box::new(tokio::io::sink()) };
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        serve_stream(stream, peer, Arc::new(Echo), RpcLimits::default(), CancellationToken::new()).await;
    });
}

fn rpc_corpus() -> Vec<Vec<u8>> {
    let encoded = |message: Value| {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &message).expect("it is written to memory");
        bytes
    };
    let params = || Value::Array(vec![Value::from(7), Value::from("text"), Value::Binary(vec![1; 40]), Value::Nil]);
    let request = encoded(Value::Array(vec![0.into(), 1.into(), "get_info".into(), params()]));
    let notification = encoded(Value::Array(vec![2.into(), "feed".into(), params()]));
    let answer = encoded(Value::Array(vec![1.into(), 1.into(), Value::Nil, params()]));
    vec![[&request[..], &notification, &request].concat(), answer]
}

fn certificates(bytes: &[u8]) {
    if let Ok(owner) = CertifiedIdentity::of(bytes) {
        assert_eq!(owner.identity.check(), Ok(()), "a certificate is read whose owner no ring would let in");
    }
    let _ = CertificateAuthority::from_pem(bytes, std::path::Path::new("fuzz"));
}

fn certificate_corpus() -> Vec<Vec<u8>> {
    let authority = CertificateAuthority::create(SystemTime::UNIX_EPOCH).expect("an authority");
    let issue = |role, path| {
        let (key, identity) = (NewKey::generate().expect("a key"), new_identity(role, "fuzz", path).expect("good"));
        let validity = Validity::starting(SystemTime::now(), std::time::Duration::from_secs(60));
        let certificate = authority.issue(&key.request().expect("a request"), &identity, validity).expect("issued");
        let credentials: Credentials = key.certified(&certificate, authority.certificate()).expect("they fit");
        assert_eq!(credentials.owner().identity, identity);
        certificate.to_vec()
    };
    vec![issue(Role::Node, None), issue(Role::Client, Some("/projects")), authority.to_pem().as_bytes().to_vec()]
}

/// What people and programs write: names of chunks, identities in certificates, tokens.
fn names_and_tokens(bytes: &[u8]) {
    let (chunk, _) = (ChunkName::parse(bytes), EntryName::new(bytes.to_vec()));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(name) = chunk {
        assert_eq!(name.to_string(), text, "a name is written as it was read");
    }
    if let Ok(identity) = Identity::from_uri(text) {
        assert_eq!(Identity::from_uri(&identity.to_uri()), Ok(identity));
    }
    let _ = (text.parse::<InvitationToken>(), text.parse::<OperatorToken>());
    let _ = (namespace::path_names(text), chordfs_types::duration::parse(text));
}

fn text_corpus() -> Vec<Vec<u8>> {
    let authority = CertificateAuthority::create(SystemTime::UNIX_EPOCH).expect("an authority");
    let nodes = vec![SocketAddr::from(([10, 0, 0, 1], 5057)), "[fd00::1]:5057".parse().expect("an address")];
    let secret = chordfs_identity::InvitationSecret::random();
    let token = InvitationToken { secret, authority: authority.fingerprint(), nodes };
    let identity = new_identity(Role::ReadOnlyClient, "who & what", Some("/a/b")).expect("good");
    let texts = [token.reveal(), identity.to_uri(), "folder/name_chunk_17".into(), "90m".into()];
    texts.into_iter().map(String::into_bytes).collect()
}
