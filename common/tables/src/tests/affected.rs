//! What a change depends on. The model test checks that it names all that a change changes.

use super::*;
use crate::names_of;

const ROOT: Ino = Ino::ROOT;

fn rename(from: (Ino, &str), to: (Ino, &str)) -> Change {
    let (name, new_name) = (entry(from.1), entry(to.1));
    Change::Rename { parent: from.0, name, new_parent: to.0, new_name, mode: RenameMode::Replace, hold: false }
}

#[test]
fn a_change_depends_on_its_directories_and_what_is_there_now() {
    let mut fixture = Fixture::new();
    let (d, f) = (fixture.dir(ROOT, "d"), fixture.file("f"));
    let g = fixture.make(d, "g", node(FileKind::File)).unwrap().ino;
    let unlink = |name: &str| Change::Unlink { parent: d, name: entry(name), hold: true };
    let affected = |change: &Change| fixture.tables.affected(change);
    assert_eq!(affected(&unlink("g")), [d, g]);
    assert_eq!(affected(&unlink("none")), [d]);
    assert_eq!(affected(&Change::Unlink { parent: Ino(99), name: entry("g"), hold: true }), []);
    assert_eq!(affected(&rename((ROOT, "f"), (d, "g"))), [ROOT, d, f, g]);
    assert_eq!(affected(&Change::Link { ino: f, parent: d, name: entry("g") }), [d, f, g]);
    assert_eq!(affected(&Change::SetAttr { ino: f, set: SetAttr::default() }), [f]);
    assert_eq!(affected(&Change::Commit { ino: Ino(99), commit: Commit::default() }), []);
    for nothing in [Change::Hold { ino: f }, Change::Release { inos: vec![f] }, Change::AllocateInos { count: 1 }] {
        assert_eq!(affected(&nothing), []);
    }
}

/// Whether a directory may move depends on where the directories above its new place are.
#[test]
fn moving_a_directory_depends_on_all_that_is_above() {
    let mut fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    let (c, moved) = (fixture.dir(b, "c"), fixture.dir(a, "moved"));
    let tables = &fixture.tables;
    let (across, within) = (rename((a, "moved"), (c, "x")), rename((a, "moved"), (a, "x")));
    assert_eq!((tables.affected(&across), tables.moves_directory(&across)), (vec![ROOT, a, b, c, moved], true));
    assert_eq!((tables.affected(&within), tables.moves_directory(&within)), (vec![a, moved], false));
    assert_eq!(names_of(&across), [(a, &entry("moved")), (c, &entry("x"))]);
}
