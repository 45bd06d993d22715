//! Which nodes should vote: decides one change at a time from the leader's view. Pure; [`super::voter_manager`]
//! collects the view and carries the changes out.
//!
//! There is one voter in a ring of one, two in a ring of two, three from three nodes on, five from seven on. A voter is
//! replaced rather than removed wherever another node can take its place, and only members that hold the whole log
//! become voters. The changes are small on purpose: each leaves a cluster that is as safe as before, wherever the
//! leader stops.
#![deny(clippy::disallowed_methods)]

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::raft_types::RaftMember;

/// The leader's view of the members and the ring.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterView {
    pub leader: u64,
    pub voters: BTreeMap<u64, MemberView>,
    pub learners: BTreeMap<u64, MemberView>,
    /// A change of voters was begun and not finished; `voters` are those after the change.
    pub joint: bool,
    /// How many nodes the ring has at least.
    pub ring_nodes: usize,
    /// The ring has not been larger for a while, as far as the leader knows: a voter may be removed because of its
    /// size.
    pub size_is_sure: bool,
    /// The nodes of the ring that answered, nearest first, with their ids; without the leader.
    pub candidates: Vec<(u64, RaftMember)>,
    /// How long a member may be unresponsive.
    pub member_timeout: Duration,
}

/// One member, as the leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct MemberView {
    pub member: RaftMember,
    /// The time since its last answer.
    pub unresponsive_for: Duration,
    /// How long it has been missing from the ring; zero if the leader does not know the whole ring.
    pub missing_for: Duration,
    /// A node with another id answers at its address: its log is lost.
    pub replaced: bool,
    /// It asked to give up its vote.
    pub leaving: bool,
    /// It holds all but the newest entries of the log.
    pub caught_up: bool,
}

/// One change of the voters.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum VoterChange {
    /// No change is needed, or none is safe at present.
    Keep,
    /// Finishes a change that an earlier leader began.
    FinishJoint,
    AddLearner {
        uid: u64,
        member: RaftMember,
    },
    /// Makes the learner `uid` a voter, and removes the voter `instead_of`.
    Promote {
        uid: u64,
        instead_of: Option<u64>,
    },
    RemoveVoter {
        uid: u64,
    },
    RemoveLearner {
        uid: u64,
    },
}

impl fmt::Display for VoterChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => write!(f, "no change"),
            Self::FinishJoint => write!(f, "finish an earlier change"),
            Self::AddLearner { uid, member } => write!(f, "add node {uid:016x} at {member} as a learner"),
            Self::Promote { uid, instead_of: None } => write!(f, "make node {uid:016x} a voter"),
            Self::Promote { uid, instead_of: Some(old) } => {
                write!(f, "make node {uid:016x} a voter in place of {old:016x}")
            }
            Self::RemoveVoter { uid } => write!(f, "remove the voter {uid:016x}"),
            Self::RemoveLearner { uid } => write!(f, "remove the learner {uid:016x}"),
        }
    }
}

/// The number of voters for a ring of `nodes`.
pub(super) fn target_voters(nodes: usize) -> usize {
    match nodes {
        0 | 1 => 1,
        2 => 2,
        3..=6 => 3,
        _ => 5,
    }
}

pub(super) fn decide(view: &ClusterView) -> VoterChange {
    if !view.majority_answers_without(None) {
        return VoterChange::Keep;
    }
    if view.joint {
        return VoterChange::FinishJoint;
    }
    if let Some(uid) = view.lost_learner() {
        return VoterChange::RemoveLearner { uid };
    }
    let (target, lost) = (target_voters(view.ring_nodes), view.lost_voter());
    let sound = view.voters.len() - view.voters.iter().filter(|(uid, seen)| view.is_lost(**uid, seen)).count();
    if sound < target
        && let Some(step) = view.add_voter(lost)
    {
        return step;
    }
    match view.removable(target, lost) {
        Some(uid) if view.majority_answers_without(Some(uid)) => VoterChange::RemoveVoter { uid },
        _ => VoterChange::Keep,
    }
}

impl ClusterView {
    fn is_lost(&self, uid: u64, seen: &MemberView) -> bool {
        let gone = seen.unresponsive_for >= self.member_timeout || seen.missing_for >= self.member_timeout;
        uid != self.leader && (gone || seen.replaced || seen.leaving)
    }

    /// The lost voter to replace first: preferably one that cannot come back.
    fn lost_voter(&self) -> Option<u64> {
        let lost = self.voters.iter().filter(|(uid, seen)| self.is_lost(**uid, seen));
        lost.max_by_key(|(_, seen)| (seen.replaced, seen.unresponsive_for)).map(|(uid, _)| *uid)
    }

    fn lost_learner(&self) -> Option<u64> {
        self.learners.iter().find(|(uid, seen)| self.is_lost(**uid, seen)).map(|(uid, _)| *uid)
    }

