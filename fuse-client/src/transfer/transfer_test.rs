//! The guarantees of the data path about round trips, ceilings, errors and other mounts, one test each.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{SetAttr, Time, Truncate},
};

use super::{FileData, TransferSettings, fake_ring_test::FakeRing, model_test::write_over};

const MIB: u64 = 1 << 20;

pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

/// Chunks go to their holders first; `logged_chunks_test` is about those that do not.
pub(super) fn settings() -> TransferSettings {
    TransferSettings {
        log_bytes: 0,
        flush_age: Duration::from_secs(3600),
        deadline: Duration::from_secs(5),
        ..TransferSettings::default()
    }
}

pub(super) async fn turns(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) async fn write(file: &Arc<FileData>, offset: u64, data: &[u8]) -> Result<(), FsError> {
    match file.try_write(offset, data) {
        Some(outcome) => outcome,
        None => file.write(offset, data.to_vec()).await,
    }
}

pub(super) async fn truncate(file: &Arc<FileData>, size: u64) {
    let set = SetAttr { truncate: Some(Truncate { size, tail: None }), ..SetAttr::default() };
    file.set_attr(set).await.unwrap();
}

pub(super) async fn read(file: &Arc<FileData>, offset: u64, len: u32) -> Vec<u8> {
    match file.try_read(offset, len) {
        Some(bytes) => bytes,
        None => file.read(offset, len).await.unwrap(),
    }
}

/// Reads the whole file through a new mount.
pub(super) async fn fresh_read(world: &Arc<FakeRing>) -> Vec<u8> {
    let transfer = world.mount(settings());
    let file = world.open(&transfer);
    let size = world.attr().size as u32;
    file.read(0, size + 100).await.unwrap()
}

pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|at| ((at * 31 + seed * 17 + (at >> 8)) % 251 + 1) as u8).collect()
}

#[test]
fn a_large_file_is_written_and_read_in_few_batches() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        let data = pattern(MIB as usize, 3);
        for at in 0..32 {
            write(&file, at * MIB, &data).await.unwrap();
            turns(3).await;
        }
        assert!(world.puts.load(SeqCst) >= 4, "runs are uploaded while the program writes");
        assert!(file.commit(Durability::Memory).await.unwrap().unwrap().size == 32 * MIB);
        assert_eq!((world.put_chunks.load(SeqCst), world.commits.load(SeqCst)), (32 * 256, 1));
        assert!(world.puts.load(SeqCst) <= 9, "{} puts", world.puts.load(SeqCst));

        let cold = world.mount(settings());
        let file = world.open(&cold);
        for at in (0..32 * MIB).step_by(128 << 10) {
            let bytes = read(&file, at, 128 << 10).await;
            assert!(bytes[..] == data[(at % MIB) as usize..][..128 << 10], "at {at}");
        }
        assert_eq!(world.got_chunks.load(SeqCst), 32 * 256, "each chunk once");
        assert!(world.gets.load(SeqCst) <= 32, "{} gets for 32 MiB", world.gets.load(SeqCst));
    });
}

/// tar writes a file and then sets its times, owner and mode: the pending commit makes this one operation.
#[test]
fn attributes_set_after_a_write_go_with_its_commit() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        let time = |secs| Some(Time { secs, nanos: 7 });
        let set = SetAttr { mode: Some(0o640), uid: Some(8), mtime: time(5), ..SetAttr::default() };
        assert!(!file.defer(&set), "nothing is written, so no commit is due");
        write(&file, 0, &pattern(100, 1)).await.unwrap();
        assert!(file.defer(&set) && file.defer(&SetAttr { mode: Some(0o600), atime: time(6), ..SetAttr::default() }));
        let mut shown = world.attr();
        file.overlay(&mut shown);
        assert_eq!((shown.mode, shown.uid, shown.mtime, shown.atime), (0o600, 8, time(5).unwrap(), time(6).unwrap()));
        assert_ne!(world.attr().mode, 0o600);

        let attr = file.commit(Durability::Memory).await.unwrap().unwrap();
        assert_eq!((attr.mode, attr.uid, attr.mtime, attr.atime), (0o600, 8, time(5).unwrap(), time(6).unwrap()));
        assert_eq!((world.commits.load(SeqCst), file.is_dirty()), (1, false));

        write(&file, 0, &pattern(100, 2)).await.unwrap();
        assert!(file.defer(&set));
        write(&file, 50, &pattern(10, 3)).await.unwrap();
        let attr = file.commit(Durability::Memory).await.unwrap().unwrap();
        assert!(attr.mode == 0o640 && attr.mtime > time(5).unwrap(), "a later write has a later time");
    });
}

