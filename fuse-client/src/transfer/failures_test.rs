//! What of a failed commit stays, and what is given up: data of other programs, attributes that were answered, and
//! commits of which nobody knows whether they were carried out.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use common::{
    fs_error::FsError,
    namespace::{SetAttr, Time},
};

use super::{
    FileData, TransferSettings,
    fake::{INO, World},
    model_test::lay,
    tests::{fresh_read, read, run, settings, until, write},
};

const THEN: Time = Time { secs: 1_000_000, nanos: 5 };

fn no_answer() -> FsError {
    FsError::NoQuorum { detail: "no leader".into() }
}

fn mode(mode: u16) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

/// One chunk a flight.
fn chunk_by_chunk() -> TransferSettings {
    TransferSettings { flush_run_bytes: 4096, flushes_in_flight: 1, ..settings() }
}

async fn overwrite(file: &Arc<FileData>, offset: u64) {
    write(file, offset, &[2; 4096]).await.unwrap();
    file.commit(false).await.unwrap();
}

async fn in_background(file: &Arc<FileData>) {
    file.clone().commit_in_background().await;
}

/// A commit that failed took along what another program had written since it began, and told only its own program.
#[test]
fn what_landed_since_a_failed_commit_began_stays() {
    run(async {
        let world = World::new(4096, 1);
        world.put_gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
        let transfer = world.mount(chunk_by_chunk());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 4096]).await.unwrap();
        write(&file, 4096, &[1; 100]).await.unwrap();
        let committing = tokio::spawn({
            let file = file.clone();
            async move { file.commit(false).await }
        });
        until("the seal", || file.state.lock().committing).await;
        write(&file, 8192, &[2; 4096]).await.unwrap();
        // The first chunk, the second program's, and then the partly written one, which fails.
        world.put_gate.add_permits(1);
        until("the second flight", || file.state.lock().next_flight == 2).await;
        world.change_failures.lock().push((FsError::NoSpace, false));
        world.put_gate.add_permits(1);
        until("the second flight's landing", || file.state.lock().stored.get(3).is_some()).await;
        world.put_gate.add_permits(1000);
        assert_eq!(committing.await.unwrap(), Err(FsError::NoSpace));
        assert_eq!(file.commit(false).await.unwrap().unwrap().size, 3 * 4096);
        let mut model = vec![0; 8192];
        model.resize(3 * 4096, 2);
        assert!(fresh_read(&world).await == model);
    });
}

#[test]
fn attributes_outlive_the_data_that_they_were_to_go_with() {
    run(async {
        let world = World::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&SetAttr { mtime: Some(THEN), ..mode(0o600) }));
        world.put_failures.lock().push(FsError::NoSpace);
        assert_eq!(file.commit(false).await, Err(FsError::NoSpace));
        let mut attr = world.attr();
        file.overlay(&mut attr);
        assert_eq!((attr.mode, attr.mtime, attr.size), (0o600, THEN, 0), "the data is gone, the rest is not");
        in_background(&file).await;
        assert_eq!((world.attr().mode, world.attr().mtime, world.attr().size), (0o600, THEN, 0));
        assert!(!file.is_dirty() && transfer.dirty.lock().is_empty());
        assert_eq!(file.commit(false).await, Ok(None));
    });
}

#[test]
fn unmounting_sends_the_attributes_of_data_that_was_given_up() {
    run(async {
        let world = World::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&mode(0o600)));
        world.put_failures.lock().push(FsError::NoSpace);
        assert_eq!(transfer.flush_all().await, Err(FsError::NoSpace));
        assert_eq!(world.attr().mode, 0o600);
    });
}

#[test]
fn attributes_that_never_get_through_are_given_up_and_told_once() {
    run(async {
        let world = World::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&mode(0o600)));
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        assert_eq!(file.commit(false).await, Err(FsError::NoSpace));
        world.change_failures.lock().extend([(); 9].map(|()| (no_answer(), false)));
        let mut tries = 0;
        while file.is_dirty() {
            tries += 1;
            assert!(tries < 9, "there is no end");
            in_background(&file).await;
        }
        assert_eq!(tries, 3);
        assert!(transfer.dirty.lock().is_empty());
        world.change_failures.lock().clear();
        assert!(file.owes_error());
        assert_eq!(file.commit(false).await, Err(no_answer()));
        assert!(!file.owes_error());
        assert_eq!(file.commit(false).await, Ok(None));
        assert_eq!(world.attr().mode, 0o644);
    });
}

