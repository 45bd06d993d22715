//! Random operations compared with a plain vector of bytes: by one mount, and by two in the same chunks. All randomness
//! comes from the seed, so a failure can be reproduced.

use chordfs_types::chunk_api::Durability;
use std::sync::{Arc, atomic::Ordering::SeqCst};

use proptest::prelude::*;

use super::{
    FileData, Transfer, TransferSettings,
    fake_ring_test::FakeRing,
    transfer_test::{fresh_read, pattern, read, run, settings, truncate, turns, write},
};

/// Limits so small that uploads start often, the cache evicts, and writers wait.
fn tiny(chunk_bytes: u32, log_chunks: usize) -> TransferSettings {
    let chunk = u64::from(chunk_bytes);
    TransferSettings {
        log_bytes: log_chunks * chunk_bytes as usize,
        cache_bytes: 40 * (chunk + 128),
        dirty_bytes: 12 * chunk + 4096,
        flush_run_bytes: 3 * chunk,
        max_uploads: 3,
        read_ahead_bytes: 8 * chunk,
        ..settings()
    }
}

/// Offsets and lengths are multiples of 1/16 of a chunk, plus `nudge` bytes.
#[derive(Clone, Debug)]
enum Op {
    Write { offset: u64, len: u64, nudge: u64 },
    Append { len: u64 },
    Read { offset: u64, len: u64 },
    Truncate { size: u64, nudge: u64 },
    Commit { durable: bool },
    StartCommit,
    Turns(u64),
    Reopen,
    Remount,
    Invalidate,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..160u64, 1..64u64, 0..3u64).prop_map(|(offset, len, nudge)| Op::Write { offset, len, nudge }),
        3 => (1..80u64).prop_map(|len| Op::Append { len }),
        4 => (0..200u64, 1..100u64).prop_map(|(offset, len)| Op::Read { offset, len }),
        2 => (0..180u64, 0..3u64).prop_map(|(size, nudge)| Op::Truncate { size, nudge }),
        1 => any::<bool>().prop_map(|durable| Op::Commit { durable }),
        2 => Just(Op::StartCommit),
        2 => (0..40u64).prop_map(Op::Turns),
        1 => Just(Op::Reopen),
        1 => Just(Op::Remount),
        1 => Just(Op::Invalidate),
    ]
}

struct Player {
    world: Arc<FakeRing>,
    transfer: Arc<Transfer>,
    file: Arc<FileData>,
    model: Vec<u8>,
    unit: u64,
    chunk_bytes: u32,
    log_chunks: usize,
    writes: u64,
}

impl Player {
    async fn play(&mut self, op: Op) {
        match op {
            Op::Write { offset, len, nudge } => self.write(offset * self.unit + nudge, len * self.unit + nudge).await,
            Op::Append { len } => self.write(self.model.len() as u64, len * self.unit).await,
            Op::Read { offset, len } => self.check(offset * self.unit, len * self.unit).await,
            Op::Truncate { size, nudge } => {
                let size = size * self.unit + nudge;
                truncate(&self.file, size).await;
                self.model.resize(size as usize, 0);
            }
            Op::Commit { durable } => {
                self.file.commit(durable.into()).await.unwrap();
                assert!(!self.file.is_dirty());
                assert!(!durable || self.world.committed_durably());
            }
            Op::StartCommit => {
                let file = self.file.clone();
                tokio::spawn(async move { file.commit(Durability::Memory).await.unwrap() });
            }
            Op::Turns(count) => turns(count).await,
            Op::Reopen => {
                self.file.commit(Durability::Memory).await.unwrap();
                self.file = self.world.open(&self.transfer);
            }
            Op::Remount => {
                self.file.commit(Durability::Disk).await.unwrap();
                self.transfer.flush_all().await.unwrap();
                self.transfer = self.world.mount(tiny(self.chunk_bytes, self.log_chunks));
                self.file = self.world.open(&self.transfer);
            }
            Op::Invalidate => self.file.invalidate(),
        }
        let mut attr = self.world.attr();
        self.file.overlay(&mut attr);
        assert_eq!(attr.size, self.model.len() as u64);
    }