#[test]
fn a_sequential_reader_gets_read_ahead_and_a_random_one_fetches_only_its_chunks() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        for at in 0..64 {
            write(&file, at * MIB, &pattern(MIB as usize, at)).await.unwrap();
        }
        file.commit(Durability::Memory).await.unwrap();

        let cold = world.mount(settings());
        let file = world.open(&cold);
        for at in 0..8 {
            read(&file, at * (128 << 10), 128 << 10).await;
        }
        turns(100).await;
        assert!(world.got_chunks.load(SeqCst) >= 512, "{} chunks", world.got_chunks.load(SeqCst));
        assert!(file.try_read(MIB, 128 << 10).is_some(), "the next read need not wait");

        let cold = world.mount(settings());
        let file = world.open(&cold);
        let (gets, chunks) = (world.gets.load(SeqCst), world.got_chunks.load(SeqCst));
        for at in 0..200 {
            read(&file, (at * 7919 % 16384) * 4096, 4096).await;
        }
        turns(100).await;
        assert_eq!((world.gets.load(SeqCst) - gets, world.got_chunks.load(SeqCst) - chunks), (200, 200));
    });
}

#[test]
fn readers_of_one_chunk_share_one_fetch() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        write(&world.open(&transfer), 0, &pattern(4096, 1)).await.unwrap();
        transfer.flush_all().await.unwrap();
        world.disorder.store(20, SeqCst);
        let cold = world.mount(settings());
        let file = world.open(&cold);
        let reads = futures_util::future::join_all((0..16).map(|_| file.read(0, 4096))).await;
        assert!(reads.into_iter().all(|read| read.unwrap() == pattern(4096, 1)));
        assert_eq!(world.gets.load(SeqCst), 1);
    });
}

#[test]
fn a_short_file_needs_one_put_and_one_commit_and_an_append_fetches_nothing() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        let mut model = Vec::new();
        for step in 1..=3 {
            let data = pattern(1000, step);
            write(&file, model.len() as u64, &data).await.unwrap();
            let at = model.len() as u64;
            write_over(&mut model, at, &data);
            file.commit(Durability::Memory).await.unwrap();
            assert_eq!((world.puts.load(SeqCst), world.commits.load(SeqCst)), (step, step));
        }
        assert_eq!((world.gets.load(SeqCst), world.queries.load(SeqCst)), (0, 0));
        assert_eq!(fresh_read(&world).await, model);
    });
}

#[test]
fn fsync_makes_data_durable_that_an_earlier_close_committed() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        write(&world.open(&transfer), 0, &pattern(9000, 1)).await.unwrap();
        world.open(&transfer).commit(Durability::Memory).await.unwrap();
        assert!(!world.committed_durably());
        // The file was closed in between, so this is a new `FileData`.
        let file = world.open(&transfer);
        assert_eq!(file.commit(Durability::Disk).await.unwrap(), None);
        assert!(world.committed_durably());
        file.commit(Durability::Disk).await.unwrap();
        assert_eq!(world.syncs.load(SeqCst), 1, "nothing was left to sync");
        write(&file, 0, &[1; 100]).await.unwrap();
        file.commit(Durability::Disk).await.unwrap();
        assert!(world.committed_durably());
        assert_eq!(world.syncs.load(SeqCst), 1, "a durable put needs no sync");
    });
}

#[test]
fn an_open_file_is_committed_by_age() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(TransferSettings { flush_age: Duration::from_millis(40), ..settings() });
        let file = world.open(&transfer);
        write(&file, 0, &pattern(5000, 1)).await.unwrap();
        drop(file);
        until("the commit by age", || world.attr().size == 5000).await;
        until("the drop of the file", || transfer.files.lock().is_empty()).await;
    });
}

