//! Chunks that were stored and that no commit names: they are reported and deleted, and after ENOSPC only those that
//! had to be given up.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use chordfs_types::{chunk_api::Durability, fs_error::FsError};

use super::{
    CommitReason, FileData, TransferSettings,
    failure_test::open_file,
    fake_ring_test::FakeRing,
    transfer_test::{fresh_read, run, settings, truncate, until, write},
};

/// One chunk per upload.
fn chunk_by_chunk() -> TransferSettings {
    TransferSettings { flush_run_bytes: 4096, max_uploads: 1, ..settings() }
}

async fn store(file: &Arc<FileData>, chunks: std::ops::Range<u64>, byte: u8) {
    for chunk in chunks {
        let uploads = file.state.lock().uploads_started();
        write(file, chunk * 4096, &[byte; 4096]).await.unwrap();
        until("the upload", || {
            let state = file.state.lock();
            state.uploads_started() > uploads && state.upload_count() == 0
        })
        .await;
    }
}

/// Bug: 30 s of rewriting 4 KiB blocks left a quarter of a million chunks on each node, for an hour and more.
#[test]
fn chunks_that_were_written_again_before_their_commit_are_deleted() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        for byte in 1..=5 {
            store(&file, 0..4, byte).await;
        }
        write(&file, 100, &[6; 100]).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        assert_eq!(world.orphans(), 4 * 4 + 1);
        transfer.flush_all().await.unwrap();
        assert_eq!(world.orphans(), 0);
        let mut expected = vec![5; 4 * 4096];
        expected[100..200].fill(6);
        assert!(fresh_read(&world).await == expected);
    });
}

/// Bug: two commits had failed because the ring was full, and a truncation then removed the data. The next data was
/// discarded after its first failed commit instead of its third, although a close keeps it.
#[test]
fn failed_commits_of_data_that_is_gone_do_not_count_against_new_data() {
    run(async {
        let (world, file) = open_file(settings());
        let writer = file.error_cursor();
        write(&file, 0, &[1; 8192]).await.unwrap();
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        for _ in 0..2 {
            assert_eq!(file.commit_for(CommitReason::Close(&writer)).await, Err(FsError::NoSpace));
        }
        truncate(&file, 0).await;
        assert!(!file.is_dirty());
        write(&file, 0, &[2; 8192]).await.unwrap();
        assert_eq!(file.commit_for(CommitReason::Close(&writer)).await, Err(FsError::NoSpace));
        assert!(file.is_dirty(), "it is kept for the next attempt");
        *world.put_always_fails.lock() = None;
        assert_eq!(file.commit_for(CommitReason::Close(&writer)).await.unwrap().unwrap().size, 8192);
        assert!(fresh_read(&world).await == [2; 8192]);
    });
}

#[test]
fn chunks_that_a_truncation_cuts_off_before_their_commit_are_deleted() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        store(&file, 0..4, 1).await;
        truncate(&file, 0).await;
        transfer.flush_all().await.unwrap();
        assert_eq!((world.orphans(), world.chunks.lock().len()), (0, 0));
    });
}

/// Bug: a file of which hundreds of megabytes were stored ended with size 0, and the ring stayed full after it was
/// removed.
#[test]
fn what_fits_is_kept_when_the_ring_is_full() {
    run(async {
        for durability in [Durability::Disk, Durability::Memory] {
            let world = FakeRing::new(4096, 1);
            let transfer = world.mount(chunk_by_chunk());
            let file = world.open(&transfer);
            store(&file, 0..4, 1).await;
            *world.put_always_fails.lock() = Some(FsError::NoSpace);
            write(&file, 4 * 4096, &[1; 2 * 4096 + 100]).await.unwrap();
            assert_eq!(file.commit(durability).await, Err(FsError::NoSpace));
            assert!(fresh_read(&world).await == [1; 4 * 4096], "{durability:?}");
            while file.is_dirty() {
                file.clone().commit_in_background().await;
            }
            assert_eq!(world.attr().size, 4 * 4096);
            transfer.flush_all().await.ok();
            assert_eq!(world.orphans(), 0);
        }
    });
}

#[test]
fn what_is_given_up_is_deleted() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        store(&file, 0..4, 1).await;
        let stale = FsError::Invalid { reason: "refused".into() };
        world.change_failures.lock().push((stale.clone(), super::fake_ring_test::ChangeOutcome::NotApplied));
        assert_eq!(file.commit(Durability::Disk).await, Err(stale));
        assert_eq!(world.orphans(), 4);
        transfer.flush_all().await.unwrap();
        assert_eq!((world.orphans(), world.commits.load(SeqCst)), (0, 2));
    });
}
