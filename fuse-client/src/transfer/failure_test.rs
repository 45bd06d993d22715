//! Which data and attributes survive a failed commit, and which are discarded: data of other programs, acknowledged
//! attributes, and commits that may or may not have been applied.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use chordfs_net::operation;
use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Ino, SetAttr, Time, Truncate},
};
use tokio::sync::Semaphore;

use super::{
    CommitReason, FileData, TransferSettings,
    fake_ring_test::{
        ChangeOutcome::{Applied, NotApplied},
        FakeRing, INO,
    },
    model_test::write_over,
    transfer_test::{fresh_read, read, run, settings, until, write},
};

const THEN: Time = Time { secs: 1_000_000, nanos: 5 };

fn no_answer() -> FsError {
    FsError::NoQuorum { detail: "no leader".into() }
}

fn mode(mode: u16) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

/// One chunk per upload.
fn chunk_by_chunk() -> TransferSettings {
    TransferSettings { flush_run_bytes: 4096, max_uploads: 1, ..settings() }
}

/// A ring with an empty file, which one mount has open.
pub(super) fn open_file(settings: TransferSettings) -> (Arc<FakeRing>, Arc<FileData>) {
    let world = FakeRing::new(4096, 1);
    let transfer = world.mount(settings);
    let file = world.open(&transfer);
    (world, file)
}

async fn overwrite(file: &Arc<FileData>, offset: u64) {
    write(file, offset, &[2; 4096]).await.unwrap();
    file.commit(Durability::Memory).await.unwrap();
}

async fn commit_in_background(file: &Arc<FileData>) {
    file.clone().commit_in_background().await;
}

/// Bug: a failed commit also discarded what another program had written since it began, and only its own program
/// received the error.
#[test]
fn uploads_completed_since_a_failed_commit_began_are_kept() {
    run(async {
        let world = FakeRing::new(4096, 1);
        world.put_gate.forget_permits(Semaphore::MAX_PERMITS);
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 4096]).await.unwrap();
        write(&file, 4096, &[1; 100]).await.unwrap();
        let committing = tokio::spawn({
            let file = file.clone();
            async move { file.commit(Durability::Disk).await }
        });
        until("the beginning of the commit", || file.state.lock().is_committing()).await;
        write(&file, 8192, &[2; 4096]).await.unwrap();
        // Permits for the first chunk, for the second program's, and then for the partly written one, whose commit
        // fails.
        world.put_gate.add_permits(1);
        until("the second upload", || file.state.lock().uploads_started() == 2).await;
        world.change_failures.lock().push((FsError::OutOfOrder, NotApplied));
        world.put_gate.add_permits(1);
        until("the end of the second upload", || file.state.lock().is_stored(3)).await;
        world.put_gate.add_permits(1000);
        assert_eq!(committing.await.unwrap(), Err(FsError::OutOfOrder));
        assert_eq!(file.commit(Durability::Memory).await.unwrap().unwrap().size, 3 * 4096);
        let mut model = vec![0; 8192];
        model.resize(3 * 4096, 2);
        assert!(fresh_read(&world).await == model);
    });
}

/// Bug: a file that was replaced by a rename, and was open, took the report about lost chunks of the new file of its
/// name. The new file's next commit named a chunk that no node had.
#[test]
fn lost_chunks_are_discarded_in_all_files_of_their_name() {
    run(async {
        let (world, file) = open_file(chunk_by_chunk());
        let other = file.transfer.open_file(&Attr { ino: Ino(8), ..world.attr() }, vec![], false);
        write(&other, 0, &[1; 4096]).await.unwrap();
        until("the upload", || other.state.lock().is_stored(1)).await;
        let lost = FsError::Lost { detail: "chunk 1".into() };
        world.sync_failures.lock().push(lost.clone());
        let cursor = other.error_cursor();
        assert_eq!(file.commit(Durability::Disk).await, Err(lost));
        assert!(!other.state.lock().is_stored(1) && other.has_unreported_error(&cursor));
    });
}

