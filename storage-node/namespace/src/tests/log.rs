//! The log and the snapshot: openraft's test suite for them, and recovery after a crash.

use std::{io, path::Path, sync::Arc};

use chordfs_types::namespace::{Change, NamespaceOp, Time};
use openraft::{
    EntryPayload, LogState, RaftLogReader, StorageError,
    entry::RaftEntry,
    storage::{RaftLogStorage, RaftLogStorageExt},
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use crate::{
    raft_types::{LogEntry, LogId, LoggedOp, TypeConfig, Vote},
    state::{
        session_feed::SessionFeed,
        state_machine::{NamespaceState, StateMachine},
    },
    storage::{log_file::DamagePolicy, log_store::LogStore},
};

const UID: u64 = 7;

struct FolderStoreBuilder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for FolderStoreBuilder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 1 << 20).unwrap();
        let machine =
            StateMachine::open(dir.path(), NamespaceState::default(), Arc::new(SessionFeed::default())).unwrap();
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn openrafts_test_suite_passes() {
    Suite::test_all(FolderStoreBuilder).await.unwrap();
}

fn open(dir: &Path, file_bytes: u64) -> io::Result<LogStore> {
    LogStore::open(dir, UID, file_bytes)
}

fn log_id(term: u64, index: u64) -> LogId {
    openraft::testing::log_id::<TypeConfig>(term, UID, index)
}

/// An entry whose operation contains its index.
fn entry(term: u64, index: u64) -> LogEntry {
    let change = Change::AllocateVersions { count: index as u32 };
    let op = NamespaceOp { origin: None, now: Time { secs: index as i64, nanos: 0 }, change };
    LogEntry::new(log_id(term, index), EntryPayload::Normal(LoggedOp::new(&op, op.now)))
}

async fn log_of(dir: &Path, entries: std::ops::Range<u64>) -> LogStore {
    let mut log = open(dir, 100).unwrap();
    for index in entries {
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    log
}

async fn all(log: &mut LogStore) -> Vec<LogEntry> {
    log.try_get_log_entries(..).await.unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

#[tokio::test]
async fn appends_truncations_and_purges_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of(dir.path(), 0..40).await;
    assert!(names(dir.path()).len() > 4, "files are rolled");
    log.truncate_after(Some(log_id(1, 29))).await.unwrap();
    log.blocking_append([entry(2, 30), entry(2, 31)]).await.unwrap();
    log.save_vote(&Vote::new(2, UID)).await.unwrap();
    let files = names(dir.path()).len();
    log.purge(log_id(1, 19)).await.unwrap();
    assert!(names(dir.path()).len() < files, "purged files are unlinked");
    log.save_committed(Some(log_id(1, 25))).await.unwrap();
    log.close().await.unwrap();

    let mut log = open(dir.path(), 200).unwrap();
    let mut expected: Vec<LogEntry> = (20..30).map(|index| entry(1, index)).collect();
    expected.extend([entry(2, 30), entry(2, 31)]);
    assert_eq!(all(&mut log).await, expected);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(2, UID)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 25)));
    let state = LogState { last_purged_log_id: Some(log_id(1, 19)), last_log_id: Some(log_id(2, 31)) };
    assert_eq!(log.get_log_state().await.unwrap(), state);
    log.blocking_append([entry(2, 32)]).await.unwrap();
    assert_eq!(all(&mut log).await.len(), 13);
}

#[tokio::test]
async fn a_purge_beyond_the_end_empties_the_log_and_the_next_entry_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of(dir.path(), 0..10).await;
    log.purge(log_id(3, 99)).await.unwrap();
    log.blocking_append([entry(3, 100)]).await.unwrap();
    log.close().await.unwrap();
    let mut log = open(dir.path(), 200).unwrap();
    assert_eq!(all(&mut log).await, [entry(3, 100)]);
}

#[tokio::test]
async fn a_log_cut_at_any_byte_of_its_last_entry_keeps_the_entries_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 1 << 20).unwrap();
    log.blocking_append((0..5).map(|index| entry(1, index))).await.unwrap();
    let file = dir.path().join(&names(dir.path())[0]);
    let before = std::fs::metadata(&file).unwrap().len();
    log.blocking_append([entry(1, 5)]).await.unwrap();
    log.close().await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    for cut in before as usize..whole.len() {
        let (folder, progress) = (dir.path(), dir.path().join("progress"));
        // It is written some time after the write that it reports.
        std::fs::remove_file(&progress).unwrap();
        std::fs::write(&file, &whole[..cut]).unwrap();
        check_tail_is_cut(folder).await;
        std::fs::remove_file(&progress).unwrap();
        // The file may also have its length but not its bytes.
        let mut zeroed = whole.clone();
        zeroed[cut..].fill(0);
        std::fs::write(&file, &zeroed).unwrap();
        check_tail_is_cut(folder).await;
    }
}

