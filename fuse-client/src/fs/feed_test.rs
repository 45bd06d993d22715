//! What another mount changes, and what an interruption of the feed hides, must reach each file that this mount has
//! open, is opening, or has closed with bytes that could not be committed.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use chordfs_net::session::{EventAcknowledgement, SessionEvent};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Change, FeedEvent, FileKind, Ino, SetAttr, Time, Truncate},
};

use super::{Caller, CreationMode, FileRange, ListedEntry, NewEntry, fake_namespace_test::TestMount};
use crate::samples_test::name;

const MODE: CreationMode = CreationMode { bits: 0o755, umask: 0 };

/// Lets the background tasks run.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn truncate_to_zero() -> SetAttr {
    SetAttr { truncate: Some(Truncate { size: 0, tail: None }), ..SetAttr::default() }
}

/// Writes "old" into a file and closes it while no node answers, so that the bytes are kept.
async fn close_in_vain(mount: &TestMount, ino: Ino) {
    let opened = mount.fs.open(ino, true).await.expect("opened");
    mount.fs.write(ino, 0, b"old".to_vec()).await.expect("written");
    mount.namespace.puts_fail.store(true, SeqCst);
    assert!(mount.fs.flush(ino, opened.handle).await.is_err());
    mount.fs.release(ino, opened.handle).await;
    mount.namespace.puts_fail.store(false, SeqCst);
}

fn holds(mount: &TestMount) -> Vec<Vec<Ino>> {
    let changes = mount.namespace.changes.lock();
    let holds = changes.iter().filter_map(|change| match change {
        Change::HoldOrphans { inos } => Some(inos.clone()),
        _ => None,
    });
    holds.collect()
}

fn releases(mount: &TestMount) -> usize {
    mount.namespace.changes.lock().iter().filter(|change| matches!(change, Change::Release { .. })).count()
}

/// A mount with thousands of open files asked about them one by one after an interruption; the last ones were held
/// later than the grace, and their contents were gone.
#[tokio::test(start_paused = true)]
async fn after_an_interruption_all_open_files_are_held_by_one_change() {
    let mount = TestMount::new();
    for number in 0..300 {
        let ino = mount.namespace.add(&name(&number.to_string()), FileKind::File);
        mount.fs.open(ino, false).await.expect("opened");
    }
    mount.namespace.remove(&name("7"));
    let queries = mount.namespace.queries.load(SeqCst);
    mount.namespace.send_feed(SessionEvent::Reset);
    settle().await;
    let holds = holds(&mount);
    assert_eq!((holds.len(), holds[0].len()), (1, 300));
    assert_eq!(mount.namespace.queries.load(SeqCst), queries, "no file is asked about by itself");
}

/// A new file that was removed before its creator had the answer was in no list of open files: nothing held it, and its
/// contents were purged while it was open.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_removed_before_its_creation_is_answered_is_held() {
    for remover in ["another mount", "another mount, unnoticed", "this mount"] {
        let mount = TestMount::new();
        mount.namespace.open_gate.forget_permits(usize::MAX);
        let fs = mount.fs.clone();
        let caller = Caller { uid: 0, gid: 0 };
        let creating = tokio::spawn(async move { fs.create(Ino::ROOT, &name("f"), MODE, false, caller).await });
        settle().await;
        let ino = mount.namespace.ino(&name("f"));
        if remover == "this mount" {
            mount.fs.unlink(Ino::ROOT, &name("f")).await.expect("removed");
        } else {
            mount.namespace.remove(&name("f"));
            let event = SessionEvent::Feed(vec![FeedEvent::Orphaned { ino }], EventAcknowledgement::none());
            mount.namespace.send_feed(if remover == "another mount" { event } else { SessionEvent::Reset });
        }
        settle().await;
        mount.namespace.open_gate.add_permits(1);
        creating.await.expect("no panic").expect("created");
        settle().await;
        assert_eq!(holds(&mount), [vec![ino]], "removed by {remover}");
    }
}

/// A release that failed was dropped: the nodes kept the deleted file until the unmount.
#[tokio::test(start_paused = true)]
async fn a_release_without_an_answer_is_sent_again() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    let opened = mount.fs.open(ino, false).await.expect("opened");
    mount.fs.unlink(Ino::ROOT, &name("f")).await.expect("unlinked");
    mount.namespace.lost_replies.store(1, SeqCst);
    mount.fs.release(ino, opened.handle).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(releases(&mount), 2);
}

/// An unlink that held the file and got no answer may have been applied; nothing released it at the last close.
#[tokio::test(start_paused = true)]
async fn a_file_whose_unlink_got_no_answer_is_released_at_its_last_close() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    let opened = mount.fs.open(ino, false).await.expect("opened");
    mount.namespace.lost_replies.store(1, SeqCst);
    assert!(mount.fs.unlink(Ino::ROOT, &name("f")).await.is_err());
    mount.fs.release(ino, opened.handle).await;
    settle().await;
    assert_eq!(releases(&mount), 1);
}