    async fn write(&mut self, offset: u64, len: u64) {
        if offset > 300 * self.unit {
            return;
        }
        self.writes += 1;
        let data = pattern(len as usize, self.writes);
        write(&self.file, offset, &data).await.unwrap();
        write_over(&mut self.model, offset, &data);
    }

    async fn check(&self, offset: u64, len: u64) {
        let end = (offset + len).min(self.model.len() as u64);
        let expected = &self.model[offset.min(end) as usize..end as usize];
        assert_eq!(read(&self.file, offset, len as u32).await, expected, "{len} bytes at {offset}");
    }
}

pub(super) fn write_over(model: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    model.resize(model.len().max(end), 0);
    model[offset as usize..end].copy_from_slice(data);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_mount_agrees_with_a_vector_of_bytes(
        chunk_bytes in prop::sample::select(vec![16u32, 100, 4000, 4096]),
        log_chunks in prop::sample::select(vec![0usize, 2, 5]),
        seed in any::<u64>(),
        disorder in 0..12u64,
        ops in prop::collection::vec(op(), 1..50),
    ) {
        run(async {
            let world = FakeRing::new(chunk_bytes, seed);
            world.disorder.store(disorder, SeqCst);
            let transfer = world.mount(tiny(chunk_bytes, log_chunks));
            let file = world.open(&transfer);
            let unit = u64::from(chunk_bytes) / 16;
            let (world_of_player, model) = (world.clone(), Vec::new());
            let mut player =
                Player { world: world_of_player, transfer, file, model, unit, chunk_bytes, log_chunks, writes: 0 };
            for op in ops {
                player.play(op).await;
            }
            player.check(0, player.model.len() as u64 + 10).await;
            player.file.commit(Durability::Disk).await.unwrap();
            assert_eq!(fresh_read(&world).await, player.model);
            assert_eq!(player.transfer.ceiling.held_bytes(), 0);
            assert!(player.transfer.dirty.lock().is_empty());
            player.transfer.flush_all().await.unwrap();
            assert_eq!(world.orphans(), 0, "chunks that no commit has named");
            assert!(player.transfer.chunks.is_empty(), "chunks are kept for a commit that will not come");
        });
    }

    /// Each mount writes its own cells of the same chunks, at the same time.
    #[test]
    fn two_mounts_that_write_the_same_chunks_lose_no_bytes(
        chunk_bytes in prop::sample::select(vec![32u32, 100, 4096]),
        log_chunks in prop::sample::select(vec![0usize, 4]),
        seed in any::<u64>(),
        ops in prop::collection::vec((0..2usize, 0..60u64, 0..4u8), 1..60),
    ) {
        run(async {
            let world = FakeRing::new(chunk_bytes, seed);
            world.disorder.store(10, SeqCst);
            let mounts = [0, 1].map(|_| world.mount(tiny(chunk_bytes, log_chunks)));
            let files = [0, 1].map(|mount| world.open(&mounts[mount]));
            let cell = u64::from(chunk_bytes) / 4;
            let mut model = Vec::new();
            let mut commits = Vec::new();
            for (at, (mount, place, kind)) in ops.into_iter().enumerate() {
                let offset = (place * 2 + mount as u64) * cell;
                let data = pattern(cell as usize, at as u64);
                write(&files[mount], offset, &data).await.unwrap();
                write_over(&mut model, offset, &data);
                assert_eq!(read(&files[mount], offset, cell as u32).await, data);
                match kind {
                    0 => commits.push(tokio::spawn({
                        let file = files[mount].clone();
                        async move { file.commit(Durability::Memory).await.map(drop) }
                    })),
                    1 => files[mount].invalidate(),
                    _ => turns(5).await,
                }
            }
            let (a, b) = futures_util::join!(files[0].commit(Durability::Disk), files[1].commit(Durability::Memory));
            a.unwrap();
            b.unwrap();
            for commit in commits {
                commit.await.unwrap().unwrap();
            }
            assert_eq!(fresh_read(&world).await, model);
            for file in &files {
                file.invalidate();
                assert_eq!(file.read(0, model.len() as u32).await.unwrap(), model);
            }
        });
    }
}
