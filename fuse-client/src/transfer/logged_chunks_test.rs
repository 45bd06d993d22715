//! Chunks that go into the log with the commit of an `fsync`.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use chordfs_types::{chunk_api::Durability, fs_error::FsError};
use tokio::sync::Notify;

use super::{
    TransferSettings,
    fake_ring_test::{ChangeOutcome, FakeRing},
    transfer_test::{fresh_read, pattern, run, settings, truncate, write},
};

fn logging() -> TransferSettings {
    TransferSettings { log_bytes: 64 << 10, ..settings() }
}

#[test]
fn an_fsync_of_few_bytes_stores_nothing_on_the_nodes_and_is_durable() {
    run(async {
        let world = FakeRing::new(4096, 1);
        world.log_keeps.store(true, SeqCst);
        let file = world.open(&world.mount(logging()));
        let mut model = pattern(10_000, 1);
        write(&file, 0, &model).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert_eq!((world.puts.load(SeqCst), world.commits.load(SeqCst)), (0, 1));
        assert!(world.committed_durably());
        let part = pattern(100, 2);
        model[5000..5100].copy_from_slice(&part);
        write(&file, 5000, &part).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert_eq!((world.puts.load(SeqCst), world.logged.lock().len()), (0, 3), "a replaced chunk is kept no longer");
        assert_eq!(fresh_read(&world).await, model, "another mount finds them in the log");
        assert!(file.transfer.chunks.is_empty());
    });
}

#[test]
fn a_large_fsync_and_a_close_go_to_the_nodes() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let file = world.open(&world.mount(logging()));
        write(&file, 0, &pattern(24 * 4096, 1)).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        write(&file, 0, &pattern(5000, 2)).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        assert!(world.puts.load(SeqCst) >= 2);
        assert!(world.logged.lock().is_empty());
    });
}

#[test]
fn a_full_log_sends_the_data_to_the_nodes() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let file = world.open(&world.mount(logging()));
        world.log_is_full.store(true, SeqCst);
        let model = pattern(6000, 1);
        write(&file, 0, &model).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert_eq!((world.puts.load(SeqCst), world.commits.load(SeqCst)), (1, 2));
        assert!(world.committed_durably());
        write(&file, 0, &model).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert_eq!((world.puts.load(SeqCst), world.commits.load(SeqCst)), (3, 3), "the log is not asked again at once");
        assert_eq!(fresh_read(&world).await, model);
        assert!(file.transfer.chunks.is_empty());
    });
}

/// A commit without an answer that was applied, one that was not, and one that is refused: what is committed later
/// has its data all the same.
#[test]
fn a_repeated_commit_brings_its_data_again() {
    for (error, outcome) in [
        (FsError::NoQuorum { detail: "lost".into() }, ChangeOutcome::Applied),
        (FsError::NoSession, ChangeOutcome::NotApplied),
        (FsError::NoSession, ChangeOutcome::Applied),
        (FsError::Conflict { index: 1 }, ChangeOutcome::NotApplied),
    ] {
        run(async {
            let world = FakeRing::new(4096, 1);
            let file = world.open(&world.mount(logging()));
            let model = pattern(6000, 1);
            write(&file, 0, &model).await.unwrap();
            world.change_failures.lock().push((error.clone(), outcome));
            let synced = file.commit(Durability::Disk).await;
            // An fsync without an answer fails, and what it wrote is there or not, as for a local disk.
            assert_eq!(synced.is_err(), matches!(error, FsError::NoQuorum { .. }), "after {error}, {outcome:?}");
            if outcome == ChangeOutcome::Applied || synced.is_ok() {
                assert_eq!(fresh_read(&world).await, model, "after {error}, {outcome:?}");
            }
            file.transfer.flush_all().await.unwrap();
            assert!(file.transfer.chunks.is_empty(), "after {error}, {outcome:?}");
        });
    }
}

/// The tail of a truncation is no chunk of a commit, so it has to be stored.
#[test]
fn a_truncation_stores_its_tail_on_the_nodes() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let file = world.open(&world.mount(logging()));
        let model = pattern(6000, 1);
        write(&file, 0, &model).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        truncate(&file, 5000).await;
        assert_eq!(fresh_read(&world).await, model[..5000]);
        assert_eq!(world.puts.load(SeqCst), 1);
    });
}

/// What a commit was to bring is read from memory, also when the cache has dropped it.
#[test]
fn a_chunk_that_waits_for_its_commit_can_be_read() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let file = world.open(&world.mount(TransferSettings { cache_bytes: 4096, ..logging() }));
        let model = pattern(12_288, 1);
        write(&file, 0, &model).await.unwrap();
        let held = Arc::new(Notify::new());
        *world.held_change.lock() = Some(held.clone());
        let commit = tokio::spawn({
            let file = file.clone();
            async move { file.commit(Durability::Disk).await.map(drop) }
        });
        super::transfer_test::until("the commit is sent", || world.commits.load(SeqCst) == 1).await;
        assert!(world.logged.lock().is_empty() && world.chunks.lock().is_empty());
        assert_eq!(file.read(0, 12_288).await.unwrap(), model);
        held.notify_one();
        commit.await.unwrap().unwrap();
        assert_eq!(file.read(0, 12_288).await.unwrap(), model);
    });
}
