//! What a client may do on whose machine root has no power.

use chordfs_types::{
    identity::{Identity, IdentityId, Role},
    namespace::{AdmissionReason, KeyHash, XattrMode, XattrName},
};

use super::*;
use crate::SquashedView;

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
    let identity = Identity { id: OWNER, role: Role::SquashedClient, name: "there".into(), path: None };
    let admission = AdmissionReason::Vouched(identity);
    let expires = at(1 << 40);
    fixture.run_without_session(Change::Admit { admission, key: KeyHash([7; 32]), expires }).unwrap();
    let open = Change::OpenOwnedSession { nonce: 2, client: "there".into(), holds_leases: true, owner: OWNER };
    let Ok(Reply::Session { session, .. }) = fixture.run_without_session(open) else { panic!("a session") };
    fixture.session = session;
    RootsFiles { fixture, directory, file, own }
}

impl RootsFiles {
    fn view(&self) -> SquashedView<'_> {
        self.fixture.tables.squashed_view(OWNER, &[]).unwrap()
    }

    fn may(&self, change: &Change) -> bool {
        match self.view().check_change(change) {
            Ok(()) => true,
            Err(FsError::NotPermitted { .. }) => false,
            Err(other) => panic!("{change:?}: {other}"),
        }
    }

    fn may_ask(&self, query: &Query) -> bool {
        self.view().check_query(query).is_ok()
    }

    /// Makes a change as root does, on a machine where it has power.
    fn as_root(&mut self, change: Change) {
        self.fixture.run_without_session(change).unwrap();
    }

    fn write_as_root(&mut self, ino: Ino, version: u64) {
        let commit = Commit { extents: vec![extent((1, 1, version))], size_at_least: 10, ..Commit::default() };
        self.as_root(Change::Commit { ino, commit });
    }

    fn chmod(&mut self, ino: Ino, mode: u16) {
        self.as_root(Self::set(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }));
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
    assert!(
        !passes_group_on.may(&passes_group_on.make(owned(FileKind::File, 0o644, (1000, 0)))),
        "by the directory only"
    );
    assert!(!passes_group_on.may(&with_mode(FileKind::File, 0o2755)), "it would run in root's group");
    assert!(passes_group_on.may(&with_mode(FileKind::Directory, 0o2755)));
    let parent = passes_group_on.directory;
    let program = owned(FileKind::File, 0o755, (1000, 1000));
    let program = passes_group_on.fixture.make(parent, "program", program).unwrap().ino;
    assert_eq!(passes_group_on.fixture.attr(program).gid, 0);
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
        (0o700, 0o644, [false; 5]),
        (0o711, 0o644, [true, true, false, true, true]),
        (0o704, 0o711, [false, false, true, false, false]),
        (0o755, 0o640, [true, true, true, false, false]),
    ] {
        let files = roots_files(directory, file);
        assert_eq!(queries(&files).map(|query| files.may_ask(&query)), expected, "{directory:o} {file:o}");
        let is_searchable = directory & 1 != 0;
        let in_directory = [Query::GetAttr { ino: files.file }, Query::Open { ino: files.own }];
        assert_eq!(in_directory.map(|query| files.may_ask(&query)), [is_searchable; 2], "{directory:o}");
        assert!(files.may_ask(&Query::GetAttr { ino: files.directory }) && files.may_ask(&Query::StatFs));
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
        files.write_as_root(files.file, 900);
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
    files.write_as_root(files.file, 900);
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

#[test]
fn what_does_not_exist_yet_is_not_changed_and_what_no_file_has_is_not_read() {
    let files = roots_files(0o777, 0o600);
    let set = SetAttr { uid: Some(0), mode: Some(0o4755), ..SetAttr::default() };
    for change in [
        RootsFiles::set(Ino(999), set.clone()),
        Change::Commit { ino: Ino(999), commit: Commit { set, ..Commit::default() } },
        Change::Link { ino: Ino(999), parent: files.directory, name: entry("link") },
    ] {
        let checked = files.view().check_change(&change);
        assert_eq!(checked, Err(FsError::Stale { ino: Ino(999) }), "{change:?}");
    }
    let id = chordfs_types::chunk::ChunkId { version: Version(900), index: 1 };
    assert!(!files.may_ask(&Query::LoggedChunks { ids: vec![id] }), "the log may keep what root has removed");
}

/// What was right when it was sent may not be when it is applied, behind changes of others or of the same list.
#[test]
fn each_change_is_checked_when_it_is_applied() {
    let mut files = roots_files(0o2777, 0o600);
    let set_mode = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    assert!(files.may(&RootsFiles::set(files.own, set_mode.clone())));
    files.as_root(RootsFiles::set(files.own, SetAttr { uid: Some(0), ..SetAttr::default() }));
    let refused = files.fixture.run(RootsFiles::set(files.own, set_mode));
    assert!(matches!(refused, Err(FsError::NotPermitted { .. })), "{refused:?}");
    assert_eq!(files.fixture.attr(files.own).mode, 0o600);
    let again = files.fixture.run(files.make(owned(FileKind::File, 0o644, (0, 0))));
    assert!(matches!(again, Err(FsError::NotPermitted { .. })));
    assert!(files.fixture.run(files.make(owned(FileKind::File, 0o644, (5, 5)))).is_ok());
}

#[test]
fn no_way_through_a_closed_directory_of_root_is_taken() {
    let mut files = roots_files(0o777, 0o666);
    let (directory, file) = (files.directory, files.file);
    let reached = |files: &RootsFiles| {
        let commit = Change::Commit { ino: file, commit: Commit::default() };
        [
            files.may_ask(&Query::GetAttr { ino: file }),
            files.may(&commit),
            files.may(&files.make(owned(FileKind::File, 0o644, (5, 5)))),
            files.may(&Change::Link { ino: file, parent: Ino::ROOT, name: entry("link") }),
        ]
    };
    files.chmod(Ino::ROOT, 0o777);
    assert_eq!(reached(&files), [true; 4]);
    let other = files.fixture.tables.clone();
    files.as_root(Change::Make {
        parent: Ino::ROOT,
        name: entry("closed"),
        node: owned(FileKind::Directory, 0o700, (0, 0)),
        exclusive: true,
    });
    let closed = files.fixture.lookup(Ino::ROOT, "closed").unwrap();
    let move_in = Change::Rename {
        parent: Ino::ROOT,
        name: entry("d"),
        new_parent: closed,
        new_name: entry("d"),
        mode: RenameMode::Replace,
        hold: false,
    };
    files.as_root(move_in);
    assert_eq!(reached(&files), [false; 4]);
    // Another name, in a directory that is open, is a way.
    files.fixture.tables = other;
    files.as_root(Change::Link { ino: file, parent: Ino::ROOT, name: entry("second") });
    files.chmod(directory, 0o700);
    assert_eq!(reached(&files), [true, true, false, true]);
}

/// Otherwise a program that root has replaced would live on under a name of somebody else.
#[test]
fn what_root_has_removed_is_not_named_again() {
    let mut files = roots_files(0o777, 0o666);
    let publish = Change::Publish { ino: files.file, parent: files.directory, name: entry("again") };
    files.chmod(files.file, 0o4666);
    let link = Change::Link { ino: files.file, parent: files.directory, name: entry("link") };
    assert!(!files.may(&link) && !files.may(&publish), "a program that runs as root");
    for (mode, is_kept) in [(0o600, false), (0o644, true)] {
        let mut files = roots_files(0o777, mode);
        files.as_root(files.unlink("roots"));
        let held = files.fixture.run(Change::HoldOrphans { inos: vec![files.file] });
        assert_eq!(held, Ok(Reply::Held { inos: if is_kept { vec![files.file] } else { Vec::new() } }), "{mode:o}");
        assert_eq!(files.fixture.run(Change::Hold { ino: files.file }).is_ok(), is_kept);
        assert!(!files.may(&Change::Publish { ino: files.file, parent: files.directory, name: entry("again") }));
    }
}

#[test]
fn a_program_that_is_written_runs_as_nobody_else() {
    for change in [
        |ino| Change::Commit { ino, commit: Commit::default() },
        |ino| RootsFiles::set(ino, SetAttr { truncate: Some(Truncate { size: 0, tail: None }), ..SetAttr::default() }),
    ] {
        for (mode, expected) in [(0o6777, 0o777), (0o6766, 0o2766), (0o777, 0o777)] {
            let mut files = roots_files(0o777, 0o600);
            files.chmod(files.file, mode);
            files.fixture.run(change(files.file)).unwrap();
            assert_eq!(files.fixture.attr(files.file).mode, expected, "{mode:o}");
        }
    }
}

#[test]
fn a_version_is_its_files_once_a_file_has_it() {
    let mut files = roots_files(0o755, 0o600);
    let Ok(Reply::Versions(block)) = files.fixture.run(Change::AllocateVersions { count: 4 }) else { panic!() };
    files.fixture.write(files.own, &[(1, 1, block.first.0)]);
    let stores = |files: &RootsFiles| files.view().reaches_version(block.first, true);
    assert!(stores(&files));
    files.as_root(RootsFiles::set(files.own, SetAttr { uid: Some(0), gid: Some(0), ..SetAttr::default() }));
    assert!(!stores(&files), "its writer must not store other bytes under it");
}

#[test]
fn lists_count_and_attributes_of_root_are_not_shown() {
    let mut files = roots_files(0o755, 0o600);
    let (ino, xattr) = (files.file, |name: &str| XattrName::new(name.as_bytes().to_vec()).unwrap());
    let set = |name: &str, value: Bytes| Change::SetXattr { ino, name: xattr(name), value, mode: XattrMode::Any };
    for name in ["user.a", "trusted.b", "security.c"] {
        files.as_root(set(name, "1".into()));
        assert!(!files.may(&set(name, "2".into())), "{name}");
    }
    assert!(!files.may_ask(&Query::Xattrs { ino }) && !files.may_ask(&Query::Open { ino }));
    // u::rw-, u:1000:rw-, g::---, m::rw-, o::---
    let list = [(1, 6, u32::MAX), (2, 6, 1000), (4, 0, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    let entries = list.iter().flat_map(|(tag, bits, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    let list: Bytes = 2_u32.to_le_bytes().into_iter().chain(entries).collect();
    files.as_root(set("system.posix_acl_access", list.clone()));
    assert!(files.may_ask(&Query::Open { ino }), "user 1000 may");
    assert!(files.may(&Change::Commit { ino, commit: Commit::default() }) && files.may(&set("user.a", "2".into())));
    assert!(!files.may(&set("trusted.b", "2".into())) && !files.may(&set("system.posix_acl_access", list)));
    let mut answer = files.fixture.tables.query(&Query::Xattrs { ino }).unwrap();
    files.view().hide(&mut answer);
    let Answer::Xattrs { xattrs, .. } = answer else { panic!("{answer:?}") };
    let names: Vec<String> = xattrs.keys().map(XattrName::to_string).collect();
    assert_eq!(names, ["system.posix_acl_access", "user.a"]);
}

/// Tenants are kept apart by directories that are root's alone.
#[test]
fn the_way_to_the_folder_of_a_client_may_lead_through_a_closed_directory() {
    let mut files = roots_files(0o777, 0o600);
    files.chmod(Ino::ROOT, 0o700);
    let (path, directory) = ([entry("d")], files.directory);
    let view = files.fixture.tables.squashed_view(OWNER, &path).unwrap();
    let look_up = |parent, name| view.check_query(&Query::Lookup { parent, name: entry(name) }).is_ok();
    assert!(look_up(Ino::ROOT, "d") && look_up(directory, "own") && !look_up(Ino::ROOT, "e"));
    assert!(view.check_query(&Query::Resolve { path: path.to_vec() }).is_ok());
    assert!(view.check_query(&Query::GetAttr { ino: directory }).is_ok());
    assert!(!files.may_ask(&Query::GetAttr { ino: directory }));
}
