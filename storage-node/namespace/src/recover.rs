//! Continuing without a majority, on an operator's request. The survivor of two voters cannot know whether the other is
//! lost or only unreachable, so it waits; the operator, who knows, declares it lost for ever.
//!
//! The recovery works on the folder of a node that does not run: everything in its log is applied, and the result
//! becomes a snapshot in which this node is the only voter. Of two voters each has every answered operation, so nothing
//! is lost. Of three, the survivor may lack the last operations that the other two agreed on.
//!
//! Mounts and nodes know the numbers that those two allocated meanwhile, so none of them is allocated again: versions,
//! inodes and sessions restart far beyond (`id_jump.rs` of `chordfs-tables` explains which and why), and so does the
//! log, whose index is an inode's change counter. The snapshot is as of an entry that no log has, in a term far beyond
//! any election of the others: a former member that is started with its old folder after all, even one with exactly
//! this log, can only take the snapshot, and never applies new entries to tables without the jump.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use chordfs_tables::IdJump;
use openraft::{
    Membership, RaftLogReader,
    storage::{RaftLogStorage, RaftStateMachine},
    type_config::alias::LeaderIdOf,
    vote::RaftLeaderIdExt,
};

use chordfs_types::namespace::Time;

use crate::{
    raft_types::{LogId, RaftMember, StoredMembership, TypeConfig, Vote},
    state::{
        session_feed::SessionFeed,
        state_machine::{NamespaceState, StateMachine, out_of_numbers},
    },
    storage::{log_file::DamagePolicy, log_store::LogStore},
};

/// Each election of the lost majority was a term, and this node may not know any of them.
const TERM_JUMP: u64 = 1 << 32;

/// The effect of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The voters before the recovery.
    pub former_voters: BTreeMap<u64, SocketAddr>,
    /// With more than two former voters the newest operations may be missing.
    pub may_have_lost: bool,
    pub last_log_index: u64,
}

/// A recovery that is prepared; nothing is changed yet.
pub struct Recovery {
    dir: PathBuf,
    uid: u64,
    log: LogStore,
    machine: StateMachine,
    last: LogId,
    members: StoredMembership,
}

/// Makes the node `uid` at `node`, whose data folder is `dir`, the only voter of its namespace. The node must not run
/// meanwhile, and the other voters must never form a majority again with their old folders.
pub async fn become_only_voter(dir: &Path, uid: u64, node: SocketAddr, file_bytes: u64) -> io::Result<Recovered> {
    Recovery::open(dir, uid, file_bytes, DamagePolicy::Refuse).await?.carry_out(Some(node)).await
}

impl Recovery {
    /// Prepares the recovery of the node `uid`, whose data folder is `dir` and which does not run.
    pub async fn open(dir: &Path, uid: u64, file_bytes: u64, policy: DamagePolicy) -> io::Result<Self> {
        let dir = dir.join("namespace");
        let mut log = LogStore::open_with(&dir, uid, file_bytes, policy)?;
        let mut machine = StateMachine::open(&dir, NamespaceState::default(), Arc::new(SessionFeed::default()))?;
        let (applied, _) = machine.applied_state().await?;
        let next = applied.map_or(0, |applied| applied.index + 1);
        for entry in log.try_get_log_entries(next..).await? {
            machine.apply_entry(entry)?;
        }
        let (last, members) = machine.applied_state().await?;
        let Some(last) = last.filter(|_| members.voter_ids().any(|voter| voter == uid)) else {
            return Err(io::Error::other("this node is not a voter of a namespace: recover on a node that is"));
        };
        Ok(Self { dir, uid, log, machine, last, members })
    }

    /// Replaces the tables by others and saves them as of the last entry; the members stay.
    #[cfg(test)]
    pub(crate) async fn save_tables(self, tables: chordfs_tables::Tables) -> io::Result<()> {
        self.machine.replace_tables(tables);
        self.machine.save_with(self.members)?;
        self.log.close().await
    }

    pub fn outlook(&self) -> Recovered {
        let former = |voter: u64| self.members.get_node(&voter).map(|member| (voter, member.ring));
        let former_voters: BTreeMap<u64, SocketAddr> = self.members.voter_ids().filter_map(former).collect();
        Recovered { may_have_lost: former_voters.len() > 2, former_voters, last_log_index: self.last.index }
    }

    /// Carries the recovery out. `node` is the node's new ring address, if that has changed. When this returns the
    /// folder is closed.
    pub async fn carry_out(mut self, node: Option<SocketAddr>) -> io::Result<Recovered> {
        let (uid, outlook) = (self.uid, self.outlook());
        let ring = node.or_else(|| outlook.former_voters.get(&uid).copied());
        let ring = ring.ok_or_else(|| io::Error::other("the node's address is not in its log: give its address"))?;
        let alone = Membership::new(vec![BTreeSet::from([uid])], BTreeMap::from([(uid, RaftMember { ring })]));
        let alone = alone.map_err(io::Error::other)?;
        let jump = IdJump::new(rand::random());
        let last = self.unused_log_id(jump).await?;
        // The vote comes first, as no entry may be of a later term. If this is interrupted later, it can be run again.
        self.log.save_vote(&Vote::new(last.leader_id.term, uid)).await?;
        self.machine.jump_ids(jump, last, Time::now())?;
        self.machine.save_with(StoredMembership::new(Some(last), alone))?;
        self.log.purge(last).await?;
        self.log.save_committed(Some(last)).await?;
        self.log.close().await?;
        LogStore::end_cut(&self.dir)?;
        Ok(outlook)
    }

    /// The id of an entry that no log has, later than all existing ones.
    async fn unused_log_id(&mut self, jump: IdJump) -> io::Result<LogId> {
        let voted = self.log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
        let term = voted.max(self.last.leader_id.term).checked_add(TERM_JUMP).ok_or_else(out_of_numbers)?;
        let index = self.last.index.checked_add(jump.others).ok_or_else(out_of_numbers)?;
        Ok(LogId::new(LeaderIdOf::<TypeConfig>::new_committed(term, self.uid), index))
    }
}
