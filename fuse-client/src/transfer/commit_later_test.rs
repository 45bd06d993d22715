//! The places that closed files keep in the order of a mount's changes: when one is kept, for how long, and what comes
//! after it.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use chordfs_net::operation;
use chordfs_types::{chunk_api::Durability, fs_error::FsError, namespace::SetAttr};
use tokio::sync::Semaphore;

use super::{
    FileData,
    fake_ring_test::{ChangeOutcome::NotApplied, FakeOrder, FakeRing},
    transfer_test::{fresh_read, run, settings, until, write},
};

fn no_answer() -> FsError {
    FsError::NoQuorum { detail: "no leader".into() }
}

/// A file with bytes that are not committed, in a mount that keeps places.
async fn written_file() -> (Arc<FakeRing>, Arc<FakeOrder>, Arc<FileData>) {
    let world = FakeRing::new(4096, 1);
    let (transfer, order) = world.mount_with_places(settings());
    let file = world.open(&transfer);
    write(&file, 0, &[1; 100]).await.unwrap();
    (world, order, file)
}

/// A mount that woke from a long sleep gave a file's place in the order up, because the first attempt to commit it had
/// no time left: the file was renamed before it had its contents, and a crash would have left it so.
#[test]
fn a_commit_that_is_repeated_keeps_its_place() {
    run(async {
        for failures in [1, 9] {
            let (world, order, file) = written_file().await;
            assert!(file.reserve_commit());
            let renamed = order.take_place();
            world.change_failures.lock().extend((0..failures).map(|_| (no_answer(), NotApplied)));
            let committing = tokio::spawn({
                let file = file.clone();
                // The program's own time is over.
                operation::run(
                    Duration::ZERO,
                    Duration::ZERO,
                    || {},
                    async move { file.commit_later().await.map(drop) },
                )
            });
            until("the next attempt is awaited", || {
                world.commits.load(SeqCst) > 0 && file.commit_lock.try_lock().is_ok()
            })
            .await;
            assert!(!order.reaches(renamed));
            let outcome = committing.await.unwrap();
            assert!(order.reaches(renamed));
            match failures {
                1 => assert!(outcome.is_ok() && order.applied()[0] < renamed, "{:?}", order.applied()),
                _ => assert!(outcome.is_err() && order.applied().is_empty(), "the data was discarded"),
            }
        }
    });
}

/// A change of the mode gave the place up, too, if it came before the commit had begun.
#[test]
fn attributes_are_set_after_the_contents_that_have_a_place_before_them() {
    run(async {
        let (world, order, file) = written_file().await;
        assert!(file.reserve_commit());
        let renamed = order.take_place();
        file.set_attr(SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.unwrap();
        assert!(order.reaches(renamed) && order.applied()[0] < renamed, "{:?}", order.applied());
        assert_eq!(fresh_read(&world).await, [1; 100]);
    });
}

/// Programs are to be told of a failure by the next close, and not by one that comes much later.
#[test]
fn closes_wait_for_a_while_after_a_commit_has_failed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (world, _order, file) = written_file().await;
        world.change_failures.lock().push((no_answer(), NotApplied));
        assert_eq!(file.commit(Durability::Memory).await, Err(no_answer()));
        assert!(!file.reserve_commit(), "the close commits by itself");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!file.reserve_commit());
        file.commit(Durability::Memory).await.unwrap();
        write(&file, 0, &[2; 100]).await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(file.reserve_commit());
    });
}

/// What follows in the order would wait for long.
#[test]
fn a_close_with_much_in_memory_waits() {
    run(async {
        let world = FakeRing::new(4096, 1);
        world.put_gate.forget_permits(Semaphore::MAX_PERMITS);
        let (transfer, _order) = world.mount_with_places(settings());
        let file = world.open(&transfer);
        write(&file, 0, &vec![1; 3 << 20]).await.unwrap();
        assert!(file.reserve_commit());
        write(&file, 3 << 20, &vec![1; 2 << 20]).await.unwrap();
        assert!(!file.reserve_commit());
        world.put_gate.add_permits(Semaphore::MAX_PERMITS);
        file.commit(Durability::Memory).await.unwrap();
    });
}