/// Bug: another mount's fsynced chunk was replaced by one on no disk, because the extents were known from before it.
#[test]
fn chunks_are_on_disk_before_they_replace_those_of_a_stale_state() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let (here, there) = (world.mount(chunk_by_chunk()), world.mount(chunk_by_chunk()));
        let file = world.open(&here);
        let other = world.open(&there);
        write(&other, 0, &[1; 4096]).await.unwrap();
        other.commit(Durability::Disk).await.unwrap();
        file.invalidate();
        write(&file, 0, &[2; 4096]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        assert!(world.committed_durably());
    });
}

#[test]
fn attributes_survive_when_the_data_of_their_commit_is_discarded() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&SetAttr { mtime: Some(THEN), ..mode(0o600) }));
        world.put_failures.lock().push(FsError::NoSpace);
        assert_eq!(file.commit(Durability::Disk).await, Err(FsError::NoSpace));
        let mut attr = world.attr();
        file.overlay(&mut attr);
        assert_eq!(
            (attr.mode, attr.mtime, attr.size),
            (0o600, THEN, 0),
            "the data is discarded, the attributes are kept"
        );
        commit_in_background(&file).await;
        assert_eq!((world.attr().mode, world.attr().mtime, world.attr().size), (0o600, THEN, 0));
        assert!(!file.is_dirty() && file.transfer.dirty.lock().is_empty());
        assert_eq!(file.commit(Durability::Memory).await, Ok(None));
    });
}

#[test]
fn unmounting_sends_the_attributes_of_discarded_data() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&mode(0o600)));
        world.put_failures.lock().push(FsError::NoSpace);
        assert_eq!(file.transfer.flush_all().await, Err(FsError::NoSpace));
        assert_eq!(world.attr().mode, 0o600);
    });
}

#[test]
fn attributes_that_fail_alone_are_discarded_and_reported_once() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&mode(0o600)));
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        assert_eq!(file.commit(Durability::Disk).await, Err(FsError::NoSpace));
        world.change_failures.lock().extend([(); 9].map(|()| (no_answer(), NotApplied)));
        let mut tries = 0;
        while file.is_dirty() {
            tries += 1;
            assert!(tries < 9, "they are never discarded");
            commit_in_background(&file).await;
        }
        assert_eq!(tries, 3);
        assert!(file.transfer.dirty.lock().is_empty());
        world.change_failures.lock().clear();
        assert!(file.has_unreported_error(&file.own_cursor));
        assert_eq!(file.commit(Durability::Memory).await, Err(no_answer()));
        assert!(!file.has_unreported_error(&file.own_cursor));
        assert_eq!(file.commit(Durability::Memory).await, Ok(None));
        assert_eq!(world.attr().mode, 0o644);
    });
}

#[test]
fn a_failed_change_of_attributes_does_not_lose_earlier_deferred_ones() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&mode(0o600)));
        world.change_failures.lock().push((no_answer(), NotApplied));
        let owner = SetAttr { uid: Some(5), ..SetAttr::default() };
        assert_eq!(file.set_attr(owner).await, Err(no_answer()));
        file.commit(Durability::Memory).await.unwrap();
        assert_eq!((world.attr().mode, world.attr().uid), (0o600, 0));
    });
}

/// A write replaces an mtime that was set before it, even if commits fail in between.
#[test]
fn a_later_write_replaces_a_deferred_mtime() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&SetAttr { mtime: Some(THEN), ..mode(0o600) }));
        world.change_failures.lock().push((no_answer(), NotApplied));
        commit_in_background(&file).await;
        write(&file, 0, &[2; 100]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        assert!(world.attr().mtime > THEN && world.attr().mode == 0o600);
        assert_eq!(world.commits.load(SeqCst), 2);
    });
}