#[test]
fn an_error_of_a_background_commit_is_reported_once() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(TransferSettings { flush_age: Duration::from_millis(10), ..settings() });
        let file = world.open(&transfer);
        write(&file, 0, &pattern(5000, 1)).await.unwrap();
        file.commit(Durability::Memory).await.unwrap();
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        write(&file, 0, &pattern(8 * MIB as usize, 2)).await.unwrap();
        until("the data loss", || file.state.lock().errors.unreported().is_some()).await;
        assert_eq!(transfer.ceiling.held_bytes(), 0);
        *world.put_always_fails.lock() = None;
        assert_eq!(write(&file, 0, &[1]).await, Err(FsError::NoSpace));
        assert_eq!(file.commit(Durability::Memory).await, Err(FsError::NoSpace));
        assert_eq!(file.commit(Durability::Disk).await, Ok(None));
        assert_eq!(file.read(0, 10_000).await.unwrap(), pattern(5000, 1), "data committed before is kept");
        write(&file, 0, &[9; 10]).await.unwrap();
        assert_eq!(file.commit(Durability::Disk).await.unwrap().unwrap().size, 5000);
    });
}

#[test]
fn a_failed_fsync_discards_the_data_and_a_transient_failure_does_not() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        *world.put_always_fails.lock() = Some(FsError::NoSpace);
        write(&file, 0, &pattern(10_000, 1)).await.unwrap();
        assert_eq!(file.commit(Durability::Disk).await, Err(FsError::NoSpace));
        assert!(!file.is_dirty());
        *world.put_always_fails.lock() = None;
        assert_eq!(file.commit(Durability::Disk).await, Ok(None));

        world.put_failures.lock().push(FsError::NoReplica { detail: "a node died".into() });
        let data = pattern(5 * MIB as usize, 2);
        write(&file, 0, &data).await.unwrap();
        until("the failure of a background flush", || file.state.lock().failure().is_some()).await;
        file.commit(Durability::Disk).await.unwrap();
        assert!(fresh_read(&world).await == data);
    });
}

#[test]
fn writers_wait_at_the_ceiling_until_memory_is_free() {
    run(async {
        let world = FakeRing::new(4096, 1);
        world.put_gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
        let transfer = world.mount(TransferSettings { dirty_bytes: 8 * MIB, ..settings() });
        let file = world.open(&transfer);
        let data = pattern(MIB as usize, 1);
        let mut taken = 0;
        while let Some(outcome) = file.try_write(taken * MIB, &data) {
            outcome.unwrap();
            taken += 1;
        }
        assert!((6..=8).contains(&taken), "{taken} MiB were accepted");
        let waiting = tokio::spawn({
            let (file, data) = (file.clone(), data.clone());
            async move {
                for at in taken..taken + 40 {
                    file.write(at * MIB, data.clone()).await?;
                }
                Ok::<(), FsError>(())
            }
        });
        turns(200).await;
        assert!(!waiting.is_finished());
        assert!(transfer.ceiling.held_bytes() <= 8 * MIB);
        world.put_gate.add_permits(1000);
        waiting.await.unwrap().unwrap();
        file.commit(Durability::Memory).await.unwrap();
        assert_eq!(world.attr().size, (taken + 40) * MIB);
        assert_eq!(transfer.ceiling.held_bytes(), 0);
    });
}

/// There is no whole chunk, so only commits can free memory.
#[test]
fn small_writes_at_the_ceiling_are_freed_by_commits() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(TransferSettings { dirty_bytes: 64 << 10, ..settings() });
        let file = world.open(&transfer);
        let mut model = Vec::new();
        for at in 0..600u64 {
            let data = pattern(100, at);
            write(&file, at * 5000, &data).await.unwrap();
            write_over(&mut model, at * 5000, &data);
        }
        file.commit(Durability::Memory).await.unwrap();
        assert!(fresh_read(&world).await == model);
    });
}

#[test]
fn a_writer_at_the_ceiling_fails_if_no_memory_becomes_free() {
    run(async {
        let world = FakeRing::new(4096, 1);
        world.put_gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
        let quick = TransferSettings { dirty_bytes: MIB, deadline: Duration::from_millis(50), ..settings() };
        let transfer = world.mount(quick);
        let file = world.open(&transfer);
        write(&file, 0, &pattern(MIB as usize, 1)).await.unwrap();
        assert!(matches!(file.write(MIB, vec![1; 4096]).await, Err(FsError::NoReplica { .. })));
    });
}