/// One program creates a file and waits for the answer. Another one has opened it, removes it, and closes it before the
/// removal is answered: the file was released then, and its contents were purged while the first one had it open.
#[tokio::test(start_paused = true)]
async fn a_removed_file_is_not_released_while_it_may_be_one_that_is_being_created() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    let creation = mount.fs.creations.begin();
    mount.fs.note_held(ino);
    settle().await;
    assert_eq!(releases(&mount), 0);
    drop(creation);
    mount.fs.note_held(ino);
    settle().await;
    assert_eq!(releases(&mount), 1);
}

/// The feed reported a change while the answer to `Open` was on its way: the file was attached with the older contents
/// and took them for the newest as long as it stayed open.
#[tokio::test(start_paused = true)]
async fn a_change_reported_while_a_file_is_being_opened_is_seen() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    mount.namespace.overwrite(ino, b"before");
    mount.namespace.open_gate.forget_permits(usize::MAX);
    let fs = mount.fs.clone();
    let opening = tokio::spawn(async move { fs.open(ino, false).await });
    settle().await;
    mount.namespace.overwrite(ino, b"after");
    mount.namespace.tell(FeedEvent::Inode { ino, contents: true });
    settle().await;
    mount.namespace.open_gate.add_permits(100);
    opening.await.expect("no panic").expect("opened");
    assert_eq!(mount.fs.read(ino, 0, 10).await.expect("read"), b"after");
}

/// Bug: the answer to a creation came after the report of what another mount had written to the file. The file stayed
/// empty here, and what was written here replaced the other mount's bytes without a sync.
#[tokio::test(start_paused = true)]
async fn a_change_reported_while_a_file_is_being_created_is_seen() {
    for event in ["a change", "an interruption"] {
        let mount = TestMount::new();
        mount.namespace.open_gate.forget_permits(usize::MAX);
        let fs = mount.fs.clone();
        let caller = Caller { uid: 0, gid: 0 };
        let creating = tokio::spawn(async move { fs.create(Ino::ROOT, &name("f"), MODE, false, caller).await });
        settle().await;
        let ino = mount.namespace.ino(&name("f"));
        mount.namespace.overwrite(ino, b"after");
        let change = SessionEvent::Feed(vec![FeedEvent::Inode { ino, contents: true }], EventAcknowledgement::none());
        mount.namespace.send_feed(if event == "a change" { change } else { SessionEvent::Reset });
        settle().await;
        mount.namespace.open_gate.add_permits(100);
        creating.await.expect("no panic").expect("created");
        assert_eq!(mount.fs.read(ino, 0, 10).await.expect("read"), b"after", "{event}");
    }
}

/// An interruption of the feed in this window went unnoticed as well: it reached only files that were attached.
#[tokio::test(start_paused = true)]
async fn an_interruption_while_a_file_is_being_opened_is_noticed() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    mount.namespace.overwrite(ino, b"before");
    mount.namespace.open_gate.forget_permits(usize::MAX);
    let fs = mount.fs.clone();
    let opening = tokio::spawn(async move { fs.open(ino, false).await });
    settle().await;
    mount.namespace.overwrite(ino, b"after");
    mount.namespace.send_feed(SessionEvent::Reset);
    settle().await;
    mount.namespace.open_gate.add_permits(100);
    opening.await.expect("no panic").expect("opened");
    assert_eq!(mount.fs.read(ino, 0, 10).await.expect("read"), b"after");
}

/// A truncation by path went straight to the namespace while the kept bytes waited for their retry, which brought them
/// back into the emptied file.
#[tokio::test(start_paused = true)]
async fn bytes_kept_after_a_failed_close_do_not_survive_a_truncation_by_path() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    close_in_vain(&mount, ino).await;
    assert_eq!(mount.fs.attr(ino).await.expect("attributes").size, 3, "the kept bytes are seen");
    let attr = mount.fs.set_attr(ino, truncate_to_zero()).await.expect("truncated");
    assert_eq!(attr.size, 0);
    mount.fs.flush_all().await.expect("flushed");
    assert_eq!(mount.namespace.attr(ino).size, 0);
}

/// Times set by path were overwritten by the retry of the kept bytes.
#[tokio::test(start_paused = true)]
async fn times_set_after_a_failed_close_stay() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    close_in_vain(&mount, ino).await;
    let mtime = Time { secs: 77, nanos: 0 };
    mount.fs.set_attr(ino, SetAttr { mtime: Some(mtime), ..SetAttr::default() }).await.expect("set");
    mount.fs.flush_all().await.expect("flushed");
    let Attr { size, mtime: set, .. } = mount.namespace.attr(ino);
    assert_eq!((size, set), (3, mtime));
}

