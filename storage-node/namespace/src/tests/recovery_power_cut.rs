//! The power is cut at every step of a recovery that cuts damage off the log, and of putting a log aside: afterwards
//! the log is as it was, or the node does not start and the error says what to do, or it is done; and nothing is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use chordfs_power_cut::{Random, Recording};
use chordfs_types::namespace::{Change, NamespaceOp, Time};
use openraft::{
    EntryPayload, Membership,
    entry::RaftEntry,
    storage::{RaftLogStorageExt, RaftStateMachine},
};
use tempfile::TempDir;

use crate::{
    Recovery,
    raft_types::{LogEntry, LogId, LoggedOp, RaftMember, TypeConfig},
    set_log_aside,
    state::{
        session_feed::SessionFeed,
        state_machine::{NamespaceState, StateMachine},
    },
    storage::{log_file::DamagePolicy, log_store::LogStore},
};

const UID: u64 = 7;
/// So small that the log has several files.
const FILE_BYTES: u64 = 100;
const ENTRIES: u64 = 20;

fn log_id(index: u64) -> LogId {
    openraft::testing::log_id::<TypeConfig>(1, UID, index)
}

fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The log of one of two voters.
async fn log_of_a_voter(data: &Path) {
    let mut log = LogStore::open(&data.join("namespace"), UID, FILE_BYTES).unwrap();
    let ring = SocketAddr::from(([10, 0, 0, 1], 5057));
    let members = BTreeMap::from([(UID, RaftMember { ring }), (UID + 1, RaftMember { ring })]);
    let members = Membership::new(vec![BTreeSet::from([UID, UID + 1])], members).unwrap();
    log.blocking_append([LogEntry::new(log_id(0), EntryPayload::Membership(members))]).await.unwrap();
    for index in 1..ENTRIES {
        let change = Change::AllocateVersions { count: 1 };
        let op = NamespaceOp { origin: None, now: Time { secs: index as i64, nanos: 0 }, change };
        let entry = LogEntry::new(log_id(index), EntryPayload::Normal(LoggedOp::new(&op, op.now)));
        log.blocking_append([entry]).await.unwrap();
    }
    log.close().await.unwrap();
}

fn files_of(data: &Path, named: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("namespace")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.display().to_string().contains(named)).collect();
    files.sort();
    files
}

async fn recover(data: &Path) -> io::Result<u64> {
    let recovery = Recovery::open(data, UID, FILE_BYTES, DamagePolicy::Cut).await?;
    recovery.carry_out(None).await.map(|recovered| recovered.last_log_index)
}

/// Starts the node's log and tables; returns its voters.
async fn start(data: &Path) -> io::Result<BTreeSet<u64>> {
    let dir = data.join("namespace");
    let log = LogStore::open(&dir, UID, FILE_BYTES)?;
    let mut machine = StateMachine::open(&dir, NamespaceState::default(), Arc::new(SessionFeed::default()))?;
    let (_, members) = machine.applied_state().await?;
    log.close().await?;
    Ok(members.voter_ids().collect())
}

/// Cuts the power at every step of a recovery after `damage`, which leaves the first entries, up to `sound` of them.
async fn sweep(damage: impl Fn(&Path), sound: u64) {
    let original = folder();
    log_of_a_voter(original.path()).await;
    damage(original.path());
    let files: Vec<Vec<u8>> = files_of(original.path(), ".seg").iter().map(|path| fs::read(path).unwrap()).collect();
    let recording = Recording::start(original.path());
    assert!(recover(original.path()).await.unwrap() < sound);
    for step in 0..=recording.steps() {
        for image in 0..3 {
            let data = folder();
            let mut random = Random::new(step as u64 ^ image << 32);
            recording.disk_after(step).power_cut(&mut random).materialize(data.path());
            let said = format!("step {step}, image {image}: {}", recording.describe(step.saturating_sub(5), step));
            match start(data.path()).await {
                Ok(voters) => assert_eq!(voters, BTreeSet::from([UID]), "it starts with a cut log, {said}"),
                Err(error) => {
                    assert!(error.to_string().contains("storage-node recover --sole-survivor"), "{error}, {said}");
                }
            }
            let last = recover(data.path()).await.unwrap_or_else(|error| panic!("{error}, {said}"));
            // The snapshot of an interrupted recovery is far behind all entries.
            assert!(last < sound || last > sound + 1000, "{last}, {said}");
            assert_eq!(start(data.path()).await.unwrap(), BTreeSet::from([UID]), "{said}");
            let kept: Vec<Vec<u8>> =
                files_of(data.path(), ".damaged-").iter().map(|path| fs::read(path).unwrap()).collect();
            // Sound files may be purged by the recovery, whose snapshot has their entries.
            assert!(kept.iter().any(|kept| files.contains(kept)), "the damaged bytes are kept, {said}");
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_power_cut_while_damage_is_cut_never_leaves_a_shorter_log_that_starts() {
    let damage = |data: &Path| {
        flip(&files_of(data, ".seg")[2]);
        // It is written some time after the log, and does not show then that entries are missing.
        fs::remove_file(data.join("namespace/progress")).unwrap();
    };
    sweep(damage, ENTRIES).await;
}

#[tokio::test]
async fn a_recovery_continues_before_a_missing_file_and_before_a_damaged_header() {
    sweep(|data| fs::remove_file(&files_of(data, ".seg")[2]).unwrap(), ENTRIES).await;
    let damage_header = |data: &Path| {
        let path = &files_of(data, ".seg")[2];
        let mut bytes = fs::read(path).unwrap();
        bytes[2] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    sweep(damage_header, ENTRIES).await;
}

#[tokio::test]
async fn a_log_that_is_put_aside_is_whole_under_one_of_two_names_at_every_step() {
    let original = folder();
    log_of_a_voter(original.path()).await;
    let whole: Vec<Vec<u8>> = files_of(original.path(), "").iter().map(|path| fs::read(path).unwrap()).collect();
    let recording = Recording::start(original.path());
    set_log_aside(original.path()).unwrap();
    for step in 0..=recording.steps() {
        for seed in 0..8 {
            let data = folder();
            recording.disk_after(step).power_cut(&mut Random::new(seed)).materialize(data.path());
            let is_there = data.path().join("namespace").exists();
            assert!(!is_there || start(data.path()).await.is_ok(), "step {step}");
            set_log_aside(data.path()).unwrap();
            let aside = data.path().join("namespace.damaged-1");
            assert!(!data.path().join("namespace").exists() && !data.path().join("namespace.damaged-2").exists());
            fs::rename(aside, data.path().join("namespace")).unwrap();
            let found: Vec<Vec<u8>> = files_of(data.path(), "").iter().map(|path| fs::read(path).unwrap()).collect();
            assert!(is_there || found == whole, "step {step}");
        }
    }
}