#[test]
fn times_set_after_a_write_survive_its_commit() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        let then = Time { secs: 1_000_000, nanos: 5 };
        write(&file, 0, &pattern(5000, 1)).await.unwrap();
        let mut attr = world.attr();
        file.overlay(&mut attr);
        assert!(attr.mtime > then && attr.size == 5000);
        file.set_attr(SetAttr { mtime: Some(then), ..SetAttr::default() }).await.unwrap();
        assert_eq!(world.puts.load(SeqCst), 0, "setting times flushes nothing");
        file.overlay(&mut attr);
        assert_eq!(attr.mtime, then);
        file.commit(Durability::Memory).await.unwrap();
        assert_eq!((world.attr().mtime, world.attr().size), (then, 5000));
    });
}

/// Bytes cut off by a truncation must not reappear when the file grows again.
#[test]
fn bytes_cut_off_by_a_truncation_do_not_reappear() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        write(&file, 0, &[7; 10_000]).await.unwrap();
        truncate(&file, 5000).await;
        truncate(&file, 9000).await;
        let mut expected = vec![7; 5000];
        expected.resize(9000, 0);
        assert_eq!(read(&file, 0, 20_000).await, expected);
        assert_eq!(fresh_read(&world).await, expected);
    });
}

#[test]
fn data_of_another_mount_is_visible_after_the_feed_reports_it() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        let (our_file, their_file) = (world.open(&ours), world.open(&theirs));
        write(&their_file, 0, &pattern(6000, 1)).await.unwrap();
        their_file.commit(Durability::Memory).await.unwrap();
        assert!(read(&our_file, 0, 10_000).await.is_empty());
        our_file.invalidate();
        assert_eq!(read(&our_file, 0, 10_000).await, pattern(6000, 1));
        // Uncommitted bytes stay on top, and the old version, which is deleted by then, is not fetched twice.
        write(&our_file, 10, &[255; 10]).await.unwrap();
        write(&their_file, 0, &pattern(6000, 2)).await.unwrap();
        their_file.commit(Durability::Memory).await.unwrap();
        our_file.invalidate();
        let mut expected = pattern(6000, 2);
        expected[10..20].fill(255);
        assert_eq!(read(&our_file, 0, 10_000).await, expected);
        our_file.commit(Durability::Memory).await.unwrap();
        assert_eq!(fresh_read(&world).await, expected);
    });
}

/// Bug: an answer from between another mount's commit and one of this mount was ignored, but still ended the stale
/// state. The file's old bytes were read from then on.
#[test]
fn an_answer_overtaken_by_a_commit_of_this_mount_is_fetched_again() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        let (our_file, their_file) = (world.open(&ours), world.open(&theirs));
        let mut model = pattern(3 * 4096, 1);
        write(&our_file, 0, &model).await.unwrap();
        our_file.commit(Durability::Memory).await.unwrap();
        write(&their_file, 0, &[2; 4096]).await.unwrap();
        their_file.commit(Durability::Memory).await.unwrap();
        our_file.invalidate();
        world.answer_gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
        let queries = world.queries.load(SeqCst);
        let reading = tokio::spawn({
            let file = our_file.clone();
            async move { file.read(0, 3 * 4096).await }
        });
        until("the query", || world.queries.load(SeqCst) > queries).await;
        write(&our_file, 4096, &[3; 4096]).await.unwrap();
        our_file.commit(Durability::Memory).await.unwrap();
        world.answer_gate.add_permits(1000);
        model[..4096].fill(2);
        model[4096..8192].fill(3);
        assert!(reading.await.unwrap().unwrap() == model);
        assert!(read(&our_file, 0, 3 * 4096).await == model);
    });
}

#[test]
fn truncation_of_a_file_grown_by_another_mount_cuts_the_right_chunk() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        let (our_file, their_file) = (world.open(&ours), world.open(&theirs));
        write(&their_file, 0, &pattern(10_000, 1)).await.unwrap();
        their_file.commit(Durability::Memory).await.unwrap();
        truncate(&our_file, 5000).await;
        truncate(&our_file, 7000).await;
        let mut expected = pattern(10_000, 1)[..5000].to_vec();
        expected.resize(7000, 0);
        assert_eq!(fresh_read(&world).await, expected);
        assert_eq!(our_file.read(0, 10_000).await.unwrap(), expected);
    });
}