/// Bug: the old upload script restarts a file with its own chunk size while a mount has uncommitted data of it; chunks
/// of the old size were committed into the restarted file.
#[test]
fn chunks_of_another_size_are_not_committed() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        for by_age in [false, true] {
            let file = world.open(&transfer);
            let chunk_bytes = file.state.lock().attr().chunk_bytes;
            write(&file, 0, &vec![1; 2 * chunk_bytes as usize + 100]).await.unwrap();
            let mut model = vec![9; 3000];
            world.restart(chunk_bytes - 96, &model);
            if by_age {
                commit_in_background(&file).await;
            }
            assert_eq!(file.commit(Durability::Memory).await, Err(FsError::Stale { ino: INO }));
            assert_eq!(file.commit(Durability::Memory).await, Ok(None));
            assert!(!file.is_dirty());
            assert_eq!(fresh_read(&world).await, model);
            // The handle continues with the restarted file.
            write(&file, 10, &[3; 9000]).await.unwrap();
            write_over(&mut model, 10, &[3; 9000]);
            file.commit(Durability::Memory).await.unwrap();
            assert_eq!(fresh_read(&world).await, model);
        }
    });
}

/// The mount's commit was applied, its answer was lost, and another mount overwrote the first chunk. Sent again, the
/// commit would bring the first version back, which is deleted by then.
#[test]
fn an_unanswered_commit_that_was_applied_is_not_sent_again() {
    run(async {
        let (world, file) = open_file(settings());
        let theirs = world.mount(settings());
        write(&file, 0, &[1; 8192]).await.unwrap();
        world.change_failures.lock().push((no_answer(), Applied));
        commit_in_background(&file).await;
        overwrite(&world.open(&theirs), 0).await;
        assert_eq!(file.commit(Durability::Memory).await, Ok(None));
        let mut model = vec![2; 4096];
        model.resize(8192, 1);
        assert!(fresh_read(&world).await == model);
        assert!(read(&file, 0, 8192).await == model);
        assert!(!file.is_dirty());
    });
}

#[test]
fn an_unanswered_commit_that_was_not_applied_is_sent_again() {
    run(async {
        let (world, file) = open_file(settings());
        let theirs = world.mount(settings());
        write(&file, 0, &[1; 8192]).await.unwrap();
        world.change_failures.lock().push((no_answer(), NotApplied));
        commit_in_background(&file).await;
        overwrite(&world.open(&theirs), 8192).await;
        file.commit(Durability::Memory).await.unwrap().unwrap();
        let mut model = vec![1; 8192];
        model.resize(3 * 4096, 2);
        assert!(fresh_read(&world).await == model);
    });
}

#[test]
fn an_unanswered_commit_with_unknown_outcome_is_reported_once() {
    run(async {
        let (world, file) = open_file(settings());
        let theirs = world.mount(settings());
        write(&file, 0, &[1; 4096]).await.unwrap();
        world.change_failures.lock().push((no_answer(), Applied));
        commit_in_background(&file).await;
        overwrite(&world.open(&theirs), 0).await;
        assert_eq!(file.commit(Durability::Memory).await, Err(no_answer()));
        assert_eq!(file.commit(Durability::Memory).await, Ok(None));
        assert!(read(&file, 0, 5000).await == [2; 4096]);
    });
}

/// Bug: a child process that had inherited a descriptor exited, or a reader did. The close failed, the writer's bytes
/// were discarded with it, and the writer's own fsync reported no error.
#[test]
fn a_failed_close_of_another_handle_does_not_discard_the_writers_data() {
    run(async {
        let (world, file) = open_file(settings());
        let (writer, other) = (file.error_cursor(), file.error_cursor());
        write(&file, 0, &[1; 8192]).await.unwrap();
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        assert_eq!(file.commit_for(CommitReason::Close(&other)).await, Err(FsError::NoSpace));
        *world.put_always_fails.lock() = None;
        assert_eq!(file.commit_for(CommitReason::Fsync(&writer)).await.unwrap().unwrap().size, 8192);
        assert!(fresh_read(&world).await == [1; 8192]);
    });
}

