//! What a client may do on whose machine root has no power.

use chordfs_types::identity::IdentityId;

use super::*;

const OWNER: IdentityId = IdentityId(7);

/// A directory and a file of root with these permissions, and a file of another user in the directory.
struct RootsFiles {
    fixture: Fixture,
    directory: Ino,
    file: Ino,
    own: Ino,
}

fn owned(kind: FileKind, mode: u16, (uid, gid): (u32, u32)) -> NewNode {
    NewNode { mode, uid, gid, ..node(kind) }
}

fn roots_files(directory: u16, file: u16) -> RootsFiles {
    let mut fixture = Fixture::new();
    let directory = fixture.make(Ino::ROOT, "d", owned(FileKind::Directory, directory, (0, 0))).unwrap().ino;
    let file = fixture.make(directory, "roots", owned(FileKind::File, file, (0, 0))).unwrap().ino;
    let own = fixture.make(directory, "own", owned(FileKind::File, 0o600, (1000, 1000))).unwrap().ino;
    let open = Change::OpenOwnedSession { nonce: 2, client: "there".into(), holds_leases: true, owner: OWNER };
    let Ok(Reply::Session { session, .. }) = fixture.run_without_session(open) else { panic!("a session") };
    fixture.session = session;
    RootsFiles { fixture, directory, file, own }
}

impl RootsFiles {
    fn may(&self, change: &Change) -> bool {
        match self.fixture.tables.check_change_without_root(OWNER, change) {
            Ok(()) => true,
            Err(FsError::NotPermitted { .. }) => false,
            Err(other) => panic!("{change:?}: {other}"),
        }
    }

    fn may_ask(&self, query: &Query) -> bool {
        self.fixture.tables.check_query_without_root(query).is_ok()
    }

    fn make(&self, node: NewNode) -> Change {
        Change::Make { parent: self.directory, name: entry("new"), node, exclusive: true }
    }

    fn rename(&self, from: &str, to: &str) -> Change {
        let (parent, mode) = (self.directory, RenameMode::Replace);
        Change::Rename { parent, name: entry(from), new_parent: parent, new_name: entry(to), mode, hold: false }
    }

    fn unlink(&self, name: &str) -> Change {
        Change::Unlink { parent: self.directory, name: entry(name), hold: false }
    }

    fn set(ino: Ino, set: SetAttr) -> Change {
        Change::SetAttr { ino, set }
    }
}

#[test]
fn names_are_changed_where_others_may_write_and_not_roots_names_in_a_sticky_directory() {
    // The mode of the directory; whether names of others, and whether root's, are changed in it.
    let cases = [(0o755, false, false), (0o1755, false, false), (0o777, true, true), (0o1777, true, false)];
    for (mode, own, roots) in cases {
        let files = roots_files(mode, 0o600);
        let new = files.make(owned(FileKind::File, 0o644, (1000, 1000)));
        let of_own = [files.unlink("own"), files.rename("own", "moved"), new];
        assert_eq!(of_own.map(|change| files.may(&change)), [own; 3], "{mode:o}");
        let of_root = [files.unlink("roots"), files.rename("roots", "moved"), files.rename("own", "roots")];
        assert_eq!(of_root.map(|change| files.may(&change)), [roots; 3], "{mode:o}");
    }
}

#[test]
fn roots_files_are_written_and_linked_as_far_as_others_may() {
    for (mode, may_write, may_link) in
        [(0o600, false, false), (0o644, false, false), (0o666, true, true), (0o602, true, false)]
    {
        let files = roots_files(0o777, mode);
        let truncate = SetAttr { truncate: Some(Truncate { size: 0, tail: None }), ..SetAttr::default() };
        let touched = SetAttr { mtime: Some(at(9)), ..SetAttr::default() };
        let writes = [
            Change::Commit { ino: files.file, commit: Commit::default() },
            RootsFiles::set(files.file, truncate),
            RootsFiles::set(files.file, touched),
        ];
        assert_eq!(writes.map(|change| files.may(&change)), [may_write; 3], "{mode:o}");
        let link = Change::Link { ino: files.file, parent: files.directory, name: entry("link") };
        assert_eq!(files.may(&link), may_link, "{mode:o}");
    }
}

#[test]
fn nothing_is_given_to_root_and_roots_permissions_stay() {
    let files = roots_files(0o777, 0o666);
    let mode = || SetAttr { mode: Some(0o777), ..SetAttr::default() };
    let (uid, gid) = (
        |uid| SetAttr { uid: Some(uid), ..SetAttr::default() },
        |gid| SetAttr { gid: Some(gid), ..SetAttr::default() },
    );
    for (ino, set, expected) in [
        (files.file, mode(), false),
        (files.file, uid(1000), false),
        (files.file, gid(1000), false),
        (files.own, mode(), true),
        (files.own, uid(0), false),
        (files.own, uid(1000), true),
        (files.own, gid(0), false),
        (files.own, gid(5), true),
    ] {
        assert_eq!(files.may(&RootsFiles::set(ino, set.clone())), expected, "{ino:?} {set:?}");
        let commit = Change::Commit { ino, commit: Commit { set: set.clone(), ..Commit::default() } };
        assert_eq!(files.may(&commit), expected, "{ino:?} {set:?} with a commit");
    }
    let refused = [
        owned(FileKind::File, 0o644, (0, 1000)),
        owned(FileKind::File, 0o644, (1000, 0)),
        owned(FileKind::CharDevice, 0o666, (1000, 1000)),
        owned(FileKind::BlockDevice, 0o666, (1000, 1000)),
    ];
    for node in refused {
        assert!(!files.may(&files.make(node.clone())), "{node:?}");
    }
    assert!(files.may(&files.make(owned(FileKind::Fifo, 0o666, (1000, 1000)))));
    let mut passes_group_on = roots_files(0o2777, 0o600);
    let with_mode = |kind, mode| passes_group_on.make(owned(kind, mode, (1000, 1000)));
    assert!(passes_group_on.may(&passes_group_on.make(owned(FileKind::File, 0o644, (1000, 0)))));
    assert!(!passes_group_on.may(&with_mode(FileKind::File, 0o2755)), "it would run in root's group");
    assert!(passes_group_on.may(&with_mode(FileKind::Directory, 0o2755)));
    let parent = passes_group_on.directory;
    let program = passes_group_on.fixture.make(parent, "program", owned(FileKind::File, 0o755, (1000, 0))).unwrap().ino;
    for (mode, expected) in [(0o2755, false), (0o755, true)] {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        assert_eq!(passes_group_on.may(&RootsFiles::set(program, set)), expected, "{mode:o}");
    }
}