async fn check_tail_is_cut(dir: &Path) {
    let mut log = open(dir, 1 << 20).unwrap();
    assert_eq!(all(&mut log).await.len(), 5);
    log.blocking_append([entry(2, 5)]).await.unwrap();
    log.close().await.unwrap();
    let mut log = open(dir, 1 << 20).unwrap();
    assert_eq!(all(&mut log).await[5], entry(2, 5));
    log.close().await.unwrap();
}

/// A header of which only the magic bytes had reached the disk was taken for a format of the future.
#[tokio::test]
async fn the_creation_of_a_file_may_be_torn_at_any_byte() {
    for torn in 0..16 {
        for len in [torn, 16] {
            let dir = tempfile::tempdir().unwrap();
            log_of(dir.path(), 0..5).await.close().await.unwrap();
            let mut header = std::fs::read(dir.path().join(&names(dir.path())[0])).unwrap();
            header[8..16].copy_from_slice(&5_u64.to_le_bytes());
            header.truncate(torn);
            header.resize(len, 0);
            std::fs::write(dir.path().join(format!("log-{:020}.seg", 5)), &header).unwrap();
            check_tail_is_cut(dir.path()).await;
        }
    }
}

/// One flipped byte cut off everything behind it, acknowledged entries included, as if it had been torn.
#[tokio::test]
async fn bytes_that_were_on_the_disk_are_never_cut_as_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 1 << 20).unwrap();
    for write in 0..3 {
        log.blocking_append((write * 2..write * 2 + 2).map(|index| entry(1, index))).await.unwrap();
    }
    log.close().await.unwrap();
    let (file, progress) = (dir.path().join(&names(dir.path())[0]), dir.path().join("progress"));
    let (whole, saved) = (std::fs::read(&file).unwrap(), std::fs::read(&progress).unwrap());
    let last_write = whole.len() - (whole.len() - 16) / 3;
    for at in 16..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        std::fs::write(&file, &flipped).unwrap();
        std::fs::write(&progress, &saved).unwrap();
        let refused = open(dir.path(), 1 << 20).err().expect("damage is refused").to_string();
        assert!(refused.contains("is damaged") && refused.contains("storage-node rejoin"), "byte {at}: {refused}");
        if at < last_write {
            std::fs::remove_file(&progress).unwrap();
            assert!(open(dir.path(), 1 << 20).is_err(), "byte {at}: a later write proves the damage by itself");
        }
        assert!(std::fs::read(&file).unwrap() == flipped, "byte {at}: the file is left alone");
    }
}

#[tokio::test]
async fn an_operator_without_another_copy_cuts_the_damage_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 0..40).await.close().await.unwrap();
    let second = dir.path().join(&names(dir.path())[1]);
    let mut damaged = std::fs::read(&second).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&second, &damaged).unwrap();
    let mut log = LogStore::open_with(dir.path(), UID, 200, DamagePolicy::Cut).unwrap();
    let kept = all(&mut log).await;
    assert!(!kept.is_empty() && kept.len() < 40, "{}", kept.len());
    assert_eq!(kept, (0..kept.len() as u64).map(|index| entry(1, index)).collect::<Vec<_>>());
    log.blocking_append([entry(2, kept.len() as u64)]).await.unwrap();
    log.close().await.unwrap();
    let refused = open(dir.path(), 200).err().expect("the cut is under way").to_string();
    assert!(refused.contains("recover --sole-survivor --cut-damage"), "{refused}");
    LogStore::end_cut(dir.path()).unwrap();
    let mut log = open(dir.path(), 200).unwrap();
    assert_eq!(all(&mut log).await.len(), kept.len() + 1);
    let copies: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let copies: Vec<_> = copies.iter().filter(|path| path.display().to_string().contains(".damaged-")).collect();
    assert!(copies.iter().any(|copy| std::fs::read(copy).unwrap() == damaged), "{copies:?}");
}

#[tokio::test]
async fn damage_newer_formats_and_logs_of_other_nodes_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 0..40).await.close().await.unwrap();
    let refusal = |result: io::Result<LogStore>| result.err().expect("it is refused").to_string();
    assert!(refusal(LogStore::open(dir.path(), 8, 200)).contains("belongs to node"));

    let oldest = dir.path().join(&names(dir.path())[0]);
    let sound = std::fs::read(&oldest).unwrap();
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&oldest, &flipped).unwrap();
    assert!(refusal(open(dir.path(), 200)).contains("checksum"));

    let mut newer = sound.clone();
    newer[4] = 77;
    std::fs::write(&oldest, &newer).unwrap();
    assert!(refusal(open(dir.path(), 200)).contains("format 77"));

    std::fs::remove_file(&oldest).unwrap();
    assert!(refusal(open(dir.path(), 200)).contains("missing"));
}