#[test]
fn every_handle_receives_the_error_of_discarded_data_once() {
    run(async {
        let (world, file) = open_file(settings());
        let (one, other) = (file.error_cursor(), file.error_cursor());
        write(&file, 0, &[1; 100]).await.unwrap();
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        while file.is_dirty() {
            commit_in_background(&file).await;
        }
        *world.put_always_fails.lock() = None;
        for _ in 0..2 {
            assert_eq!(
                file.commit_for(CommitReason::Close(&one)).await,
                Err(FsError::NoSpace),
                "every close reports it"
            );
        }
        let late = file.error_cursor();
        write(&file, 0, &[2; 100]).await.expect("all handles have received the error");
        assert_eq!(file.commit_for(CommitReason::Fsync(&late)).await.unwrap().unwrap().size, 100);
        for handle in [&one, &other] {
            assert_eq!(file.commit_for(CommitReason::Fsync(handle)).await, Err(FsError::NoSpace));
            assert_eq!(file.commit_for(CommitReason::Fsync(handle)).await, Ok(None));
        }
        assert!(fresh_read(&world).await == [2; 100]);
    });
}

#[test]
fn the_data_loss_callback_runs_when_data_is_discarded() {
    run(async {
        let (world, file) = open_file(settings());
        let reported = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let count = reported.clone();
        file.transfer.on_data_loss(move |ino| {
            count.fetch_add(ino.0, SeqCst);
        });
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        write(&file, 0, &[1; 100]).await.unwrap();
        file.commit(Durability::Disk).await.unwrap_err();
        assert_eq!(reported.load(SeqCst), INO.0);
        write(&file, 0, &[1; 100]).await.unwrap();
        while file.is_dirty() {
            commit_in_background(&file).await;
        }
        assert_eq!(reported.load(SeqCst), 2 * INO.0);
    });
}

/// Bug: a laptop slept for longer than its session was kept, and its dirty data was discarded at the first commit.
#[test]
fn an_expired_session_does_not_lose_data() {
    run(async {
        for (outcome, by_age) in [(NotApplied, false), (Applied, false), (NotApplied, true), (Applied, true)] {
            let (world, file) = open_file(settings());
            write(&file, 0, &[1; 8292]).await.unwrap();
            world.change_failures.lock().push((FsError::NoSession, outcome));
            if by_age {
                commit_in_background(&file).await;
            }
            file.commit(Durability::Memory).await.expect("the next session commits it, or finds it committed");
            assert!(fresh_read(&world).await == [1; 8292], "{outcome:?} {by_age}");
            assert!(!file.is_dirty());
        }
    });
}

/// Bug: a chunk with fsynced bytes was overwritten without fsync. At a power cut the new version was on no disk yet,
/// and the old one was deleted already.
#[test]
fn replacements_of_committed_chunks_are_on_disk_before_the_commit() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 10_000]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        assert!(!world.committed_durably(), "new chunks do not wait for disks");
        file.commit(Durability::Disk).await.unwrap();
        for (offset, data) in [(10_000, vec![2; 100]), (0, vec![3; 10]), (4096, vec![4; 4096])] {
            write(&file, offset, &data).await.unwrap();
            file.commit(Durability::Memory).await.unwrap();
            assert!(world.committed_durably(), "{} bytes at {offset}", data.len());
        }
        let truncate = Some(Truncate { size: 5000, tail: None });
        file.set_attr(SetAttr { truncate, ..SetAttr::default() }).await.unwrap();
        assert!(world.committed_durably());
    });
}

/// Bug: the reply to a commit arrived after another mount had replaced its chunk and this mount knew of that; readers
/// then got the old bytes again.
#[test]
fn a_late_reply_to_a_commit_does_not_bring_back_replaced_chunks() {
    run(async {
        let (world, file) = open_file(settings());
        let theirs = world.mount(settings());
        write(&file, 0, &[1; 4096]).await.unwrap();
        let held = world.hold_reply();
        let committing = tokio::spawn({
            let file = file.clone();
            async move { file.commit(Durability::Memory).await }
        });
        until("the commit", || world.attr().size == 4096 && world.held_reply.lock().is_none()).await;
        overwrite(&world.open(&theirs), 0).await;
        let (attr, extents, more) = world.page();
        file.refresh(&attr, extents, more);
        held.notify_one();
        committing.await.unwrap().unwrap();
        assert!(read(&file, 0, 4096).await == [2; 4096]);
    });
}

