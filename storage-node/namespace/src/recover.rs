//! Going on without a majority, at an operator's word. Of two voters the one that is left cannot know whether the other
//! is gone or only out of reach, so it waits; somebody who knows says that it is gone for ever.
//!
//! Works on the folder of a node that does not run: everything in its log is applied, and the result becomes a snapshot in
//! which this node is the only voter. Of two voters each has all that was ever answered, so nothing is lost. Of three,
//! the one that is left may lack what the other two agreed on last.
//!
//! What these two gave out meanwhile is known to mounts and nodes, so nothing that they may have numbered is numbered
//! again: versions, inodes and sessions begin anew far beyond (`tables/leap.rs` says which and why), and so does the log,
//! whose index is an inode's change counter. The snapshot is as of an entry that nobody has, in a term that nobody has
//! voted in and that no elections of the others can have come near: a former member that is started with its old folder after all, and even one that has exactly this log, can
//! only take the snapshot, and never lays new entries over tables that have not leapt.

use chordfs_types::namespace::Time;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use chordfs_tables::IdJump;
use openraft::{
    Membership, RaftLogReader,
    storage::{RaftLogStorage, RaftStateMachine},
    type_config::alias::LeaderIdOf,
    vote::RaftLeaderIdExt,
};

use super::{
    feed::Feed,
    log_store::LogStore,
    raft_types::{LogId, Member, StoredMembership, TypeConfig, Vote},
    state_machine::{State, StateMachine},
};

/// Each election of the lost majority was a term, and this node need not have heard of one of them.
const TERM_JUMP: u64 = 1 << 32;

/// What was done, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Who voted so far.
    pub former_voters: BTreeMap<u64, SocketAddr>,
    /// With more than two former voters the newest operations may be missing.
    pub may_have_lost: bool,
    pub last_log_index: u64,
}

/// A look at what is in a folder; nothing is changed yet.
pub struct Recovery {
    uid: u64,
    log: LogStore,
    machine: StateMachine,
    last: LogId,
    members: StoredMembership,
}

/// Makes the node `uid` at `node`, whose data folder is `dir`, the only voter of its namespace. It must not run meanwhile,
/// and the other voters must never run again with their old folders while it is unknown to them.
pub async fn become_only_voter(dir: &Path, uid: u64, node: SocketAddr, file_bytes: u64) -> io::Result<Recovered> {
    Recovery::open(dir, uid, file_bytes).await?.carry_out(Some(node)).await
}

impl Recovery {
    /// Of the node `uid`, whose data folder is `dir` and which does not run.
    pub async fn open(dir: &Path, uid: u64, file_bytes: u64) -> io::Result<Self> {
        let dir = dir.join("namespace");
        let mut log = LogStore::open(&dir, uid, file_bytes)?;
        let mut machine = StateMachine::open(&dir, State::default(), Arc::new(Feed::default()))?;
        let (applied, _) = machine.applied_state().await?;
        let next = applied.map_or(0, |applied| applied.index + 1);
        for entry in log.try_get_log_entries(next..).await? {
            machine.apply_entry(entry)?;
        }
        let (last, members) = machine.applied_state().await?;
        let Some(last) = last.filter(|_| members.voter_ids().any(|voter| voter == uid)) else {
            return Err(io::Error::other("this node is no voter of any namespace: recover on one that is"));
        };
        Ok(Self { uid, log, machine, last, members })
    }

    pub fn outlook(&self) -> Recovered {
        let former = |voter: u64| self.members.get_node(&voter).map(|member| (voter, member.ring));
        let former_voters: BTreeMap<u64, SocketAddr> = self.members.voter_ids().filter_map(former).collect();
        Recovered { may_have_lost: former_voters.len() > 2, former_voters, last_log_index: self.last.index }
    }

    /// `node`: where it is reached from now on, if no longer where it was. When this returns the folder is closed.
    pub async fn carry_out(mut self, node: Option<SocketAddr>) -> io::Result<Recovered> {
        let (uid, outlook) = (self.uid, self.outlook());
        let ring = node.or_else(|| outlook.former_voters.get(&uid).copied());
        let ring = ring.ok_or_else(|| io::Error::other("the node's address is not in its log; name it"))?;
        let alone = Membership::new(vec![BTreeSet::from([uid])], BTreeMap::from([(uid, Member { ring })]));
        let alone = alone.map_err(io::Error::other)?;
        let jump = IdJump::new(rand::random());
        let last = self.unheard_of(jump).await?;
        // First, as no entry may be of a later term than the vote. Whatever breaks off after this, running again does all.
        self.log.save_vote(&Vote::new(last.leader_id.term, uid)).await?;
        self.machine.jump_ids(jump, last, Time::now())?;
        self.machine.save_with(StoredMembership::new(Some(last), alone))?;
        self.log.purge(last).await?;
        self.log.save_committed(Some(last)).await?;
        self.log.close().await?;
        Ok(outlook)
    }

    /// An entry that no log has, later than all there are.
    async fn unheard_of(&mut self, jump: IdJump) -> io::Result<LogId> {
        let voted = self.log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
        let term = voted.max(self.last.leader_id.term).checked_add(TERM_JUMP).ok_or_else(out_of_numbers)?;
        let index = self.last.index.checked_add(jump.others).ok_or_else(out_of_numbers)?;
        Ok(LogId::new(LeaderIdOf::<TypeConfig>::new_committed(term, self.uid), index))
    }
}

pub(super) fn out_of_numbers() -> io::Error {
    io::Error::other("this namespace was recovered so often that it has no numbers left for what is made new")
}
