//! Clients on whose machines root has no power over root's files.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{CHUNK_BYTES, ChunkId, ChunkRef, FileName},
    chunk_api::calls,
    fs_error::FsError,
    namespace::{
        Answer, Change, Commit, Extent, FileKind, Ino, NamespaceOp, NewNode, Query, Reply, Request, Response, SetAttr,
        Time,
    },
};
use harness::{TempMount, wait_for};
use hyper::StatusCode;

use super::{
    folders::{Scene, is_refused, name, names_in, op},
    visitors::{Outsider, invite, ring},
};

const NOBODY: u32 = 65534;
const USER: u32 = 1000;
const SECRET: &str = "only root reads this";

fn write_with_mode(path: &Path, contents: &str, mode: u32) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

fn directory_with_mode(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Root's files, as a machine leaves them on which root has power.
fn write_roots_files(folder: &Path) {
    write_with_mode(&folder.join("secret"), SECRET, 0o600);
    write_with_mode(&folder.join("public"), "everybody reads this", 0o644);
    directory_with_mode(&folder.join("shared"), 0o1777);
    directory_with_mode(&folder.join("private"), 0o700);
    write_with_mode(&folder.join("shared/roots"), "root's", 0o644);
    File::open(folder).unwrap().sync_all().unwrap();
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => true,
        Err(error) => panic!("{error}"),
    }
}

fn as_user(command: &str, folder: &Path) {
    let status = Command::new("sh").args(["-ec", command]).current_dir(folder).uid(USER).gid(USER).status();
    assert!(status.unwrap().success(), "{command}");
}