/// Bug: a reader fetched the file's state while a commit still waited for its answer. That state included the commit
/// and another mount's overwriting, so it seemed that nothing had been applied. The commit was sent again, and its
/// version, which was deleted by then, replaced the other mount's bytes.
#[test]
fn an_unanswered_commit_is_judged_by_the_state_that_it_was_sent_to() {
    run(async {
        let (world, file) = open_file(settings());
        let theirs = world.mount(settings());
        write(&file, 0, &[1; 4096]).await.unwrap();
        world.change_failures.lock().push((no_answer(), Applied));
        let held = world.hold_reply();
        let committing = tokio::spawn(file.clone().commit_in_background());
        until("the commit", || world.attr().size == 4096 && world.held_reply.lock().is_none()).await;
        overwrite(&world.open(&theirs), 0).await;
        let (attr, extents, more) = world.page();
        file.refresh(&attr, extents, more);
        held.notify_one();
        committing.await.unwrap();
        assert_eq!(file.commit(Durability::Memory).await, Err(no_answer()), "nothing shows whether it was applied");
        assert!(fresh_read(&world).await == [2; 4096]);
        assert!(read(&file, 0, 4096).await == [2; 4096]);
    });
}

/// Bug: the reply to a truncation arrived after another mount had written the file and this mount knew of that. The
/// file's extents were forgotten, so it read as zeros.
#[test]
fn a_late_reply_to_a_truncation_does_not_hide_what_was_written_since() {
    run(async {
        for outcome in [Ok(()), Err(no_answer())] {
            let (world, file) = open_file(settings());
            let theirs = world.mount(settings());
            write(&file, 0, &[1; 8192]).await.unwrap();
            file.commit(Durability::Memory).await.unwrap();
            let held = world.hold_reply();
            if let Err(error) = &outcome {
                world.change_failures.lock().push((error.clone(), Applied));
            }
            let truncating = tokio::spawn({
                let file = file.clone();
                let truncate = Some(Truncate { size: 0, tail: None });
                async move { file.set_attr(SetAttr { truncate, ..SetAttr::default() }).await.map(drop) }
            });
            until("the truncation", || world.attr().size == 0 && world.held_reply.lock().is_none()).await;
            overwrite(&world.open(&theirs), 0).await;
            if outcome.is_ok() {
                let (attr, extents, more) = world.page();
                file.refresh(&attr, extents, more);
            }
            held.notify_one();
            assert_eq!(truncating.await.unwrap(), outcome);
            assert!(read(&file, 0, 8192).await == [2; 4096], "{outcome:?}");
        }
    });
}

/// Bug: while a truncation to zero waited for its answer, reads returned the committed bytes below newer ones.
#[test]
fn bytes_are_read_until_the_truncation_that_discards_them_is_applied() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 4096]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        write(&file, 0, &[2; 4096]).await.unwrap();
        let held = world.hold_reply();
        let truncating = tokio::spawn({
            let file = file.clone();
            let truncate = Some(Truncate { size: 0, tail: None });
            async move { file.set_attr(SetAttr { truncate, ..SetAttr::default() }).await.map(drop) }
        });
        until("the truncation", || world.held_reply.lock().is_none()).await;
        assert!(file.try_read(0, 4096) == Some(vec![2; 4096]));
        held.notify_one();
        truncating.await.unwrap().unwrap();
        assert!(read(&file, 0, 4096).await.is_empty());
    });
}