#[test]
fn a_failed_change_of_attributes_loses_no_earlier_one() {
    run(async {
        let world = World::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&mode(0o600)));
        world.change_failures.lock().push((no_answer(), false));
        let owner = SetAttr { uid: Some(5), ..SetAttr::default() };
        assert_eq!(file.set_attr(owner).await, Err(no_answer()));
        file.commit(false).await.unwrap();
        assert_eq!((world.attr().mode, world.attr().uid), (0o600, 0));
    });
}

/// An mtime that was set and then written over is not the file's, whatever commits fail in between.
#[test]
fn a_later_write_replaces_a_deferred_mtime() {
    run(async {
        let world = World::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        write(&file, 0, &[1; 100]).await.unwrap();
        assert!(file.defer(&SetAttr { mtime: Some(THEN), ..mode(0o600) }));
        world.change_failures.lock().push((no_answer(), false));
        in_background(&file).await;
        write(&file, 0, &[2; 100]).await.unwrap();
        file.commit(false).await.unwrap();
        assert!(world.attr().mtime > THEN && world.attr().mode == 0o600);
        assert_eq!(world.commits.load(SeqCst), 2);
    });
}

/// The old upload script starts a file anew, in chunks of its own size, while a mount has written and not committed it:
/// chunks of the old size ended up in a file of the new one.
#[test]
fn chunks_of_another_size_are_not_committed() {
    run(async {
        let world = World::new(4096, 1);
        let transfer = world.mount(settings());
        for by_age in [false, true] {
            let file = world.open(&transfer);
            let chunk_bytes = file.state.lock().attr.chunk_bytes;
            write(&file, 0, &vec![1; 2 * chunk_bytes as usize + 100]).await.unwrap();
            let mut model = vec![9; 3000];
            world.restart(chunk_bytes - 96, &model);
            if by_age {
                in_background(&file).await;
            }
            assert_eq!(file.commit(false).await, Err(FsError::Stale { ino: INO }));
            assert_eq!(file.commit(false).await, Ok(None));
            assert!(!file.is_dirty());
            assert_eq!(fresh_read(&world).await, model);
            // The same handle goes on with the file as it is now.
            write(&file, 10, &[3; 9000]).await.unwrap();
            lay(&mut model, 10, &[3; 9000]);
            file.commit(false).await.unwrap();
            assert_eq!(fresh_read(&world).await, model);
        }
    });
}

/// The mount's commit was carried out, nobody heard of it, and another mount wrote the first chunk anew: sent again, the
/// commit would have brought the first version back, which is deleted by then.
#[test]
fn an_unanswered_commit_that_was_carried_out_is_not_sent_again() {
    run(async {
        let world = World::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        let file = world.open(&ours);
        write(&file, 0, &[1; 8192]).await.unwrap();
        world.change_failures.lock().push((no_answer(), true));
        in_background(&file).await;
        overwrite(&world.open(&theirs), 0).await;
        assert_eq!(file.commit(false).await, Ok(None));
        let mut model = vec![2; 4096];
        model.resize(8192, 1);
        assert!(fresh_read(&world).await == model);
        assert!(read(&file, 0, 8192).await == model);
        assert!(!file.is_dirty());
    });
}

#[test]
fn an_unanswered_commit_that_was_not_carried_out_is_sent_again() {
    run(async {
        let world = World::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        let file = world.open(&ours);
        write(&file, 0, &[1; 8192]).await.unwrap();
        world.change_failures.lock().push((no_answer(), false));
        in_background(&file).await;
        overwrite(&world.open(&theirs), 8192).await;
        file.commit(false).await.unwrap().unwrap();
        let mut model = vec![1; 8192];
        model.resize(3 * 4096, 2);
        assert!(fresh_read(&world).await == model);
    });
}

#[test]
fn an_unanswered_commit_whose_fate_nothing_shows_is_told_once() {
    run(async {
        let world = World::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        let file = world.open(&ours);
        write(&file, 0, &[1; 4096]).await.unwrap();
        world.change_failures.lock().push((no_answer(), true));
        in_background(&file).await;
        overwrite(&world.open(&theirs), 0).await;
        assert_eq!(file.commit(false).await, Err(no_answer()));
        assert_eq!(file.commit(false).await, Ok(None));
        assert!(read(&file, 0, 5000).await == [2; 4096]);
    });
}