#[test]
fn roots_files_are_read_as_far_as_others_may() {
    let queries = |files: &RootsFiles| {
        let (directory, ino) = (files.directory, files.file);
        [
            Query::Lookup { parent: directory, name: entry("own") },
            Query::Resolve { path: vec![entry("d"), entry("own")] },
            Query::ReadDir { ino: directory, after: None },
            Query::Open { ino },
            Query::Extents { ino, from: 1 },
        ]
    };
    for (directory, file, expected) in [
        (0o700, 0o600, [false; 5]),
        (0o711, 0o644, [true, true, false, true, true]),
        (0o704, 0o711, [false, false, true, true, true]),
        (0o755, 0o640, [true, true, true, false, false]),
    ] {
        let files = roots_files(directory, file);
        assert_eq!(queries(&files).map(|query| files.may_ask(&query)), expected, "{directory:o} {file:o}");
        let always = [Query::GetAttr { ino: files.file }, Query::Open { ino: files.own }, Query::StatFs];
        assert_eq!(always.map(|query| files.may_ask(&query)), [true; 3]);
        assert!(!files.may_ask(&Query::OpenEntries { ino: files.directory, after: None, limit: 1 }));
    }
    let mut of_group = roots_files(0o755, 0o640);
    of_group
        .fixture
        .run_without_session(RootsFiles::set(of_group.file, SetAttr { gid: Some(5), ..SetAttr::default() }))
        .unwrap();
    assert!(of_group.may_ask(&Query::Open { ino: of_group.file }), "a user in another group than root's may read");
}

#[test]
fn chunks_are_reached_as_the_files_they_belong_to() {
    // Whether the chunks of root's file are read, and stored again.
    for (mode, reads, stores) in
        [(0o600, false, false), (0o644, true, false), (0o622, false, true), (0o711, true, false)]
    {
        let mut files = roots_files(0o755, mode);
        let Ok(Reply::Versions(block)) = files.fixture.run(Change::AllocateVersions { count: 4 }) else { panic!() };
        let own = block.first;
        files.fixture.write(files.file, &[(1, 1, 900)]);
        let reach = |stores| {
            let versions = vec![Version(900), own, Version(950)];
            let query = Query::ReachableWithoutRoot { owner: OWNER, path: Vec::new(), versions, stores };
            match files.fixture.tables.query(&query) {
                Ok(Answer::Reachable(reached)) => reached,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reach(false), [reads, true, false], "{mode:o}");
        assert_eq!(reach(true), [stores, true, false], "{mode:o}");
        let logged =
            Query::LoggedChunks { ids: vec![chordfs_types::chunk::ChunkId { version: Version(900), index: 1 }] };
        assert_eq!(files.may_ask(&logged), reads, "{mode:o}");
    }
}

/// Otherwise the chunks of root's file would be read as those of another.
#[test]
fn no_commit_names_the_version_of_another_file() {
    let mut files = roots_files(0o755, 0o600);
    let Ok(Reply::Versions(block)) = files.fixture.run(Change::AllocateVersions { count: 4 }) else { panic!() };
    files.fixture.write(files.file, &[(1, 1, 900)]);
    let commit = |version: Version| {
        let extents = vec![Extent { first: 1, count: 1, version }];
        Change::Commit { ino: files.own, commit: Commit { extents, ..Commit::default() } }
    };
    assert!(!files.may(&commit(Version(900))), "it is of root's file");
    assert!(!files.may(&commit(Version(950))), "nobody knows whose it is");
    assert!(files.may(&commit(block.first)));
    let tail = ChunkWrite { index: 1, version: Version(950), base: None };
    let truncate = Some(Truncate { size: 5, tail: Some(tail) });
    assert!(!files.may(&RootsFiles::set(files.own, SetAttr { truncate, ..SetAttr::default() })), "nor does a new end");
}

/// A list could make a program that belongs to root: each change is checked before the first one is made.
#[test]
fn what_does_not_exist_yet_is_not_changed_and_what_no_file_has_is_not_read() {
    let files = roots_files(0o777, 0o600);
    let set = SetAttr { uid: Some(0), mode: Some(0o4755), ..SetAttr::default() };
    for change in [
        RootsFiles::set(Ino(999), set.clone()),
        Change::Commit { ino: Ino(999), commit: Commit { set, ..Commit::default() } },
        Change::Link { ino: Ino(999), parent: files.directory, name: entry("link") },
    ] {
        let checked = files.fixture.tables.check_change_without_root(OWNER, &change);
        assert_eq!(checked, Err(FsError::Stale { ino: Ino(999) }), "{change:?}");
    }
    let id = chordfs_types::chunk::ChunkId { version: Version(900), index: 1 };
    assert!(!files.may_ask(&Query::LoggedChunks { ids: vec![id] }), "the log may keep what root has removed");
}
