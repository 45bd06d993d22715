//! Clients that are bound to a folder, and clients that are kept apart from one another.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt, time::Duration};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef},
    chunk_api::calls,
    fs_error::FsError,
    namespace::{
        Answer, Attr, Change, Commit, EntryName, Extent, Ino, NamespaceOp, OpId, Query, RenameMode, Reply, Request,
        Response, SessionId, SetAttr, Time,
    },
};
use harness::{Cluster, TempMount, programs::shell, wait_for};
use hyper::StatusCode;
use tokio::runtime::Runtime;

use super::visitors::{Outsider, Visitor, invite, invited, ring};

/// A ring with `/projects/file` and `/other/file`, which are on the disks.
fn ring_with_folders() -> (Cluster, TempMount) {
    let cluster = ring(1);
    let mount = TempMount::new(&cluster);
    for folder in ["projects", "other"] {
        fs::create_dir(mount.join(folder)).unwrap();
        let file = mount.join(folder).join("file");
        fs::write(&file, format!("contents of {folder}")).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
    }
    (cluster, mount)
}

pub(super) fn names_in(folder: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_mount_that_is_bound_to_a_folder_works_in_it_and_sees_nothing_above_it() {
    let (cluster, mount) = ring_with_folders();
    let guest = Outsider::new();
    guest.mount(&invite(&cluster, &["--role", "client", "--path", "/projects", "--name", "guest"])).ok();
    assert_eq!(names_in(&guest.point()), ["file"]);
    assert_eq!(fs::read_to_string(guest.point().join("file")).unwrap(), "contents of projects");
    fs::create_dir_all(guest.point().join("deep/er")).unwrap();
    let long = vec![5; 3_000_000];
    fs::write(guest.point().join("deep/er/long"), &long).unwrap();
    fs::rename(guest.point().join("deep/er/long"), guest.point().join("long")).unwrap();
    fs::hard_link(guest.point().join("long"), guest.point().join("deep/link")).unwrap();
    fs::remove_file(guest.point().join("long")).unwrap();
    fs::File::open(guest.point().join("deep/link")).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(mount.join("projects/deep/link")).unwrap(), long);
    // What another mount changes there is seen at once, and what it changes elsewhere does no harm.
    fs::write(mount.join("projects/news"), "news").unwrap();
    fs::write(mount.join("other/more"), "more").unwrap();
    assert_eq!(fs::read_to_string(guest.point().join("news")).unwrap(), "news");
    guest.unmount();
    let source = cluster.ip(0);
    guest.mount(&format!("{source}:/projects/deep")).ok();
    assert_eq!(fs::read(guest.point().join("link")).unwrap(), long);
    guest.unmount();
    let refused = guest.mount(&format!("{source}:/other"));
    assert!(refused.code != Some(0) && refused.stderr.contains("/projects only"), "{}", refused.stderr);
}

/// A file as a client sees it that may see everything.
pub(super) struct SeenFile {
    pub ino: Ino,
    pub chunk: ChunkRef,
}

pub(super) struct Scene {
    cluster: Cluster,
    pub mount: TempMount,
    runtime: Runtime,
    pub free: Visitor,
    /// May do less.
    pub bound: Visitor,
}

impl Scene {
    fn new() -> Self {
        Self::with_guest(&["--path", "/projects"])
    }

    /// One client may do everything, and another one what an invitation with these options lets it do.
    pub(super) fn with_guest(options: &[&str]) -> Self {
        let (cluster, mount) = ring_with_folders();
        let runtime = Runtime::new().unwrap();
        let visitor = |name, args: &[&str]| {
            let token = invite(&cluster, &[&["--role", "client"], args].concat());
            Visitor { name, connector: invited(&runtime, &token) }
        };
        let (free, bound) = (visitor("free", &[]), visitor("bound", options));
        Self { cluster, mount, runtime, free, bound }
    }

