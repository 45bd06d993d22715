//! Files that are opened from memory: nothing is asked while nothing changes, and no change is missed.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use chordfs_types::namespace::{FeedEvent, FileKind, Ino, SetAttr, Truncate};

use super::fake_namespace_test::TestMount;
use crate::samples_test::name;

impl TestMount {
    fn add_file(&self, file: &str, contents: &[u8]) -> Ino {
        let ino = self.namespace.add(&name(file), FileKind::File);
        self.namespace.overwrite(ino, contents);
        ino
    }

    /// Looks the file up, opens, reads and closes it.
    async fn read_named(&self, file: &str) -> Vec<u8> {
        let file = name(file);
        let ino = match self.fs.cached_lookup(Ino::ROOT, &file) {
            Some(known) => known.expect("the name exists").ino,
            None => self.fs.lookup(Ino::ROOT, &file).await.expect("the name exists").ino,
        };
        self.read_closed(ino).await
    }

    async fn read_closed(&self, ino: Ino) -> Vec<u8> {
        let opened = self.fs.open(ino, false).await.expect("opened");
        let bytes = self.fs.read(ino, 0, 4096).await.expect("read");
        self.fs.release(ino, opened.handle).await;
        bytes
    }

    fn queries(&self) -> u64 {
        self.namespace.queries.load(SeqCst)
    }
}

/// Lets the background tasks run.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_opened_again_without_a_query_until_another_mount_changes_it() {
    let mount = TestMount::new();
    let ino = mount.add_file("f", b"one");
    assert_eq!(mount.read_closed(ino).await, b"one");
    let queries = mount.queries();
    assert_eq!(mount.read_closed(ino).await, b"one");
    assert_eq!(mount.queries(), queries);
    mount.namespace.overwrite(ino, b"two");
    mount.namespace.tell(FeedEvent::Inode { ino, contents: true });
    settle().await;
    assert_eq!(mount.read_closed(ino).await, b"two");
}

#[tokio::test(start_paused = true)]
async fn what_this_mount_writes_is_read_when_the_file_is_opened_again() {
    let mount = TestMount::new();
    let ino = mount.add_file("f", b"one");
    assert_eq!(mount.read_closed(ino).await, b"one");
    for text in [b"two", b"3rd"] {
        let opened = mount.fs.open(ino, true).await.expect("opened");
        mount.fs.write(ino, 0, text.to_vec()).await.expect("written");
        mount.fs.flush(ino, opened.handle).await.expect("committed");
        mount.fs.release(ino, opened.handle).await;
        assert_eq!(mount.read_closed(ino).await, text);
        assert_eq!(mount.read_closed(ino).await, text, "from memory");
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncation_without_an_answer_is_seen_when_the_file_is_opened_again() {
    let mount = TestMount::new();
    let ino = mount.add_file("f", b"one");
    assert_eq!(mount.read_closed(ino).await, b"one");
    mount.namespace.lost_replies.store(1, SeqCst);
    let truncate = SetAttr { truncate: Some(Truncate { size: 0, tail: None }), ..SetAttr::default() };
    assert!(mount.fs.set_attr(ino, truncate).await.is_err());
    assert_eq!(mount.read_closed(ino).await, b"");
}

/// The answer to an opening in advance is made before other mounts change the files, and arrives after it.
#[tokio::test(start_paused = true)]
async fn an_event_that_arrives_while_files_are_opened_in_advance_is_not_overtaken() {
    let mount = TestMount::new();
    for number in 0..40 {
        mount.add_file(&format!("{number:03}"), b"old");
    }
    assert_eq!(mount.read_named("000").await, b"old");
    mount.namespace.open_gate.forget_permits(usize::MAX);
    mount.namespace.open_gate.add_permits(1);
    assert_eq!(mount.read_named("001").await, b"old");
    settle().await;
    let queries = mount.queries();
    for number in 2..40 {
        let ino = mount.namespace.ino(&name(&format!("{number:03}")));
        mount.namespace.overwrite(ino, b"new");
        mount.namespace.tell(FeedEvent::Inode { ino, contents: true });
    }
    settle().await;
    assert_eq!(mount.queries(), queries, "the opening in advance is under way");
    mount.namespace.open_gate.add_permits(100);
    settle().await;
    for number in 2..40 {
        assert_eq!(mount.read_named(&format!("{number:03}")).await, b"new", "file {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_files_of_a_directory_are_opened_and_fetched_many_at_a_time() {
    let mount = TestMount::new();
    for number in 0..500 {
        mount.add_file(&format!("{number:03}"), number.to_string().as_bytes());
    }
    let gets = mount.namespace.gets.load(SeqCst);
    for number in 0..500 {
        assert_eq!(mount.read_named(&format!("{number:03}")).await, number.to_string().as_bytes());
        // Lets what was requested in advance arrive.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (queries, gets) = (mount.queries(), mount.namespace.gets.load(SeqCst) - gets);
    assert!(queries < 50 && gets < 50, "{queries} queries and {gets} requests for chunks");
}