/// Bug: `touch` or `truncate` by any program, during an outage, discarded what all other programs had written to the
/// file.
#[test]
fn a_failed_change_of_times_or_size_does_not_discard_the_writers_data() {
    run(async {
        let (world, file) = open_file(settings());
        let writer = file.error_cursor();
        write(&file, 0, &[1; 5000]).await.unwrap();
        world.change_failures.lock().extend([(); 2].map(|()| (no_answer(), NotApplied)));
        let truncate = Some(Truncate { size: 1 << 20, tail: None });
        assert_eq!(file.set_attr(SetAttr { truncate, ..SetAttr::default() }).await, Err(no_answer()));
        assert_eq!(file.commit(Durability::Memory).await, Err(no_answer()), "as before new times are set");
        assert_eq!(file.commit_for(CommitReason::Fsync(&writer)).await.unwrap().unwrap().size, 5000);
        assert!(fresh_read(&world).await == [1; 5000]);
    });
}

/// Bug: a commit also named chunks whose upload had completed after its sync. They replaced fsynced chunks, which were
/// deleted, and were on no disk yet.
#[test]
fn a_commit_names_only_what_its_sync_covered() {
    run(async {
        let (world, file) = open_file(chunk_by_chunk());
        // More extents than a page of answers has.
        for chunk in 0..8 {
            write(&file, chunk * 8192, &[1; 4096]).await.unwrap();
            file.commit(Durability::Disk).await.unwrap();
        }
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        write(&file, 7 * 8192, &[2; 100]).await.unwrap();
        world.answer_gate.forget_permits(Semaphore::MAX_PERMITS);
        let queries = world.queries.load(SeqCst);
        let committing = tokio::spawn({
            let file = file.clone();
            async move { file.commit(Durability::Memory).await }
        });
        until("the query for the base", || world.queries.load(SeqCst) > queries).await;
        write(&file, 0, &[3; 4096]).await.unwrap();
        until("the upload", || file.state.lock().is_stored(1)).await;
        world.answer_gate.add_permits(1000);
        committing.await.unwrap().unwrap();
        assert!(world.committed_durably());
        assert!(read(&file, 0, 4096).await == [3; 4096] && file.is_dirty());
        file.commit(Durability::Memory).await.unwrap();
        assert!(world.committed_durably() && fresh_read(&world).await[..4096] == [3; 4096]);
    });
}

/// Bug: chunks that waited so long for their commit that they were collected as garbage were committed again and again,
/// without a pause, until the data was discarded, although the mount still had it in memory.
#[test]
fn chunks_that_were_collected_before_their_commit_are_stored_again() {
    run(async {
        let (world, file) = open_file(chunk_by_chunk());
        write(&file, 0, &[1; 4 * 4096]).await.unwrap();
        until("the uploads", || (1..=4).all(|chunk| file.state.lock().is_stored(chunk))).await;
        world.collect_uncommitted();
        write(&file, 4 * 4096, &[1; 100]).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert!(fresh_read(&world).await == [1; 4 * 4096 + 100]);
        assert!(world.commits.load(SeqCst) <= 5, "{} commits", world.commits.load(SeqCst));
    });
}

#[test]
fn a_commit_pauses_between_conflicts() {
    run(async {
        let quick = TransferSettings { deadline: Duration::from_millis(300), ..settings() };
        let (world, file) = open_file(quick);
        world.always_conflicts.store(true, SeqCst);
        write(&file, 0, &[1; 100]).await.unwrap();
        assert_eq!(file.commit(Durability::Memory).await, Err(FsError::Conflict { index: 1 }));
        assert!(world.commits.load(SeqCst) < 20, "{} commits", world.commits.load(SeqCst));
    });
}

/// The readers that waited for the batch of a task that had panicked waited for ever.
#[test]
fn a_batch_whose_task_panics_fails_its_readers_and_is_fetched_again() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 4096]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        drop(file);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        world.get_panics.store(true, SeqCst);
        let outcome = tokio::time::timeout(Duration::from_secs(20), file.read(0, 4096)).await;
        assert!(matches!(outcome.expect("it waits for ever"), Err(FsError::Internal { .. })));
        assert!(file.read(0, 4096).await.unwrap() == vec![1; 4096]);
    });
}