#[test]
fn extents_that_name_a_purged_version_are_fetched_again() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let (ours, theirs) = (world.mount(settings()), world.mount(settings()));
        write(&world.open(&theirs), 0, &pattern(6000, 1)).await.unwrap();
        theirs.flush_all().await.unwrap();
        let our_file = world.open(&ours);
        write(&world.open(&theirs), 0, &pattern(6000, 2)).await.unwrap();
        theirs.flush_all().await.unwrap();
        // The feed has not reported the commit yet, and the chunks of the known extents are deleted.
        assert_eq!(our_file.read(0, 10_000).await.unwrap(), pattern(6000, 2));
        world.chunks.lock().clear();
        let cold = world.mount(settings());
        assert!(matches!(world.open(&cold).read(0, 10).await, Err(FsError::NoReplica { .. })));
    });
}

#[test]
fn writes_and_truncations_beyond_the_largest_size_fail() {
    run(async {
        let world = FakeRing::new(4096, 1);
        let transfer = world.mount(settings());
        let file = world.open(&transfer);
        let end = u64::from(u32::MAX) * 4096;
        assert_eq!(write(&file, end, &[1]).await, Err(FsError::FileTooLarge));
        let beyond = SetAttr { truncate: Some(Truncate { size: u64::MAX, tail: None }), ..SetAttr::default() };
        assert_eq!(file.set_attr(beyond).await, Err(FsError::FileTooLarge));
        assert_eq!(write(&file, u64::MAX, &[1, 2]).await, Err(FsError::FileTooLarge));
        write(&file, end - 1, &[1]).await.unwrap();
        assert_eq!(file.commit(Durability::Memory).await.unwrap().unwrap().size, end);
        assert_eq!(read(&file, end - 2, 10).await, [0, 1]);
        assert!(read(&file, u64::MAX, 10).await.is_empty());
    });
}

/// Several threads write and read their own parts of one file, with constant commits and cache evictions.
///
/// This test found two bugs, each in one run of thirty. A reader re-fetched the extents while another was about to use
/// them, and chunks not known yet were read as holes. And a batch that failed because one of its chunks had been
/// deleted legitimately failed a commit that waited for another chunk of the batch.
#[test]
fn concurrent_threads_see_their_own_bytes() {
    (1..=8).for_each(check_concurrent_threads);
}

fn check_concurrent_threads(seed: u64) {
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let world = FakeRing::new(4000, seed);
        world.disorder.store(4, SeqCst);
        let small = TransferSettings {
            cache_bytes: MIB,
            dirty_bytes: MIB,
            flush_run_bytes: 64 << 10,
            flush_age: Duration::from_millis(5),
            ..settings()
        };
        let transfer = world.mount(small);
        let file = world.open(&transfer);
        let part = 600_001;
        let threads = (0..4u64).map(|thread| {
            let file = file.clone();
            tokio::spawn(async move {
                let mut model = vec![0; part as usize];
                for step in 0..300u64 {
                    let offset = step * 7919 * 31 % (part - 9000);
                    let data = pattern(1 + (step * 997 % 9000) as usize, step + thread);
                    write(&file, thread * part + offset, &data).await.unwrap();
                    model[offset as usize..][..data.len()].copy_from_slice(&data);
                    let from = step * 104_729 % (part - 20_000);
                    let found = read(&file, thread * part + from, 20_000).await;
                    let expected = &model[from as usize..][..20_000];
                    assert!(found == expected[..found.len()], "thread {thread}, step {step}");
                    assert!(expected[found.len()..].iter().all(|byte| *byte == 0));
                    if step % 50 == thread {
                        file.commit((step % 100 == thread).into()).await.unwrap();
                    }
                }
                model
            })
        });
        let models = futures_util::future::join_all(threads).await;
        let mut expected: Vec<u8> = models.into_iter().flat_map(Result::unwrap).collect();
        file.commit(Durability::Disk).await.unwrap();
        expected.truncate(world.attr().size as usize);
        assert!(fresh_read(&world).await == expected);
        assert_eq!(transfer.ceiling.held_bytes(), 0);
    });
}
