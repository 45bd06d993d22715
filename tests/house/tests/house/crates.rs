//! The walls between crates: what the pure ones may stand on, who may know AWS, and that nothing is declared for
//! nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;

use crate::sources::{PRODUCTION, root};

/// Crates without clock, socket or task: their tests build in seconds, and their simulations decide everything.
const PURE: [&str; 6] =
    ["chordfs-types", "chordfs-ring", "chordfs-tables", "chordfs-replication", "chordfs-history", "chordfs-console"];
/// Crates that may use the disk and threads of their own, and no runtime.
const WITHOUT_RUNTIME: [&str; 1] = ["chordfs-store"];
const RUNTIMES: [&str; 7] = ["tokio", "axum", "hyper", "openraft", "reqwest", "fuser", "socket2"];
/// The only crates that may depend on the AWS SDK themselves.
const KNOW_AWS: [&str; 2] = ["chordfs-asg", "chordfs-aws"];

#[test]
fn pure_crates_stand_on_no_runtime_and_no_cloud() {
    let graph = Dependencies::of_workspace();
    for name in PURE.into_iter().chain(WITHOUT_RUNTIME) {
        let reached = graph.reached_from(name);
        let wrong: Vec<_> =
            reached.iter().filter(|name| RUNTIMES.contains(&name.as_str()) || name.starts_with("aws-")).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}");
    }
}

#[test]
fn only_two_crates_know_aws() {
    let graph = Dependencies::of_workspace();
    let sdk = |name: &&String| name.starts_with("aws-");
    for (name, direct) in &graph.direct {
        let ours = name.starts_with("chordfs-") || name == "storage-node" || name == "fuse-client";
        if ours && !KNOW_AWS.contains(&name.as_str()) {
            assert_eq!(direct.iter().find(sdk), None, "{name} depends on the AWS SDK itself");
        }
    }
}

#[test]
fn the_program_and_the_mount_build_without_aws_by_default() {
    for package in ["storage-node/cli", "fuse-client"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("it is there");
        assert!(!manifest.contains("default ="), "{package} has default features: AWS must be asked for");
    }
}

#[test]
fn every_dependency_is_used() {
    let unused: Vec<String> = PRODUCTION.iter().flat_map(|package| unused_dependencies(package)).collect();
    assert!(unused.is_empty(), "declared and named nowhere:\n{}", unused.join("\n"));
}

/// Dependencies of a package whose name its sources never use as a path.
fn unused_dependencies(package: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("it is there");
    let sources: String = crate::sources::files_of(package).into_iter().map(|file| file.text).collect();
    let mut in_dependencies = false;
    let mut unused = Vec::new();
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.trim_end_matches(']').ends_with("dependencies");
        } else if in_dependencies {
            let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
            let path = if name == "md-5" { "md5".to_owned() } else { name.replace('-', "_") };
            let used = [format!("{path}::"), format!("use {path};"), format!("use {path} as")];
            if !name.is_empty() && !used.iter().any(|used| sources.contains(used)) {
                unused.push(format!("{package}: {name}"));
            }
        }
    }
    unused
}

/// The graph of dependencies, without those that are only for tests and builds.
struct Dependencies {
    direct: BTreeMap<String, BTreeSet<String>>,
}

impl Dependencies {
    fn of_workspace() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline", "--all-features"])
            // Crates for other systems are not on this machine.
            .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let mut direct = BTreeMap::<String, BTreeSet<String>>::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = |dep: &Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let deps = list(&node["deps"]).into_iter().filter(normal).map(|dep| names[&text(&dep["pkg"])].clone());
            direct.entry(names[&text(&node["id"])].clone()).or_default().extend(deps);
        }
        Self { direct }
    }

    fn reached_from(&self, name: &str) -> BTreeSet<String> {
        assert!(self.direct.contains_key(name), "there is no crate {name}");
        let mut reached = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            for next in self.direct.get(&name).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    }
}