    /// One step towards another voter: promotes a learner, waits for it, or adds one.
    fn add_voter(&self, instead_of: Option<u64>) -> Option<VoterChange> {
        if let Some((&uid, _)) = self.learners.iter().find(|(_, seen)| seen.caught_up) {
            return Some(VoterChange::Promote { uid, instead_of });
        }
        if !self.learners.is_empty() {
            return Some(VoterChange::Keep);
        }
        let new = self.candidates.iter().find(|(uid, _)| !self.voters.contains_key(uid) && *uid != self.leader)?;
        Some(VoterChange::AddLearner { uid: new.0, member: new.1 })
    }

    /// A voter to remove: a lost one without a replacement, if the others are enough or it left for good, or any
    /// surplus one. While a voter is unresponsive and not yet lost none counts as surplus: the ring may seem smaller
    /// only because of it, and it may come back.
    fn removable(&self, target: usize, lost: Option<u64>) -> Option<u64> {
        let for_good = |uid: &u64| self.voters[uid].replaced || self.voters[uid].leaving;
        let too_many = self.size_is_sure && self.voters.len() > target;
        if let Some(uid) = lost.filter(|uid| too_many || for_good(uid)) {
            return Some(uid);
        }
        if !too_many || self.awaits_return() {
            return None;
        }
        self.voters.keys().rfind(|uid| **uid != self.leader).copied()
    }

    /// Returns whether a voter is unresponsive or missing from the ring, but not yet for long enough to count as lost.
    fn awaits_return(&self) -> bool {
        let waits = |seen: &MemberView| seen.unresponsive_for >= self.member_timeout / 4 || !seen.missing_for.is_zero();
        self.voters.iter().any(|(uid, seen)| *uid != self.leader && waits(seen) && !self.is_lost(*uid, seen))
    }

