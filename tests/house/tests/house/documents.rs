//! What documents name has to exist: the files and folders of the map, links, and the test of every promise.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::sources::{PRODUCTION, listed_files, root};

/// Documents that lead through the sources.
const MAPS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];
const PROMISES: [&str; 2] = ["deploy/docs/promises.md", "deploy/docs/semantics.md"];

#[test]
fn every_promise_names_a_test_that_exists() {
    PROMISES.iter().for_each(|document| check_promises(document));
}

fn check_promises(document: &str) {
    let promises = read(document);
    let rows: Vec<&str> = promises.lines().filter(|line| promise_number(line).is_some()).collect();
    assert!(rows.len() > 10, "{document} has only {} numbered rows: `| 1 | promise | test |`", rows.len());
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(promise_number(row), Some(at + 1), "promises are numbered without gaps: {row}");
        let last = row.trim_end_matches('|').rsplit('|').next().expect("a row has cells");
        let tests: Vec<&str> = code_spans(last);
        assert!(!tests.is_empty(), "no test is named: {row}");
        for test in tests {
            assert!(exists(test), "{document} names the test `{test}`, which does not exist: {row}");
        }
    }
}

#[test]
fn the_maps_name_every_crate_and_nothing_that_is_gone() {
    for map in MAPS {
        let text = read(map);
        let spans: BTreeSet<&str> = text.lines().flat_map(code_spans).collect();
        for package in PRODUCTION {
            assert!(spans.contains(format!("{package}/").as_str()), "{map} does not name the crate `{package}/`");
        }
        let paths = spans.iter().filter(|span| is_path(span));
        let gone: Vec<_> = paths.filter(|path| !root().join(path.trim_end_matches('/')).exists()).collect();
        assert!(gone.is_empty(), "{map} names what is not there: {gone:?}");
    }
}

/// A door is named relative to its row's folder, or to the `src` in it.
#[test]
fn the_doors_in_the_readmes_map_exist() {
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"));
    let mut doors = 0;
    for (folder, row) in rows.filter(|(folder, _)| root().join(folder).exists()) {
        for door in row.rsplit('|').nth(1).into_iter().flat_map(code_spans) {
            let places = [root().join(folder).join(door), root().join(folder).join("src").join(door)];
            assert!(
                places.iter().any(|place| place.exists()),
                "README.md names `{door}` in {folder}, which is not there"
            );
            doors += 1;
        }
    }
    assert!(doors > 50, "only {doors} doors were found in README.md");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = listed_files("*.md");
    assert!(documents.len() > 3, "git lists no documents");
    for document in &documents {
        let folder = Path::new(document).parent().expect("a file is in a folder");
        for target in link_targets(&read(document)) {
            let file = target.split('#').next().unwrap_or_default();
            assert!(
                file.is_empty() || root().join(folder).join(file).exists(),
                "{document} links to {target}, which is not there"
            );
        }
    }
}

#[test]
fn tests_are_found_by_their_names_and_others_are_not() {
    assert!(exists("house::documents::tests_are_found_by_their_names_and_others_are_not"));
    assert!(!exists("house::documents::a_test_that_nobody_wrote"), "found in its own text only");
    assert!(!exists("house::documents::link_targets"), "a function that is no test");
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The number of a row `| 7 | ... |`.
fn promise_number(line: &str) -> Option<usize> {
    line.strip_prefix('|')?.split('|').next()?.trim().parse().ok()
}

fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Whether a code span is meant as a path from the root: it begins with a folder of ours.
fn is_path(span: &str) -> bool {
    let folders = ["common/", "storage-node/", "fuse-client/", "deploy/", "tests/"];
    folders.iter().any(|folder| span.starts_with(folder))
        && !span.contains(|c: char| c.is_whitespace() || "*<{$".contains(c))
}

fn link_targets(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.contains(' ')).collect()
}

/// A test of Rust as `module::name`, where the module may be left out, or a scenario of the cloud as `cloud NAME`.
fn exists(test: &str) -> bool {
    if let Some(scenario) = test.strip_prefix("cloud ") {
        return root().join("tests/cloud/scenarios").join(format!("{}.py", scenario.replace('-', "_"))).exists();
    }
    let (module, name) = test.rsplit_once("::").unwrap_or_default();
    let name = if name.is_empty() { test } else { name };
    let module = module.rsplit("::").next().unwrap_or_default();
    files_with(name).iter().any(|file| file.contains(module) && has_test(&read(file), name))
}

/// Files of Rust that define a function of that name.
fn files_with(name: &str) -> Vec<String> {
    let listed = Command::new("git")
        .args(["grep", "--untracked", "-lE", &format!("^ *(pub )?(async )?fn {name}\\(")])
        .args(["--", "*.rs"])
        .current_dir(root())
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
}

/// Whether the function of that name carries `#[test]` or `#[tokio::test]`: a helper holds no promise.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let defines = |line: &str| line.split("fn ").nth(1).is_some_and(|rest| rest.starts_with(&format!("{name}(")));
    let attributes =
        |at: usize| lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    (0..lines.len()).any(|at| defines(lines[at]) && attributes(at).any(is_test))
}
