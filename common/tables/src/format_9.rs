//! The tables as snapshots of format 9 hold them: sessions do not say whether they may hold leases.
//!
//! Formats 7 to 13 begin with [`TablesBeforeConfig`] and differ in their sessions and in what follows, so each of them
//! is that type and its own ending: postcard writes a struct within a struct as if its fields stood there themselves.

use std::{collections::VecDeque, sync::Arc};

use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    namespace::{AcceptedToken, Ino, PoolSize, Reply, SessionId, VersionBlock},
    ring_config::RingConfig,
};
use imbl::OrdMap;
use serde::Deserialize;

use super::{
    Clones, Counters, DeadRun, DentryKey, DetachedContents, DetachedKey, EndedHolds, ExtentKey, ExtentValue,
    LoggedChunks, OrphanInode, SessionRecord, SkippedRange, Tables, VersionUse, format_13::InodeOfFormat13, map,
};

/// Read whole, and then turned into [`Tables`].
pub type TablesOfFormat9 = FormerTables<SessionRecordOfFormat9>;

/// The tables of formats 9 to 11, which differ in their sessions; those of formats 12 and 13 begin so.
#[derive(Deserialize)]
#[serde(bound = "S: Deserialize<'de> + Clone")]
pub struct FormerTables<S: Clone> {
    before_config: TablesBeforeConfig<S>,
    config: RingConfig,
    #[serde(with = "map")]
    operator_tokens: OrdMap<u64, AcceptedToken>,
    pool_size: Arc<PoolSize>,
}

impl<S: Clone + Into<SessionRecord>> From<FormerTables<S>> for Tables {
    fn from(FormerTables { before_config, config, operator_tokens, pool_size }: FormerTables<S>) -> Self {
        Self { config, operator_tokens, pool_size, ..before_config.into() }
    }
}

/// What formats 7 to 13 have in common.
#[derive(Deserialize)]
#[serde(bound = "S: Deserialize<'de> + Clone")]
pub(super) struct TablesBeforeConfig<S: Clone> {
    #[serde(with = "map")]
    inodes: OrdMap<Ino, InodeOfFormat13>,
    #[serde(with = "map")]
    entries: OrdMap<DentryKey, Ino>,
    #[serde(with = "map")]
    extents: OrdMap<ExtentKey, ExtentValue>,
    #[serde(with = "map")]
    versions: OrdMap<Version, VersionUse>,
    #[serde(with = "map")]
    orphans: OrdMap<Ino, OrphanInode>,
    #[serde(with = "map")]
    unheld: OrdMap<(u64, Ino), ()>,
    #[serde(with = "map")]
    dead: OrdMap<u64, DeadRun>,
    #[serde(with = "map")]
    dead_versions: OrdMap<(Version, u32), u64>,
    #[serde(with = "map")]
    retired_versions: OrdMap<Version, Version>,
    #[serde(with = "map")]
    sessions: OrdMap<SessionId, S>,
    #[serde(with = "map")]
    nonces: OrdMap<u64, SessionId>,
    #[serde(with = "map")]
    places: OrdMap<(Ino, u32), Ino>,
    #[serde(with = "map")]
    detached: OrdMap<DetachedKey, DetachedContents>,
    #[serde(with = "map")]
    ended: OrdMap<SessionId, EndedHolds>,
    next: Counters,
    stored_bytes: u64,
    skipped: Vec<SkippedRange>,
}

/// A session before it said whether it may hold leases.
#[derive(Clone, Deserialize)]
pub struct SessionRecordOfFormat9 {
    nonce: u64,
    client: Arc<str>,
    versions: VersionBlock,
    blocks: VecDeque<VersionBlock>,
    answered_below: u64,
    #[serde(with = "map")]
    replies: OrdMap<u64, Result<Reply, FsError>>,
    #[serde(with = "map")]
    holds: OrdMap<Ino, ()>,
}

/// The configuration and all after it are those of a new ring.
impl<S: Clone + Into<SessionRecord>> From<TablesBeforeConfig<S>> for Tables {
    fn from(former: TablesBeforeConfig<S>) -> Self {
        let mut tables = Self {
            inodes: former.inodes.into_iter().map(|(ino, inode)| (ino, Arc::new(inode.into()))).collect(),
            entries: former.entries,
            extents: former.extents,
            versions: former.versions,
            orphans: former.orphans,
            unheld: former.unheld,
            dead: former.dead,
            dead_versions: former.dead_versions,
            retired_versions: former.retired_versions,
            sessions: former.sessions.into_iter().map(|(id, session)| (id, Arc::new(session.into()))).collect(),
            nonces: former.nonces,
            places: former.places,
            detached: former.detached,
            ended: former.ended,
            next: former.next,
            stored_bytes: former.stored_bytes,
            skipped: former.skipped,
            config: RingConfig::default(),
            operator_tokens: OrdMap::new(),
            pool_size: Arc::default(),
            logged_chunks: LoggedChunks::default(),
            identities: Default::default(),
            session_owners: OrdMap::new(),
            name_counts: OrdMap::new(),
            xattrs: OrdMap::new(),
            locks: OrdMap::new(),
            clones: Clones::default(),
        };
        tables.note_all_parents();
        tables.count_holes();
        tables
    }
}

impl From<SessionRecordOfFormat9> for SessionRecord {
    fn from(former: SessionRecordOfFormat9) -> Self {
        Self {
            nonce: former.nonce,
            client: former.client,
            versions: former.versions,
            blocks: former.blocks,
            answered_below: former.answered_below,
            replies: former.replies,
            holds: former.holds,
            // A leader that waits for a session in vain loses seconds; one that does not wait answers something stale.
            holds_leases: true,
            inos: VecDeque::new(),
            is_suspended: false,
        }
    }
}