    /// Returns whether a majority of the voters, or of those that remain without `uid`, answers at present.
    fn majority_answers_without(&self, uid: Option<u64>) -> bool {
        let rest = || self.voters.iter().filter(|(voter, _)| Some(**voter) != uid);
        let answering =
            rest().filter(|(voter, seen)| **voter == self.leader || seen.unresponsive_for < self.member_timeout / 4);
        answering.count() > rest().count() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER_TIMEOUT: Duration = Duration::from_secs(30);

    fn member(uid: u64) -> RaftMember {
        RaftMember { ring: format!("127.0.0.1:{}", 7000 + uid).parse().unwrap() }
    }

    fn seen(uid: u64) -> MemberView {
        MemberView { member: member(uid), ..MemberView::default() }
    }

    /// Voters (1 leads) and candidates by their ids, in a ring of `ring_nodes`.
    fn view(ring_nodes: usize, voters: &[u64], candidates: &[u64]) -> ClusterView {
        ClusterView {
            leader: 1,
            voters: voters.iter().map(|&uid| (uid, seen(uid))).collect(),
            candidates: candidates.iter().map(|&uid| (uid, member(uid))).collect(),
            ring_nodes,
            size_is_sure: true,
            member_timeout: MEMBER_TIMEOUT,
            ..ClusterView::default()
        }
    }

    fn add(uid: u64) -> VoterChange {
        VoterChange::AddLearner { uid, member: member(uid) }
    }

    #[test]
    fn a_ring_that_grows_gets_one_two_three_and_five_voters() {
        assert_eq!(decide(&view(1, &[1], &[])), VoterChange::Keep);
        assert_eq!(decide(&view(2, &[1], &[2])), add(2));
        assert_eq!(decide(&view(3, &[1, 2], &[2, 3])), add(3));
        assert_eq!(decide(&view(6, &[1, 2, 3], &[2, 3, 4, 5, 6])), VoterChange::Keep);
        assert_eq!(decide(&view(7, &[1, 2, 3], &[2, 3, 4])), add(4));
        assert_eq!(decide(&view(7, &[1, 2, 3, 4, 5], &[2, 3, 6])), VoterChange::Keep);
    }

    #[test]
    fn a_learner_is_waited_for_and_then_votes() {
        let mut view = view(3, &[1, 2], &[2, 3]);
        view.learners.insert(3, seen(3));
        assert_eq!(decide(&view), VoterChange::Keep);
        view.learners.get_mut(&3).unwrap().caught_up = true;
        assert_eq!(decide(&view), VoterChange::Promote { uid: 3, instead_of: None });
        view.learners.get_mut(&3).unwrap().unresponsive_for = MEMBER_TIMEOUT;
        assert_eq!(decide(&view), VoterChange::RemoveLearner { uid: 3 });
    }

    #[test]
    fn an_unresponsive_voter_is_replaced_when_there_is_a_candidate_and_kept_otherwise() {
        let mut view = view(3, &[1, 2, 3], &[2]);
        view.voters.get_mut(&3).unwrap().unresponsive_for = MEMBER_TIMEOUT - Duration::from_secs(1);
        assert_eq!(decide(&view), VoterChange::Keep);
        view.voters.get_mut(&3).unwrap().unresponsive_for = MEMBER_TIMEOUT;
        assert_eq!(decide(&view), VoterChange::Keep, "no candidate for its place");
        view.candidates.push((4, member(4)));
        assert_eq!(decide(&view), add(4));
        view.learners.insert(4, MemberView { caught_up: true, ..seen(4) });
        assert_eq!(decide(&view), VoterChange::Promote { uid: 4, instead_of: Some(3) });
    }

    #[test]
    fn a_node_that_lost_its_disk_replaces_its_former_id() {
        let mut view = view(3, &[1, 2, 3], &[2, 33]);
        view.voters.get_mut(&3).unwrap().replaced = true;
        assert_eq!(decide(&view), add(33));
        view.learners.insert(33, MemberView { caught_up: true, ..seen(33) });
        assert_eq!(decide(&view), VoterChange::Promote { uid: 33, instead_of: Some(3) });
    }

    #[test]
    fn a_voter_that_left_the_ring_is_replaced() {
        let mut view = view(3, &[1, 2, 3], &[2, 4]);
        view.voters.get_mut(&3).unwrap().missing_for = MEMBER_TIMEOUT;
        assert_eq!(decide(&view), add(4));
    }

    #[test]
    fn a_ring_that_shrinks_gives_up_the_lost_voter_first() {
        let mut view = view(2, &[1, 2, 3], &[3]);
        view.voters.get_mut(&2).unwrap().unresponsive_for = MEMBER_TIMEOUT;
        assert_eq!(decide(&view), VoterChange::RemoveVoter { uid: 2 });
        view.voters.get_mut(&2).unwrap().unresponsive_for = Duration::ZERO;
        assert_eq!(decide(&view), VoterChange::RemoveVoter { uid: 3 });
    }

    /// The leader of a ring of three was killed. The next leader had dropped it from its neighbours before the
    /// election, assumed a ring of two, and removed the other live node: the remaining voters, itself and the dead one,
    /// had no quorum.
    #[test]
    fn a_new_leader_gives_up_no_voter_for_a_ring_that_only_seems_smaller() {
        let mut view = view(2, &[1, 2, 3], &[3]);
        view.size_is_sure = false;
        view.voters.get_mut(&2).unwrap().unresponsive_for = Duration::from_secs(1);
        assert_eq!(decide(&view), VoterChange::Keep);
    }

    /// In a ring of three a node that was away for 15 s lost its vote, although the setting was 30 s: the ring had
    /// seemed to be one of two for long enough, and the unresponsive voter was removed as surplus.
    #[test]
    fn a_voter_that_is_away_keeps_its_vote_until_it_is_lost() {
        let mut view = view(2, &[1, 2, 3], &[3]);
        let mut away = |unresponsive_for, missing_for| {
            let voter = view.voters.get_mut(&2).unwrap();
            (voter.unresponsive_for, voter.missing_for) = (unresponsive_for, missing_for);
            decide(&view)
        };
        let (half, almost) = (MEMBER_TIMEOUT / 2, MEMBER_TIMEOUT - Duration::from_secs(1));
        assert_eq!(away(half, Duration::ZERO), VoterChange::Keep);
        assert_eq!(away(almost, half), VoterChange::Keep);
        assert_eq!(
            away(Duration::ZERO, almost),
            VoterChange::Keep,
            "it answers, but is not in its neighbours' lists again"
        );
        assert_eq!(away(MEMBER_TIMEOUT, half), VoterChange::RemoveVoter { uid: 2 });
        assert_eq!(away(Duration::ZERO, MEMBER_TIMEOUT), VoterChange::RemoveVoter { uid: 2 });
        assert_eq!(
            away(Duration::ZERO, Duration::ZERO),
            VoterChange::RemoveVoter { uid: 3 },
            "the ring is smaller all the same"
        );
    }

    #[test]
    fn no_voter_is_removed_when_the_rest_would_have_no_quorum() {
        let mut view = view(1, &[1, 2, 3], &[]);
        for uid in [2, 3] {
            view.voters.get_mut(&uid).unwrap().unresponsive_for = MEMBER_TIMEOUT;
        }
        assert_eq!(decide(&view), VoterChange::Keep);
        view.voters.remove(&3);
        assert_eq!(decide(&view), VoterChange::Keep, "one of two is no majority");
    }

    #[test]
    fn a_leaving_voter_is_replaced_or_removed_at_once() {
        let mut view = view(3, &[1, 2, 3], &[2, 4]);
        view.voters.get_mut(&3).unwrap().leaving = true;
        assert_eq!(decide(&view), add(4));
        view.candidates.clear();
        assert_eq!(decide(&view), VoterChange::RemoveVoter { uid: 3 });
    }

    #[test]
    fn an_unfinished_change_comes_first_and_the_leader_never_removes_itself() {
        let mut view = view(1, &[1, 2], &[]);
        view.voters.get_mut(&1).unwrap().unresponsive_for = MEMBER_TIMEOUT;
        assert_eq!(decide(&view), VoterChange::RemoveVoter { uid: 2 });
        view.joint = true;
        assert_eq!(decide(&view), VoterChange::FinishJoint);
    }
}