#[test]
fn root_of_a_squashed_mount_has_no_power_over_roots_files_and_users_work_as_always() {
    let cluster = ring(1);
    let mount = TempMount::new(&cluster);
    write_roots_files(mount.path());
    let guest = Outsider::new();
    guest.mount_with(&invite(&cluster, &["--role", "client", "--root-squash"]), "deadline=5,allow_other").ok();
    let there = |name: &str| guest.point().join(name);

    assert_eq!(fs::read_to_string(there("public")).unwrap(), "everybody reads this");
    assert!(is_denied(fs::read(there("secret"))), "read");
    assert!(is_denied(fs::read_dir(there("private")).and_then(|mut entries| entries.next().transpose())), "list");
    for name in ["secret", "public"] {
        assert!(is_denied(OpenOptions::new().append(true).open(there(name))), "write {name}");
        assert!(is_denied(fs::set_permissions(there(name), Permissions::from_mode(0o666))), "chmod {name}");
        assert!(is_denied(chown(there(name), Some(NOBODY), None)), "chown {name}");
        assert!(is_denied(fs::remove_file(there(name))), "remove {name}");
        assert!(is_denied(fs::rename(there(name), there("moved"))), "rename {name}");
    }
    assert!(is_denied(fs::write(there("new"), "x")), "create in root's directory");
    assert!(is_denied(fs::remove_file(there("shared/roots"))), "remove root's file from a sticky directory");

    fs::write(there("shared/own"), "nobody's").unwrap();
    let attributes = fs::metadata(mount.join("shared/own")).unwrap();
    assert_eq!((attributes.uid(), attributes.gid()), (NOBODY, NOBODY));
    assert_eq!(fs::read_to_string(mount.join("shared/own")).unwrap(), "nobody's");
    assert!(is_denied(chown(there("shared/own"), Some(0), None)), "give to root");
    fs::remove_file(there("shared/own")).unwrap();

    fs::set_permissions(guest.point().parent().unwrap(), Permissions::from_mode(0o711)).unwrap();
    let work = "mkdir -p user/deep; echo text > user/deep/file; chmod 600 user/deep/file; cat user/deep/file; \
                mv user/deep/file user/moved; ln user/moved user/link; rm -r user/deep; ! cat ../secret";
    as_user(work, &there("shared"));
    assert_eq!(fs::metadata(mount.join("shared/user/moved")).unwrap().uid(), USER);
    assert_eq!(fs::read_to_string(mount.join("secret")).unwrap(), SECRET);
    assert_eq!(fs::metadata(mount.join("secret")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_squashed_mount_that_may_only_read_is_a_read_only_mount() {
    let cluster = ring(1);
    let mount = TempMount::new(&cluster);
    write_roots_files(mount.path());
    let guest = Outsider::new();
    guest.mount(&invite(&cluster, &["--role", "client", "--read-only", "--root-squash"])).ok();
    assert_eq!(fs::read_to_string(guest.point().join("public")).unwrap(), "everybody reads this");
    assert!(is_denied(fs::read(guest.point().join("secret"))));
    let created = fs::write(guest.point().join("shared/new"), "x");
    assert_eq!(created.unwrap_err().raw_os_error(), Some(libc::EROFS));
}

/// What a program could send that has the certificate of such a mount.
#[test]
fn no_request_gets_around_the_permissions_of_roots_files() {
    let scene = Scene::with_guest(&["--root-squash"]);
    write_roots_files(scene.mount.path());
    let (secret, public) = (scene.seen("secret"), scene.seen("public"));
    let shared = scene.ino("shared");
    for query in [Query::Open { ino: secret.ino }, Query::Extents { ino: secret.ino, from: 1 }] {
        let asked = scene.ask(&scene.bound, Request::Query(query.clone()));
        assert!(is_refused(&asked), "{query:?}: {asked:?}");
    }
    let opened = scene.ask(&scene.bound, Request::Query(Query::Open { ino: public.ino }));
    assert!(matches!(opened, Response::Answered(Ok(Answer::Open { .. }), _)), "{opened:?}");

    let session = scene.open_session(&scene.bound);
    let stolen = Extent { first: 1, count: 1, version: secret.chunk.id.version };
    let mode = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    let changes = [
        Change::SetAttr { ino: secret.ino, set: mode },
        Change::Commit { ino: public.ino, commit: Commit::default() },
        Change::Unlink { parent: Ino::ROOT, name: name("public"), hold: false },
        Change::Unlink { parent: shared, name: name("roots"), hold: false },
        Change::Link { ino: secret.ino, parent: shared, name: name("link") },
    ];
    for (sequence, change) in (1..).zip(changes) {
        let answer = scene.ask(&scene.bound, op(session, sequence, change.clone()));
        assert!(is_refused(&answer), "{change:?}: {answer:?}");
    }
    // A file that anybody may write takes no chunk of another file.
    write_with_mode(&scene.mount.join("shared/open"), "open to all", 0o666);
    let open = scene.ino("shared/open");
    let commit = Commit { extents: vec![stolen], ..Commit::default() };
    let answer = scene.ask(&scene.bound, op(session, 50, Change::Commit { ino: open, commit }));
    assert!(is_refused(&answer), "{answer:?}");

    let both = |first: &ChunkRef, second: &ChunkRef| postcard::to_stdvec(&vec![first.clone(), second.clone()]).unwrap();
    let asked = both(&public.chunk, &secret.chunk);
    wait_for("the chunks are on the node", Duration::from_secs(20), || {
        match scene.call(&scene.free, calls::HAS, asked.clone().into()) {
            (StatusCode::OK, here) if here[..] == [1, 1] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (status, read) = scene.call(&scene.bound, calls::GET, asked.into());
    let contains = |text: &str| read.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(status == StatusCode::OK && contains("everybody reads this") && !contains(SECRET));
    let record = postcard::to_stdvec(&vec![secret.chunk.clone()]).unwrap();
    let record = scene.call(&scene.free, calls::GET, record.into()).1;
    let put = format!("{}?copies=1&durable=true", calls::PUT);
    assert_eq!(scene.call(&scene.bound, &put, record).0, StatusCode::FORBIDDEN);
    let data = Query::LoggedChunks { ids: vec![ChunkId { index: 1, ..secret.chunk.id }] };
    assert!(is_refused(&scene.ask(&scene.bound, Request::Query(data))));
    // The pages and the API act with the rights of the node.
    assert_eq!(scene.get_file(&scene.free, "/public"), Some(StatusCode::OK));
    assert_eq!(scene.get_file(&scene.bound, "/public"), Some(StatusCode::FORBIDDEN));
}

/// Each change of a list counts on what the earlier ones have made.
#[test]
fn no_list_of_changes_makes_a_program_that_runs_as_root() {
    let scene = Scene::with_guest(&["--root-squash"]);
    write_roots_files(scene.mount.path());
    let (shared, session) = (scene.ino("shared"), scene.open_session(&scene.bound));
    let answer = scene.ask(&scene.bound, op(session, 1, Change::AllocateInos { count: 8 }));
    let Response::Applied(Ok(Reply::Inos(block)), _) = answer else { panic!("{answer:?}") };
    let node = NewNode {
        kind: FileKind::File,
        mode: 0o4777,
        uid: USER,
        gid: USER,
        rdev: 0,
        chunk_bytes: CHUNK_BYTES,
        target: Bytes::new(),
    };
    let make = |number: u64| Change::MakeNumbered {
        ino: Ino(block.first.0 + number),
        file: FileName::new(format!("shared/program{number}")).unwrap(),
        parent: shared,
        name: name(&format!("program{number}")),
        node: node.clone(),
    };
    let to_root = SetAttr { uid: Some(0), mode: Some(0o4777), ..SetAttr::default() };
    let set = |number: u64| Change::SetAttr { ino: Ino(block.first.0 + number), set: to_root.clone() };
    let commit = |number: u64| Change::Commit {
        ino: Ino(block.first.0 + number),
        commit: Commit { set: to_root.clone(), ..Commit::default() },
    };
    let lists = [vec![make(0), set(0)], vec![make(1), commit(1)], vec![make(2)], vec![set(2)], vec![commit(2)]];
    for (number, changes) in (0..).zip(lists) {
        let numbered = (number * 10 + 2..).zip(changes.clone());
        let ops = numbered.map(|(sequence, change)| match op(session, sequence, change) {
            Request::Apply(op) => op,
            other => panic!("{other:?}"),
        });
        let answer = scene.ask(&scene.bound, Request::ApplyList(ops.collect()));
        let Response::AppliedList(ref results, _) = answer else { panic!("{changes:?}: {answer:?}") };
        for (change, result) in changes.iter().zip(results) {
            let is_made = matches!(change, Change::MakeNumbered { .. });
            let is_refused = matches!(result, Err(FsError::NotPermitted { .. }));
            assert!(if is_made { result.is_ok() } else { is_refused }, "{change:?}: {result:?}");
        }
    }
    let names: Vec<String> = names_in(&scene.mount.join("shared"));
    assert_eq!(names, ["program0", "program1", "program2", "roots"]);
    for number in 0..3 {
        let made = fs::metadata(scene.mount.join(format!("shared/program{number}"))).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o7777), (USER, 0o4777));
    }
    // A change without a session would not be known to be this client's.
    let change = Change::SetAttr { ino: scene.seen("secret").ino, set: to_root };
    let answer = scene.ask(&scene.bound, Request::Apply(NamespaceOp { origin: None, now: Time::now(), change }));
    assert!(is_refused(&answer), "{answer:?}");
}