/// A reader waited for the batch of another for as long as the requests of that one took.
#[test]
fn a_read_ends_with_its_operation_and_leaves_the_batch_to_later_readers() {
    run(async {
        let (world, file) = open_file(settings());
        write(&file, 0, &[1; 4096]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        let file = world.open(&world.mount(settings()));
        world.get_gate.forget_permits(Semaphore::MAX_PERMITS);
        let deadline = Duration::from_millis(100);
        let read = operation::run(deadline, deadline, || {}, file.read(0, 4096));
        let outcome = tokio::time::timeout(Duration::from_secs(20), read).await;
        assert!(matches!(outcome.expect("it waits for ever"), Err(FsError::NoReplica { .. })));
        world.get_gate.add_permits(1);
        assert!(file.read(0, 4096).await.unwrap() == vec![1; 4096]);
    });
}

/// Many uploads that failed in turn took a deadline each.
#[test]
fn an_upload_that_waits_for_others_ends_at_the_deadline() {
    const MIB: usize = 1 << 20;
    run(async {
        let quick = TransferSettings { deadline: Duration::from_millis(300), max_uploads: 8, ..settings() };
        let (world, file) = open_file(quick);
        world.put_gate.forget_permits(Semaphore::MAX_PERMITS);
        write(&file, 0, &vec![1; 32 * MIB]).await.unwrap();
        let others_end = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            world.put_gate.add_permits(1000);
        };
        let (outcome, ()) = tokio::join!(file.commit(Durability::Memory), others_end);
        let waited = |detail: &str| detail.contains("other uploads have not ended");
        assert!(matches!(&outcome, Err(FsError::NoReplica { detail }) if waited(detail)), "{outcome:?}");
    });
}

/// Bug: the sync of such a file reported the loss, and what had replaced the lost bytes was discarded.
#[test]
fn a_lost_chunk_that_was_written_again_is_no_loss() {
    run(async {
        for is_committed in [true, false] {
            let world = FakeRing::new(4096, 1);
            let transfer = world.mount(chunk_by_chunk());
            let file = world.open(&transfer);
            write(&file, 0, &[1; 4096]).await.unwrap();
            if is_committed {
                file.commit(Durability::Memory).await.unwrap();
            } else {
                until("the upload", || file.state.lock().is_stored(1)).await;
            }
            world.lost.lock().extend(world.chunks.lock().keys());
            write(&file, 0, &[2; 4096]).await.unwrap();
            write(&file, 4096, &[2; 100]).await.unwrap();
            file.commit(Durability::Disk).await.unwrap();
            assert!(fresh_read(&world).await == [2; 4196]);
        }
    });
}

#[test]
fn a_loss_of_what_is_to_be_committed_is_reported() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 4096]).await.unwrap();
        until("the upload", || file.state.lock().is_stored(1)).await;
        world.lost.lock().extend(world.chunks.lock().keys());
        assert!(matches!(file.commit(Durability::Disk).await, Err(FsError::Lost { .. })));
    });
}

/// Bug: data whose storing had taken all the time of its commit was discarded when another mount had changed the file
/// meanwhile.
#[test]
fn a_conflict_that_comes_when_the_time_is_up_is_resolved_once() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let slow = TransferSettings { deadline: std::time::Duration::ZERO, ..settings() };
        let (ours, theirs) = (world.mount(slow), world.mount(settings()));
        let other = world.open(&theirs);
        write(&other, 0, &[1; 4096]).await.unwrap();
        other.commit(Durability::Memory).await.unwrap();
        let file = world.open(&ours);
        read(&file, 0, 4096).await;
        overwrite(&other, 0).await;
        write(&file, 0, &[3; 100]).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert!(fresh_read(&world).await[..101] == [&[3; 100][..], &[2]].concat());
    });
}
