//! Ordinary programs in the mount.

use std::{fs, path::Path};

use harness::{Cluster, TempMount, programs::shell, tree};

fn source_tree(folder: &Path) {
    for dir in ["src", "src/deep/er", "empty"] {
        fs::create_dir_all(folder.join(dir)).unwrap();
    }
    for file in 0..120_u64 {
        let dir = ["", "src", "src/deep/er"][file as usize % 3];
        fs::write(folder.join(dir).join(format!("file-{file}")), tree::bytes(file, (file * 331) as usize)).unwrap();
    }
    std::os::unix::fs::symlink("file-0", folder.join("link")).unwrap();
    fs::hard_link(folder.join("file-3"), folder.join("hard")).unwrap();
}

#[test]
fn copies_archives_and_repositories() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let local = cluster.folder().join("tree");
    source_tree(&local);
    let local = local.display();
    let at = |script: &str| shell(script, mount.path()).ok();
    at(&format!("cp -a {local} copied && diff -r --no-dereference {local} copied"));
    at(&format!("[ \"$(stat -c %Y {local}/src/file-1)\" = \"$(stat -c %Y copied/src/file-1)\" ]"));
    at(&format!(
        "tar -C {local} -cf archive.tar . && mkdir untarred && tar -C untarred -xf archive.tar && diff -r --no-dereference {local} untarred"
    ));
    at(&format!(
        "rsync -aH {local}/ synced/ && diff -r --no-dereference {local} synced && rsync -aH --checksum --itemize-changes {local}/ synced/ > changes && [ ! -s changes ]"
    ));
    at("rm -rf untarred synced && [ ! -e untarred ]");
    at(&format!(
        "export HOME={local} GIT_CONFIG_GLOBAL=/dev/null; cd {local} && git init -q -b main . && git add -A && git -c user.name=t -c user.email=t@example.com commit -qm one"
    ));
    at(&format!(
        "export GIT_CONFIG_GLOBAL=/dev/null; git clone -q {local} cloned && cd cloned && git -c safe.directory='*' fsck --full && git -c safe.directory='*' status --porcelain > ../status && [ ! -s ../status ]"
    ));
}

#[test]
fn a_database_of_a_few_thousand_transactions() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    for journal in ["delete", "wal"] {
        let script = format!(
            "{{ echo 'pragma journal_mode={journal}; create table t(k integer primary key, v text);'
               for i in $(seq 1000); do echo \"begin; insert into t values($i, 'value $i'); commit;\"; done; }} | sqlite3 {journal}.db >/dev/null
             sqlite3 {journal}.db 'pragma integrity_check; select count(*), sum(k) from t;'"
        );
        assert_eq!(shell(&script, mount.path()).ok().trim(), "ok\n1000|500500", "{journal}");
    }
}

#[test]
fn a_rust_project_builds() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let script = "unset CARGO_TARGET_DIR; export USER=tester; cargo new --quiet --vcs none hello && cd hello && cargo build --quiet --offline && ./target/debug/hello";
    assert_eq!(shell(script, mount.path()).ok().trim(), "Hello, world!");
}