    pub(super) fn ask(&self, visitor: &Visitor, request: Request) -> Response {
        let node = SocketAddr::from((self.cluster.ip(0), 5057));
        self.runtime.block_on(visitor.namespace(node, request)).expect("the call itself is allowed")
    }

    pub(super) fn open_session(&self, visitor: &Visitor) -> SessionId {
        let change = Change::OpenSession { nonce: rand::random(), client: "visitor".into(), holds_leases: false };
        match self.ask(visitor, Request::Apply(NamespaceOp { origin: None, now: Time::now(), change })) {
            Response::Applied(Ok(Reply::Session { session, .. }), _) => session,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ino(&self, path: &str) -> Ino {
        Ino(fs::metadata(self.mount.join(path)).unwrap().ino())
    }

    pub(super) fn seen(&self, path: &str) -> SeenFile {
        let (ino, (attr, extents)) = (self.ino(path), self.opened(path));
        let id = ChunkId { version: extents[0].version, index: 1 };
        SeenFile { ino, chunk: ChunkRef { file: attr.file, id } }
    }

    fn first_extent(&self, path: &str) -> Extent {
        self.opened(path).1[0]
    }

    fn opened(&self, path: &str) -> (Attr, Vec<Extent>) {
        match self.ask(&self.free, Request::Query(Query::Open { ino: self.ino(path) })) {
            Response::Answered(Ok(Answer::Open { attr, extents, .. }), _) => (attr, extents),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn call(&self, visitor: &Visitor, path: &str, body: Bytes) -> (StatusCode, Bytes) {
        let files = SocketAddr::from((self.cluster.ip(0), 5058));
        self.runtime.block_on(visitor.send(files, "POST", path, body)).expect("there is a connection")
    }

    pub(super) fn get_file(&self, visitor: &Visitor, path: &str) -> Option<StatusCode> {
        self.runtime.block_on(visitor.call(SocketAddr::from((self.cluster.ip(0), 5058)), "GET", path))
    }
}

pub(super) fn name(text: &str) -> EntryName {
    EntryName::new(text.to_owned()).unwrap()
}

pub(super) fn op(session: SessionId, sequence: u64, change: Change) -> Request {
    let origin = Some(OpId { session, sequence, answered_below: 0 });
    Request::Apply(NamespaceOp { origin, now: Time::now(), change })
}

pub(super) fn is_refused(response: &Response) -> bool {
    matches!(
        response,
        Response::Applied(Err(FsError::NotPermitted { .. }), _)
            | Response::Answered(Err(FsError::NotPermitted { .. }), _)
    )
}

/// What a program could send that has the certificate of a mount with a folder.
#[test]
fn no_request_to_the_namespace_gets_around_the_folder() {
    let scene = Scene::new();
    let (projects, other) = (scene.ino("projects"), scene.ino("other"));
    let (own, secret) = (scene.seen("projects/file"), scene.seen("other/file"));
    let queries = [
        Query::GetAttr { ino: Ino::ROOT },
        Query::GetAttr { ino: secret.ino },
        Query::Lookup { parent: Ino::ROOT, name: name("other") },
        Query::Lookup { parent: other, name: name("file") },
        Query::ReadDir { ino: Ino::ROOT, after: None },
        Query::Open { ino: secret.ino },
        Query::Extents { ino: secret.ino, from: 1 },
        Query::Resolve { path: vec![name("other"), name("file")] },
        Query::LoggedChunks { ids: vec![secret.chunk.id] },
    ];
    for query in queries {
        let asked = scene.ask(&scene.free, Request::Query(query.clone()));
        assert!(matches!(asked, Response::Answered(Ok(_), _)), "{query:?} of the free client: {asked:?}");
        let asked = scene.ask(&scene.bound, Request::Query(query.clone()));
        assert!(is_refused(&asked), "{query:?}: {asked:?}");
    }
    for query in [Query::GetAttr { ino: own.ino }, Query::Lookup { parent: Ino::ROOT, name: name("projects") }] {
        let asked = scene.ask(&scene.bound, Request::Query(query.clone()));
        assert!(matches!(asked, Response::Answered(Ok(_), _)), "{query:?}: {asked:?}");
    }
    let session = scene.open_session(&scene.bound);
    let extent = Extent { first: 1, count: 1, version: secret.chunk.id.version };
    let rename = |parent, new_parent| Change::Rename {
        parent,
        name: name("file"),
        new_parent,
        new_name: name("moved"),
        mode: RenameMode::Replace,
        hold: false,
    };
    let changes = [
        Change::Link { ino: secret.ino, parent: projects, name: name("link") },
        rename(projects, other),
        rename(other, projects),
        Change::Unlink { parent: other, name: name("file"), hold: false },
        Change::Rmdir { parent: Ino::ROOT, name: name("other") },
        Change::SetAttr { ino: secret.ino, set: SetAttr { mode: Some(0o777), ..SetAttr::default() } },
        Change::Hold { ino: secret.ino },
        Change::HoldOrphans { inos: vec![secret.ino] },
        Change::Commit { ino: own.ino, commit: Commit { extents: vec![extent], ..Commit::default() } },
        Change::Commit { ino: secret.ino, commit: Commit::default() },
        clone_first(secret.ino, own.ino),
        clone_first(own.ino, secret.ino),
        Change::Touch { atimes: vec![(secret.ino, Time::now())] },
    ];
    for (sequence, change) in changes.into_iter().enumerate() {
        let answer = scene.ask(&scene.bound, op(session, sequence as u64 + 1, change.clone()));
        assert!(is_refused(&answer), "{change:?}: {answer:?}");
    }
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let answer = scene.ask(&scene.bound, op(session, 100, Change::SetAttr { ino: own.ino, set }));
    assert!(matches!(answer, Response::Applied(Ok(_), _)), "{answer:?}");
    assert_eq!(fs::read_to_string(scene.mount.join("other/file")).unwrap(), "contents of other");
}

#[test]
fn no_request_for_chunks_or_files_gets_around_the_folder() {
    let scene = Scene::new();
    let (own, secret) = (scene.seen("projects/file").chunk, scene.seen("other/file").chunk);
    let both = Bytes::from(postcard::to_stdvec(&vec![own.clone(), secret.clone()]).unwrap());
    let has = |visitor| scene.call(visitor, calls::HAS, both.clone());
    // The log stores a small file's data on its holders a moment after it is durable.
    wait_for("the chunks are on the node", Duration::from_secs(20), || match has(&scene.free) {
        (StatusCode::OK, here) if here[..] == [1, 1] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(has(&scene.bound), (StatusCode::OK, Bytes::from_static(&[1, 0])));
    let secured = scene.call(&scene.bound, calls::SECURE, both.clone()).1;
    assert_eq!(secured[1], 0, "absent: {secured:?}");
    let got = |visitor| scene.call(visitor, calls::GET, both.clone()).1;
    let contains = |bytes: &Bytes, text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let (free, bound) = (got(&scene.free), got(&scene.bound));
    assert!(contains(&free, "contents of other") && contains(&free, "contents of projects"));
    assert!(!contains(&bound, "contents of other") && contains(&bound, "contents of projects"));
    let record = scene.call(&scene.free, calls::GET, postcard::to_stdvec(&vec![secret]).unwrap().into()).1;
    let put = format!("{}?copies=1&durable=true", calls::PUT);
    let (status, text) = scene.call(&scene.bound, &put, record.clone());
    assert_eq!(status, StatusCode::FORBIDDEN, "{}", String::from_utf8_lossy(&text));
    assert_eq!(scene.call(&scene.free, &put, record).0, StatusCode::NO_CONTENT);
    let files = SocketAddr::from((scene.cluster.ip(0), 5058));
    let admin = SocketAddr::from((scene.cluster.ip(0), 5059));
    for (address, path) in [(files, "/other/file"), (files, "/projects/file"), (files, "/"), (admin, "/sessions")] {
        let status = |visitor: &Visitor| scene.runtime.block_on(visitor.call(address, "GET", path));
        assert_eq!((status(&scene.free), status(&scene.bound)), (Some(StatusCode::OK), Some(StatusCode::FORBIDDEN)));
    }
}

fn clone_first(from: Ino, ino: Ino) -> Change {
    Change::CloneRange {
        from,
        from_first: 1,
        ino,
        first: 1,
        count: 1,
        chunk_bytes: 4096,
        size_at_least: 1,
        sizes: (0, 0),
    }
}

/// A part of a long file is copied to where a guest may read it. Both share the chunks of that part, and the rest of
/// the same write stays out of reach.
#[test]
fn a_copy_shows_its_chunks_and_not_the_rest_of_its_source() {
    let copy = "import os; source = os.open('other/long', os.O_RDONLY); part = os.open('projects/part', os.O_RDWR | os.O_CREAT)
os.copy_file_range(source, part, 256 << 10); os.fsync(part)";
    for options in [["--path", "/projects"], ["--root-squash", "--name=squashed"]] {
        let scene = Scene::with_guest(&options);
        let contents: Vec<u8> = (0..512 * 4096).map(|at| (at / 4096) as u8).collect();
        fs::write(scene.mount.join("other/long"), &contents).unwrap();
        fs::File::open(scene.mount.join("other/long")).unwrap().sync_all().unwrap();
        let script = format!("python3 -c \"{copy}\"; chmod 600 other/long; chmod 644 projects/part");
        shell(&script, scene.mount.path()).ok();
        let first = scene.seen("other/long").chunk;
        // The last chunk of the same write, of at least a mebibyte.
        let last =
            ChunkRef { id: ChunkId { index: scene.first_extent("other/long").count, ..first.id }, ..first.clone() };
        assert!(last.id.index > 64, "{last:?}");
        let both = Bytes::from(postcard::to_stdvec(&vec![first, last]).unwrap());
        let has = |visitor| scene.call(visitor, calls::HAS, both.clone()).1;
        assert_eq!((&has(&scene.free)[..], &has(&scene.bound)[..]), (&[1, 1][..], &[1, 0][..]), "{options:?}");
        let guest = Outsider::new();
        guest.mount(&invite(&scene.cluster, &[&["--role", "client"], &options[..]].concat())).ok();
        let part = if options[0] == "--path" { "part" } else { "projects/part" };
        assert!(fs::read(guest.point().join(part)).unwrap() == contents[..256 << 10], "{options:?}");
        fs::remove_file(scene.mount.join("other/long")).unwrap();
        assert!(fs::read(guest.point().join(part)).unwrap() == contents[..256 << 10], "{options:?}");
        guest.unmount();
    }
}

#[test]
fn nobody_acts_in_the_session_of_another() {
    let scene = Scene::new();
    let (victim, own) = (scene.open_session(&scene.free), scene.open_session(&scene.bound));
    let hold = |session, sequence| op(session, sequence, Change::Release { inos: Vec::new() });
    let close = |session| {
        let change = Change::CloseSession { session };
        Request::Apply(NamespaceOp { origin: None, now: Time::now(), change })
    };
    let attach = |session| Request::Attach { session, claims: Vec::new() };
    for request in [hold(victim, 1), close(victim), attach(victim)] {
        let answer = scene.ask(&scene.bound, request.clone());
        assert!(is_refused(&answer), "{request:?}: {answer:?}");
    }
    for (visitor, session) in [(&scene.free, victim), (&scene.bound, own)] {
        assert!(matches!(scene.ask(visitor, hold(session, 1)), Response::Applied(Ok(_), _)));
        assert_eq!(scene.ask(visitor, attach(session)), Response::Attached);
        assert!(matches!(scene.ask(visitor, close(session)), Response::Applied(Ok(_), _)));
    }
}
