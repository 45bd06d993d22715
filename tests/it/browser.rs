//! The pages that nodes serve, in a real browser.

use harness::Cluster;

#[test]
fn people_use_the_page_of_files() {
    let cluster = Cluster::start(1);
    let node = cluster.ip(0).to_string();
    assert_eq!(harness::browser("files_page.py", &[&node], cluster.folder()).ok().trim(), "ok");
}