/// Programs that had the directory open, or worked in it, got ESTALE.
#[tokio::test(start_paused = true)]
async fn a_directory_that_another_mount_removed_has_no_links_and_no_entries() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("d"), FileKind::Directory);
    mount.fs.lookup(Ino::ROOT, &name("d")).await.expect("found");
    let handle = mount.fs.open_directory(ino);
    mount.namespace.remove(&name("d"));
    mount.namespace.tell(FeedEvent::Inode { ino, contents: false });
    settle().await;
    assert_eq!(mount.fs.attr(ino).await.map(|attr| attr.nlink), Ok(0));
    let mut entries = 0;
    let count = |_: ListedEntry<'_>| {
        entries += 1;
        true
    };
    mount.fs.list(handle, 0, count).await.expect("listed");
    assert_eq!(entries, 0);
    let new = NewEntry { kind: FileKind::Directory, mode: MODE, rdev: 0, target: Vec::new(), exclusive: true };
    let caller = Caller { uid: 0, gid: 0 };
    assert_eq!(mount.fs.make(ino, &name("in"), new, caller).await.map(drop), Err(FsError::NoEntry));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_this_mount_removed_has_no_links() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("d"), FileKind::Directory);
    mount.fs.lookup(Ino::ROOT, &name("d")).await.expect("found");
    mount.fs.rmdir(Ino::ROOT, &name("d")).await.expect("removed");
    assert_eq!(mount.fs.attr(ino).await.map(|attr| (attr.nlink, attr.kind)), Ok((0, FileKind::Directory)));
}

/// A terabyte was "allocated" in a ring of eight gigabytes.
#[tokio::test(start_paused = true)]
async fn allocating_more_than_is_free_is_refused() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    mount.fs.open(ino, true).await.expect("opened");
    mount.namespace.free_bytes.store(1 << 20, SeqCst);
    let range = |offset, len| FileRange { offset, len };
    assert_eq!(mount.fs.allocate(ino, range(0, 1 << 21), false).await, Err(FsError::NoSpace));
    assert_eq!(mount.fs.allocate(ino, range(1 << 30, 1 << 20), false).await, Ok(()), "a hole takes no space");
    mount.namespace.free_bytes.store(0, SeqCst);
    assert_eq!(mount.fs.allocate(ino, range(0, 1 << 20), false).await, Ok(()), "nothing is added");
}

/// Bytes that were written and not stored yet did not count as used.
#[tokio::test(start_paused = true)]
async fn bytes_in_the_mounts_memory_count_as_used() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    mount.fs.open(ino, true).await.expect("opened");
    let before = mount.fs.statistics().await.expect("statistics");
    mount.fs.write(ino, 0, vec![1; 100_000]).await.expect("written");
    let after = mount.fs.statistics().await.expect("statistics");
    assert_eq!(before.total_bytes, after.total_bytes);
    assert!(after.free_bytes + 100_000 <= before.free_bytes, "{before:?}, then {after:?}");
}

/// The ctime stayed at the previous commit's while the mtime moved, and then became the time of the commit.
#[tokio::test(start_paused = true)]
async fn ctime_moves_with_a_write_and_stays_through_the_commit() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    let opened = mount.fs.open(ino, true).await.expect("opened");
    let before = mount.fs.attr(ino).await.expect("attributes").ctime;
    mount.fs.write(ino, 0, b"bytes".to_vec()).await.expect("written");
    let written = mount.fs.attr(ino).await.expect("attributes");
    assert!(written.ctime > before && written.ctime == written.mtime, "{written:?}");
    // The clock of the fake namespace is the real one.
    std::thread::sleep(Duration::from_millis(5));
    mount.fs.flush(ino, opened.handle).await.expect("committed");
    assert_eq!(mount.namespace.attr(ino).ctime, written.ctime);
    assert_eq!(mount.fs.attr(ino).await.expect("attributes").ctime, written.ctime);
}

/// Attributes that are set while a commit is due have a ctime of their own, which goes with the commit.
#[tokio::test(start_paused = true)]
async fn ctime_moves_with_attributes_that_wait_for_a_commit() {
    let mount = TestMount::new();
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    let opened = mount.fs.open(ino, true).await.expect("opened");
    mount.fs.write(ino, 0, b"bytes".to_vec()).await.expect("written");
    let written = mount.fs.attr(ino).await.expect("attributes");
    std::thread::sleep(Duration::from_millis(5));
    mount.fs.set_attr(ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.expect("deferred");
    let changed = mount.fs.attr(ino).await.expect("attributes");
    assert!(changed.ctime > written.ctime && changed.mode == 0o600, "{changed:?}");
    std::thread::sleep(Duration::from_millis(5));
    mount.fs.flush(ino, opened.handle).await.expect("committed");
    assert_eq!(mount.namespace.attr(ino).ctime, changed.ctime);
}

/// The attributes cached before a failed close stayed for as long as no other mount changed the file.
#[tokio::test]
async fn the_size_is_right_after_kept_bytes_were_committed_in_the_background() {
    let mount = TestMount::with_flush_age(Duration::from_millis(100));
    let ino = mount.namespace.add(&name("f"), FileKind::File);
    mount.fs.attr(ino).await.expect("attributes");
    close_in_vain(&mount, ino).await;
    mount.fs.attr(ino).await.expect("attributes");
    for _ in 0..100 {
        if mount.namespace.attr(ino).size == 3 {
            break;
        }
        settle().await;
    }
    settle().await;
    assert_eq!(mount.namespace.attr(ino).size, 3, "committed by age");
    let cached = mount.fs.cached_attr(ino).map_or(3, |attr| attr.size);
    assert_eq!(cached, 3);
}
