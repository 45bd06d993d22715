//! The repository's Rust files, each with the crate and the room (top-level module) that it belongs to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct SourceFile {
    /// From the repository's root.
    pub path: PathBuf,
    /// The top-level module; `None` for `lib.rs` and `main.rs`.
    pub room: Option<String>,
    pub text: String,
    pub syntax: syn::File,
    /// A file of tests alone: it may import what it likes.
    pub is_test: bool,
}

pub(crate) fn root() -> PathBuf {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    house.ancestors().nth(2).expect("tests/house lies two folders below the root").to_owned()
}

/// Paths from the root that match the pattern and are in the repository or about to be: also files that are not yet
/// added, so that a rule speaks before the commit and not after it.
pub(crate) fn listed_files(pattern: &str) -> Vec<String> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", pattern];
    let listed = Command::new("git").args(arguments).current_dir(root()).output().expect("git runs");
    let listed = String::from_utf8(listed.stdout).expect("names are UTF-8");
    listed.lines().map(str::to_owned).collect()
}

/// Every package of the workspace that holds production code.
pub(crate) const PRODUCTION: [&str; 18] = [
    "common/asg",
    "common/files",
    "common/log",
    "common/net",
    "common/tables",
    "common/types",
    "fuse-client",
    "storage-node/aws",
    "storage-node/cli",
    "storage-node/console",
    "storage-node/history",
    "storage-node/leases",
    "storage-node/namespace",
    "storage-node/node",
    "storage-node/pool",
    "storage-node/replication",
    "storage-node/ring",
    "storage-node/store",
];

/// All files of a package, in the order of their names.
pub(crate) fn files_of(package: &str) -> Vec<SourceFile> {
    let folder = root().join(package);
    let mut paths = Vec::new();
    collect(&folder.join("src"), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "{package} has no source files: is its name still right?");
    paths.iter().map(|path| read(path, package)).collect()
}

pub(crate) fn production() -> Vec<SourceFile> {
    PRODUCTION.iter().flat_map(|package| files_of(package)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be listed").path();
        match path.extension() {
            _ if path.is_dir() => collect(&path, paths),
            Some(extension) if extension == "rs" => paths.push(path),
            _ => {}
        }
    }
}

fn read(path: &Path, package: &str) -> SourceFile {
    let text = fs::read_to_string(path).expect("a source file is UTF-8");
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let below_src = path.strip_prefix(root().join(package).join("src")).expect("it was found there");
    let names: Vec<String> =
        below_src.iter().map(|name| name.to_string_lossy().trim_end_matches(".rs").to_owned()).collect();
    let room = (names != ["lib"] && names != ["main"]).then(|| names[0].clone());
    SourceFile {
        path: path.strip_prefix(root()).expect("it was found below the root").to_owned(),
        room,
        text,
        syntax,
        is_test: names.iter().any(|name| is_test_name(name)),
    }
}

/// The names that files of tests and test doubles have.
fn is_test_name(name: &str) -> bool {
    matches!(name, "tests" | "fake" | "fakes" | "model") || name.ends_with("_test") || name.ends_with("_tests")
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::NameValue(_) => false,
    })
}
