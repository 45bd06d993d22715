//! No circle between the rooms of a crate, and nothing in a lower room imports from a higher one.
//!
//! A room is a top-level module. Its imports are the paths that begin with `crate::`, in `use` and in the code. What is
//! compiled for tests only does not count: a test may stand on anything.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::sources::{PRODUCTION, SourceFile, files_of, is_for_tests};

/// Crates whose `lib.rs` has to say in which order its rooms stand.
const ORDERED: [&str; 2] = ["storage-node/node", "fuse-client"];

#[test]
fn no_circle_of_rooms() {
    let circles: Vec<String> = PRODUCTION
        .iter()
        .filter_map(|package| Some(format!("{package}: {}", find_circle(&imports(package))?.join(" -> "))))
        .collect();
    assert!(circles.is_empty(), "rooms import each other in a circle:\n{}", circles.join("\n"));
}

#[test]
fn no_import_runs_upward() {
    let mut upward = Vec::new();
    for package in PRODUCTION {
        let floors = floors(package);
        for (room, targets) in imports(package) {
            let Some(own) = floors.get(&room) else { continue };
            let above = targets.iter().filter(|target| floors.get(*target) > Some(own));
            upward.extend(above.map(|target| format!("{package}: {room} imports from {target}")));
        }
    }
    assert!(upward.is_empty(), "a lower room imports from a higher one:\n{}", upward.join("\n"));
}

#[test]
fn every_room_has_its_floor() {
    for package in ORDERED {
        let floors: BTreeSet<String> = floors(package).into_keys().collect();
        let rooms: BTreeSet<String> =
            files_of(package).into_iter().filter(|file| !file.is_test).filter_map(|file| file.room).collect();
        assert_eq!(floors, rooms, "{package}: the table of rooms in lib.rs (left) against the rooms that are there");
    }
}

/// Rooms from the bottom up, as the table headed `| room |` in a crate's `lib.rs` lists them; those of one row share a
/// floor.
fn floors(package: &str) -> BTreeMap<String, usize> {
    let head = files_of(package).into_iter().find(|file| file.room.is_none()).map(|file| file.text).unwrap_or_default();
    let table = head.lines().skip_while(|line| !line.starts_with("//! | room |")).skip(2);
    let rows = table.map_while(|line| line.strip_prefix("//! | ")).enumerate();
    rows.flat_map(|(floor, row)| {
        let rooms = row.split('|').next().unwrap_or_default().split('`').skip(1).step_by(2);
        rooms.map(move |room| (room.to_owned(), floor)).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn a_circle_is_found() {
    let edge = |to: &[&str]| to.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let mut graph =
        BTreeMap::from([("a".into(), edge(&["b", "c"])), ("b".into(), edge(&["c"])), ("c".into(), edge(&[]))]);
    assert_eq!(find_circle(&graph), None);
    graph.insert("c".into(), edge(&["a"]));
    assert!(find_circle(&graph).is_some());
}

#[test]
fn imports_are_seen_in_use_trees_and_in_paths() {
    let file = syn::parse_file(
        "use crate::{a::X, b::{self, Y}}; use super::z; fn f() -> crate::c::Z { crate::d::g() }
         #[cfg(test)] mod tests { use crate::e::E; }",
    )
    .expect("it parses");
    let mut seen = Imports::default();
    seen.visit_file(&file);
    assert_eq!(seen.rooms.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// From each room to those that it imports from.
fn imports(package: &str) -> Graph {
    let files: Vec<SourceFile> = files_of(package).into_iter().filter(|file| !file.is_test).collect();
    let rooms: BTreeSet<String> = files.iter().filter_map(|file| file.room.clone()).collect();
    let mut graph = Graph::new();
    for file in &files {
        let Some(room) = &file.room else { continue };
        let mut seen = Imports::default();
        seen.visit_file(&file.syntax);
        let targets = seen.rooms.into_iter().filter(|target| target != room && rooms.contains(target));
        graph.entry(room.clone()).or_default().extend(targets);
    }
    graph
}

/// Follows every path until one comes back; graphs here have a dozen rooms.
fn find_circle(graph: &Graph) -> Option<Vec<String>> {
    fn follow(graph: &Graph, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let room = path.last().expect("a path begins somewhere").clone();
        if path[..path.len() - 1].contains(&room) {
            return true;
        }
        for next in
            graph.get(&room).into_iter().flatten().filter(|next| !done.contains(*next)).cloned().collect::<Vec<_>>()
        {
            path.push(next);
            if follow(graph, path, done) {
                return true;
            }
            path.pop();
        }
        done.insert(room);
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|room| {
        let mut path = vec![room.clone()];
        follow(graph, &mut path, &mut done).then_some(path)
    })
}

/// The first names after `crate::`.
#[derive(Default)]
struct Imports {
    rooms: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_for_tests(&item.attrs) {
            return;
        }
        if let syn::UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.rooms.extend(first_names(&path.tree));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut names = path.segments.iter().map(|segment| segment.ident.to_string());
        if names.next().as_deref() == Some("crate") {
            self.rooms.extend(names.next());
        }
        visit::visit_path(self, path);
    }
}

fn first_names(tree: &syn::UseTree) -> Vec<String> {
    match tree {
        syn::UseTree::Path(path) => vec![path.ident.to_string()],
        syn::UseTree::Name(name) => vec![name.ident.to_string()],
        syn::UseTree::Rename(name) => vec![name.ident.to_string()],
        syn::UseTree::Glob(_) => vec![],
        syn::UseTree::Group(group) => group.items.iter().flat_map(first_names).collect(),
    }
}
