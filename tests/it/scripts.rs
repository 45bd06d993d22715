//! The old scripts, unchanged, against any node of a ring of five; and their files beside the mount's.

use std::{fs, path::Path};

use harness::{Cluster, TempMount, python, tree};

const LEN: usize = 9 * 4000 + 123;

fn upload(cluster: &Cluster, node: usize, path: &Path, options: &[&str]) {
    let ip = cluster.ip(node).to_string();
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&ip, &path];
    args.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
    assert_eq!(python("upload.py", &args, cluster.folder()).ok().trim(), "10");
}

fn download(cluster: &Cluster, node: usize, name: &str, options: &[&str]) -> Vec<u8> {
    let ip = cluster.ip(node).to_string();
    let target = cluster.folder().join("downloaded");
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&ip, &name, &target];
    args.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
    python("download.py", &args, cluster.folder()).ok();
    fs::read(target).expect("download.py wrote its target")
}

#[test]
fn scripts_and_mount_see_the_same_files() {
    let cluster = Cluster::start(5);
    let mount = TempMount::new(&cluster);
    for (node, options) in [(0, &[][..]), (3, &["--create"][..])] {
        let name = format!("c{node}.txt");
        let source = cluster.folder().join(&name);
        let contents = tree::bytes(node as u64, LEN);
        fs::write(&source, &contents).unwrap();
        upload(&cluster, node, &source, options);
        for from in 0..5 {
            assert_eq!(download(&cluster, from, &name, options), contents, "{name} from node {}", from + 1);
        }
        assert_eq!(fs::metadata(mount.join(&name)).unwrap().len(), LEN as u64);
        assert_eq!(fs::read(mount.join(&name)).unwrap(), contents);
    }
    files_of_the_mount_download(&cluster, &mount);
    a_second_upload_replaces(&cluster, &mount);
}

fn files_of_the_mount_download(cluster: &Cluster, mount: &TempMount) {
    let contents = tree::bytes(77, 50_000);
    fs::write(mount.join("m.bin"), &contents).unwrap();
    assert_eq!(download(cluster, 1, "m.bin", &[]), contents);
    fs::rename(mount.join("m.bin"), mount.join("renamed.bin")).unwrap();
    assert_eq!(download(cluster, 4, "renamed.bin", &[]), contents);
    assert_eq!(download(cluster, 2, "m.bin", &[]), b"", "the old name is gone");
}

/// The old upload server kept the first copy when a name was uploaded again.
fn a_second_upload_replaces(cluster: &Cluster, mount: &TempMount) {
    let source = cluster.folder().join("again.txt");
    for (seed, len) in [(1, 9 * 4000 + 1), (2, 9 * 4000 + 2)] {
        let contents = tree::bytes(seed, len);
        fs::write(&source, &contents).unwrap();
        upload(cluster, 2, &source, &[]);
        assert_eq!(download(cluster, 0, "again.txt", &[]), contents);
        assert_eq!(fs::read(mount.join("again.txt")).unwrap(), contents);
    }
}

#[test]
fn whole_files_over_http() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let client = reqwest::blocking::Client::new();
    let url = |node: usize, path: &str| format!("http://{}:5058{path}", cluster.ip(node));
    let contents = tree::bytes(5, 3_000_000);
    let part = reqwest::blocking::multipart::Part::bytes(contents.clone()).file_name("whole.bin");
    let form = reqwest::blocking::multipart::Form::new().part("files", part);
    let answer = client.post(url(1, "/upload")).multipart(form).send().unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(fs::read(mount.join("whole.bin")).unwrap(), contents);

    let answer = client.get(url(2, "/whole.bin")).send().unwrap();
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(3_000_000)));
    assert_eq!(answer.bytes().unwrap(), contents);
    let answer = client.get(url(0, "/whole.bin")).header("Range", "bytes=4090-4105").send().unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.bytes().unwrap(), contents[4090..=4105]);
    assert_eq!(client.head(url(0, "/whole.bin")).send().unwrap().headers()["content-length"], "3000000");
    assert_eq!(client.get(url(0, "/missing")).send().unwrap().status(), 404);
    assert!(client.get(url(0, "/")).send().unwrap().text().unwrap().contains("whole.bin"));
    assert!(client.get(url(0, "/upload")).send().unwrap().text().unwrap().contains("<form"));
}

/// In a ring with identities the scripts connect without encryption, and see one folder as the root.
#[test]
fn in_a_ring_with_identities_scripts_are_bound_to_their_folder() {
    let mut cluster = Cluster::empty();
    (cluster.has_identities, cluster.run_args) = (true, vec!["--legacy-path", "/scripts"]);
    cluster.add();
    cluster.wait_settled();
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("secret"), "not for scripts").unwrap();
    let http = reqwest::blocking::Client::new();
    let url = |path: &str| format!("http://{}:5058/{path}", cluster.ip(0));
    let early = http.get(url("")).send().unwrap();
    assert!(early.status() == 403 && early.text().unwrap().contains("/scripts"), "the folder does not exist yet");
    fs::create_dir(mount.join("scripts")).unwrap();

    let (source, contents) = (cluster.folder().join("own.txt"), tree::bytes(5, LEN));
    fs::write(&source, &contents).unwrap();
    upload(&cluster, 0, &source, &[]);
    assert_eq!(fs::read(mount.join("scripts/own.txt")).unwrap(), contents);
    assert_eq!(download(&cluster, 0, "own.txt", &[]), contents);
    assert_eq!(download(&cluster, 0, "secret", &[]), b"");

    for outside in ["secret", "scripts/own.txt", "..%2fsecret", "%2e%2e/secret"] {
        let status = http.get(url(outside)).send().unwrap().status();
        assert!(status.is_client_error(), "{outside}: {status}");
    }
    assert_eq!(http.put(url("secret")).body("from a script").send().unwrap().status(), 201);
    assert_eq!(fs::read_to_string(mount.join("secret")).unwrap(), "not for scripts");
    assert_eq!(fs::read_to_string(mount.join("scripts/secret")).unwrap(), "from a script");
    let listed = http.post(url("api/list_keys")).send().unwrap().text().unwrap();
    assert!(listed.contains("own.txt") && !listed.contains("scripts"), "{listed}");
    assert_eq!(http.delete(url("secret")).send().unwrap().status(), 204);
    assert_eq!(fs::read_to_string(mount.join("secret")).unwrap(), "not for scripts");
}
