//! What a caller reaches who is bound to a folder.

use chordfs_types::{identity::IdentityId, namespace::InoBlock};

use super::*;

const OWNER: IdentityId = IdentityId(7);

/// `/projects` with a file and a folder in it, and `/other` beside it; the session belongs to [`OWNER`].
struct Folders {
    fixture: Fixture,
    projects: Ino,
    deep: Ino,
    other: Ino,
}

fn folders() -> Folders {
    let mut fixture = Fixture::new();
    let (projects, other) = (fixture.dir(Ino::ROOT, "projects"), fixture.dir(Ino::ROOT, "other"));
    let deep = fixture.dir(projects, "deep");
    fixture.session = open_as(&mut fixture, 2, OWNER).unwrap();
    Folders { fixture, projects, deep, other }
}

fn open_as(fixture: &mut Fixture, nonce: u64, owner: IdentityId) -> Result<SessionId, FsError> {
    let open = Change::OpenOwnedSession { nonce, client: "there".into(), holds_leases: true, owner };
    match fixture.run_without_session(open)? {
        Reply::Session { session, .. } => Ok(session),
        other => panic!("{other:?}"),
    }
}

impl Folders {
    fn reaches(&self, ino: Ino) -> bool {
        let path = [entry("projects")];
        self.fixture.tables.bound_view(OWNER, &path).expect("the folder exists").reaches(ino)
    }

    fn reaches_versions(&self, versions: &[u64]) -> Vec<bool> {
        let versions = versions.iter().copied().map(Version).collect();
        match self.fixture.tables.query(&Query::Reachable { owner: OWNER, path: vec![entry("projects")], versions }) {
            Ok(Answer::Reachable(reached)) => reached,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_lies_in_the_folder_is_reached_and_nothing_else() {
    let mut folders = folders();
    let Folders { projects, deep, other, .. } = folders;
    let inside = folders.fixture.make(deep, "file", node(FileKind::File)).unwrap().ino;
    let link = folders.fixture.make(deep, "link", node(FileKind::Symlink)).unwrap().ino;
    let outside = folders.fixture.make(other, "file", node(FileKind::File)).unwrap().ino;
    let reached = [projects, deep, inside, link].map(|ino| folders.reaches(ino));
    assert_eq!(reached, [true; 4]);
    assert_eq!([Ino::ROOT, other, outside, Ino(999)].map(|ino| folders.reaches(ino)), [false; 4]);
    folders.fixture.rename((deep, "file"), (other, "moved"), RenameMode::Replace).unwrap();
    assert!(!folders.reaches(inside), "it was moved away");
    folders.fixture.rename((other, "file"), (deep, "file"), RenameMode::Replace).unwrap();
    assert!(folders.reaches(outside), "it was moved here");
    folders.fixture.rename((projects, "deep"), (other, "deep"), RenameMode::Replace).unwrap();
    assert_eq!([deep, link, outside].map(|ino| folders.reaches(ino)), [false; 3], "the folder around it was moved");
}

#[test]
fn one_name_in_the_folder_suffices() {
    let mut folders = folders();
    let Folders { deep, other, .. } = folders;
    let file = folders.fixture.make(other, "file", node(FileKind::File)).unwrap().ino;
    for name in ["one", "two"] {
        folders.fixture.run(Change::Link { ino: file, parent: deep, name: entry(name) }).unwrap();
    }
    assert!(folders.reaches(file));
    let unlink = |parent, name| Change::Unlink { parent, name: entry(name), hold: false };
    folders.fixture.run(unlink(deep, "one")).unwrap();
    assert!(folders.reaches(file));
    folders.fixture.run(unlink(deep, "two")).unwrap();
    assert!(!folders.reaches(file));
    assert_eq!(folders.fixture.tables.name_counts.len(), 0, "with one name no counts are kept");
}

#[test]
fn a_file_without_a_name_is_reached_where_it_had_its_last_one_and_by_its_holder() {
    let mut folders = folders();
    let Folders { deep, other, .. } = folders;
    let [inside, outside] = [deep, other].map(|parent| {
        let ino = folders.fixture.make(parent, "file", node(FileKind::File)).unwrap().ino;
        folders.fixture.run(Change::Unlink { parent, name: entry("file"), hold: false }).unwrap();
        ino
    });
    assert!(folders.reaches(inside) && !folders.reaches(outside));
    let unnamed = Change::MakeUnnamed { file: FileName::new("unnamed").unwrap(), node: node(FileKind::File) };
    let own = match folders.fixture.run(unnamed.clone()).unwrap() {
        Reply::Entry { attr, .. } => attr.ino,
        reply => panic!("{reply:?}"),
    };
    assert!(folders.reaches(own));
    folders.fixture.session = open_as(&mut folders.fixture, 3, IdentityId(8)).unwrap();
    let foreign = match folders.fixture.run(unnamed).unwrap() {
        Reply::Entry { attr, .. } => attr.ino,
        reply => panic!("{reply:?}"),
    };
    assert!(!folders.reaches(foreign));
}

#[test]
fn numbers_and_versions_of_the_own_sessions_are_reached() {
    let mut folders = folders();
    let Reply::Inos(InoBlock { first, .. }) = folders.fixture.run(Change::AllocateInos { count: 2 }).unwrap() else {
        panic!("no numbers")
    };
    assert!(folders.reaches(first) && !folders.reaches(Ino(first.0 + 2)));
    let own = folders.fixture.tables.sessions[&folders.fixture.session].versions.first.0;
    assert_eq!(folders.reaches_versions(&[own, own - 1, own + u64::from(SESSION_VERSIONS)]), [true, false, false]);
    // Versions of another session, first in a file beside the folder, then in one in it.
    let Folders { deep, other, .. } = folders;
    let [outside, inside] = [other, deep].map(|parent| {
        let ino = folders.fixture.make(parent, "file", node(FileKind::File)).unwrap().ino;
        let foreign = if parent == other { 1 } else { 2 };
        folders.fixture.write(ino, &[(1, 1, foreign)]);
        foreign
    });
    assert_eq!(folders.reaches_versions(&[outside, inside]), [false, true]);
}

#[test]
fn a_folder_that_does_not_exist_reaches_nothing() {
    let folders = folders();
    let (tables, missing) = (&folders.fixture.tables, [entry("projects"), entry("missing")]);
    assert!(tables.bound_view(OWNER, &missing).is_none());
    let view = [entry("projects"), entry("deep")];
    let view = tables.bound_view(OWNER, &view).unwrap();
    assert!(view.is_on_the_way(Ino::ROOT, &entry("projects")) && view.is_on_the_way(folders.projects, &entry("deep")));
    assert!(!view.is_on_the_way(Ino::ROOT, &entry("other")) && !view.is_on_the_way(folders.deep, &entry("deep")));
    assert!(!view.reaches(folders.projects), "what is above the folder is not in it");
}

#[test]
fn a_session_belongs_to_the_identity_that_opened_it() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.tables.session_owner(fixture.session), None, "nobody was checked");
    let session = open_as(&mut fixture, 2, OWNER).unwrap();
    assert_eq!(fixture.tables.session_owner(session), Some(OWNER));
    assert_eq!(open_as(&mut fixture, 2, OWNER), Ok(session), "the answer was lost");
    assert!(matches!(open_as(&mut fixture, 2, IdentityId(8)), Err(FsError::Invalid { .. })), "another's nonce");
    fixture.run_without_session(Change::CloseSession { session }).unwrap();
    assert_eq!(fixture.tables.session_owner(session), None);
}
