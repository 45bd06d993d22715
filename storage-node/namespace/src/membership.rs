//! Who should vote: one step from what the leader sees. Pure; [`super::membership_task`] looks and carries out.
//!
//! One voter in a ring of one, two in a ring of two, three from three nodes on, five from seven on. A member is replaced
//! rather than removed wherever somebody can take its seat, and seats are given only to members that hold the whole log.
//! The steps are small on purpose: each leaves a cluster that is as safe as before, whenever the leader stops between.
#![deny(clippy::disallowed_methods)]

use std::{collections::BTreeMap, time::Duration};

use super::raft_types::Member;

/// What the leader sees.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub leader: u64,
    pub voters: BTreeMap<u64, Seen>,
    pub learners: BTreeMap<u64, Seen>,
    /// A change of voters was begun and not finished; the voters are those it leads to.
    pub joint: bool,
    /// How many nodes the ring has at least.
    pub ring_nodes: usize,
    /// The ring has not been larger for a while, as far as the leader can tell: a seat may be given up for it.
    pub size_is_sure: bool,
    /// Nodes of the ring that answered, nearest first, with the ids they gave; the leader is not among them.
    pub candidates: Vec<(u64, Member)>,
    /// How long a member may be silent.
    pub patience: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub member: Member,
    /// Since its last answer.
    pub silent_for: Duration,
    /// For how long the ring has been without it, where the leader knows the whole ring.
    pub missing_for: Duration,
    /// At its address somebody with another id answers: its log is lost.
    pub supplanted: bool,
    /// It asked to be let go.
    pub leaving: bool,
    /// It holds all but the newest entries of the log.
    pub caught_up: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Rest,
    /// Finish a change that an earlier leader began.
    FinishJoint,
    AddLearner {
        uid: u64,
        member: Member,
    },
    /// The learner `uid` votes from now on, `instead_of` no more.
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

/// How many should vote in a ring of `nodes`.
pub fn target_voters(nodes: usize) -> usize {
    match nodes {
        0 | 1 => 1,
        2 => 2,
        3..=6 => 3,
        _ => 5,
    }
}

pub fn decide(view: &View) -> Step {
    if !view.majority_answers_without(None) {
        return Step::Rest;
    }
    if view.joint {
        return Step::FinishJoint;
    }
    if let Some(uid) = view.useless_learner() {
        return Step::RemoveLearner { uid };
    }
    let (target, lost) = (target_voters(view.ring_nodes), view.lost_voter());
    let sound = view.voters.len() - view.voters.iter().filter(|(uid, seen)| view.is_lost(**uid, seen)).count();
    if sound < target
        && let Some(step) = view.fill_seat(lost)
    {
        return step;
    }
    match view.dispensable(target, lost) {
        Some(uid) if view.majority_answers_without(Some(uid)) => Step::RemoveVoter { uid },
        _ => Step::Rest,
    }
}

impl View {
    fn is_lost(&self, uid: u64, seen: &Seen) -> bool {
        let gone = seen.silent_for >= self.patience || seen.missing_for >= self.patience;
        uid != self.leader && (gone || seen.supplanted || seen.leaving)
    }

    /// The lost voter to replace first: one that will surely not come back.
    fn lost_voter(&self) -> Option<u64> {
        let lost = self.voters.iter().filter(|(uid, seen)| self.is_lost(**uid, seen));
        lost.max_by_key(|(_, seen)| (seen.supplanted, seen.silent_for)).map(|(uid, _)| *uid)
    }

    fn useless_learner(&self) -> Option<u64> {
        self.learners.iter().find(|(uid, seen)| self.is_lost(**uid, seen)).map(|(uid, _)| *uid)
    }

    /// One step towards another voter: promote a learner, or wait for it, or take one in.
    fn fill_seat(&self, instead_of: Option<u64>) -> Option<Step> {
        if let Some((&uid, _)) = self.learners.iter().find(|(_, seen)| seen.caught_up) {
            return Some(Step::Promote { uid, instead_of });
        }
        if !self.learners.is_empty() {
            return Some(Step::Rest);
        }
        let new = self.candidates.iter().find(|(uid, _)| !self.voters.contains_key(uid) && *uid != self.leader)?;
        Some(Step::AddLearner { uid: new.0, member: new.1 })
    }

    /// A voter to do without: a lost one that nobody replaces if the others are enough or it left for good, or one too
    /// many, whichever. While one is silent and not yet lost there is none too many: the ring seems smaller because of
    /// it, and it may come back.
    fn dispensable(&self, target: usize, lost: Option<u64>) -> Option<u64> {
        let for_good = |uid: &u64| self.voters[uid].supplanted || self.voters[uid].leaving;
        let too_many = self.size_is_sure && self.voters.len() > target;
        if let Some(uid) = lost.filter(|uid| too_many || for_good(uid)) {
            return Some(uid);
        }
        if !too_many || self.awaits_one() {
            return None;
        }
        self.voters.keys().rfind(|uid| **uid != self.leader).copied()
    }

    /// Whether a voter is silent, or out of the ring, and not yet for so long that it counts as lost.
    fn awaits_one(&self) -> bool {
        let waits = |seen: &Seen| seen.silent_for >= self.patience / 4 || !seen.missing_for.is_zero();
        self.voters.iter().any(|(uid, seen)| *uid != self.leader && waits(seen) && !self.is_lost(*uid, seen))
    }

    /// Whether a majority of the voters, or of those that remain without `uid`, answers at present.
    fn majority_answers_without(&self, uid: Option<u64>) -> bool {
        let rest = || self.voters.iter().filter(|(voter, _)| Some(**voter) != uid);
        let answering = rest().filter(|(voter, seen)| **voter == self.leader || seen.silent_for < self.patience / 4);
        answering.count() > rest().count() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn member(uid: u64) -> Member {
        Member { ring: format!("127.0.0.1:{}", 7000 + uid).parse().unwrap() }
    }

    fn seen(uid: u64) -> Seen {
        Seen { member: member(uid), ..Seen::default() }
    }

    /// Voters (1 leads) and candidates by their ids, in a ring of `ring_nodes`.
    fn view(ring_nodes: usize, voters: &[u64], candidates: &[u64]) -> View {
        View {
            leader: 1,
            voters: voters.iter().map(|&uid| (uid, seen(uid))).collect(),
            candidates: candidates.iter().map(|&uid| (uid, member(uid))).collect(),
            ring_nodes,
            size_is_sure: true,
            patience: PATIENCE,
            ..View::default()
        }
    }

    fn add(uid: u64) -> Step {
        Step::AddLearner { uid, member: member(uid) }
    }

    #[test]
    fn a_ring_that_grows_gets_one_two_three_and_five_voters() {
        assert_eq!(decide(&view(1, &[1], &[])), Step::Rest);
        assert_eq!(decide(&view(2, &[1], &[2])), add(2));
        assert_eq!(decide(&view(3, &[1, 2], &[2, 3])), add(3));
        assert_eq!(decide(&view(6, &[1, 2, 3], &[2, 3, 4, 5, 6])), Step::Rest);
        assert_eq!(decide(&view(7, &[1, 2, 3], &[2, 3, 4])), add(4));
        assert_eq!(decide(&view(7, &[1, 2, 3, 4, 5], &[2, 3, 6])), Step::Rest);
    }

    #[test]
    fn a_learner_is_waited_for_and_then_votes() {
        let mut view = view(3, &[1, 2], &[2, 3]);
        view.learners.insert(3, seen(3));
        assert_eq!(decide(&view), Step::Rest);
        view.learners.get_mut(&3).unwrap().caught_up = true;
        assert_eq!(decide(&view), Step::Promote { uid: 3, instead_of: None });
        view.learners.get_mut(&3).unwrap().silent_for = PATIENCE;
        assert_eq!(decide(&view), Step::RemoveLearner { uid: 3 });
    }

    #[test]
    fn a_silent_voter_is_replaced_when_somebody_can_and_kept_otherwise() {
        let mut view = view(3, &[1, 2, 3], &[2]);
        view.voters.get_mut(&3).unwrap().silent_for = PATIENCE - Duration::from_secs(1);
        assert_eq!(decide(&view), Step::Rest);
        view.voters.get_mut(&3).unwrap().silent_for = PATIENCE;
        assert_eq!(decide(&view), Step::Rest, "nobody to take its seat");
        view.candidates.push((4, member(4)));
        assert_eq!(decide(&view), add(4));
        view.learners.insert(4, Seen { caught_up: true, ..seen(4) });
        assert_eq!(decide(&view), Step::Promote { uid: 4, instead_of: Some(3) });
    }

    #[test]
    fn a_node_that_lost_its_disk_takes_the_seat_of_its_former_self() {
        let mut view = view(3, &[1, 2, 3], &[2, 33]);
        view.voters.get_mut(&3).unwrap().supplanted = true;
        assert_eq!(decide(&view), add(33));
        view.learners.insert(33, Seen { caught_up: true, ..seen(33) });
        assert_eq!(decide(&view), Step::Promote { uid: 33, instead_of: Some(3) });
    }

    #[test]
    fn a_voter_that_left_the_ring_is_replaced() {
        let mut view = view(3, &[1, 2, 3], &[2, 4]);
        view.voters.get_mut(&3).unwrap().missing_for = PATIENCE;
        assert_eq!(decide(&view), add(4));
    }

    #[test]
    fn a_ring_that_shrinks_gives_up_the_lost_voter_first() {
        let mut view = view(2, &[1, 2, 3], &[3]);
        view.voters.get_mut(&2).unwrap().silent_for = PATIENCE;
        assert_eq!(decide(&view), Step::RemoveVoter { uid: 2 });
        view.voters.get_mut(&2).unwrap().silent_for = Duration::ZERO;
        assert_eq!(decide(&view), Step::RemoveVoter { uid: 3 });
    }

    /// The leader of a ring of three was killed. Its successor had lost sight of it before the election, took the ring for one
    /// of two, and removed the other node that was alive: what remained, itself and the dead one, could decide nothing.
    #[test]
    fn a_new_leader_gives_up_no_voter_for_a_ring_that_only_seems_smaller() {
        let mut view = view(2, &[1, 2, 3], &[3]);
        view.size_is_sure = false;
        view.voters.get_mut(&2).unwrap().silent_for = Duration::from_secs(1);
        assert_eq!(decide(&view), Step::Rest);
    }

    /// In a ring of three a node that was away for 15 s lost its seat, and the setting said 30 s: the ring had seemed one of two
    /// for long enough, and of the one too many the silent one was chosen, although nothing else had made the ring smaller.
    #[test]
    fn a_voter_that_is_away_keeps_its_seat_until_it_is_lost() {
        let mut view = view(2, &[1, 2, 3], &[3]);
        let mut away = |silent_for, missing_for| {
            let voter = view.voters.get_mut(&2).unwrap();
            (voter.silent_for, voter.missing_for) = (silent_for, missing_for);
            decide(&view)
        };
        let (half, almost) = (PATIENCE / 2, PATIENCE - Duration::from_secs(1));
        assert_eq!(away(half, Duration::ZERO), Step::Rest);
        assert_eq!(away(almost, half), Step::Rest);
        assert_eq!(
            away(Duration::ZERO, almost),
            Step::Rest,
            "it answers, but its neighbours have not taken it in again"
        );
        assert_eq!(away(PATIENCE, half), Step::RemoveVoter { uid: 2 });
        assert_eq!(away(Duration::ZERO, PATIENCE), Step::RemoveVoter { uid: 2 });
        assert_eq!(
            away(Duration::ZERO, Duration::ZERO),
            Step::RemoveVoter { uid: 3 },
            "the ring is smaller all the same"
        );
    }

    #[test]
    fn nobody_is_removed_when_the_rest_could_not_decide_anything() {
        let mut view = view(1, &[1, 2, 3], &[]);
        for uid in [2, 3] {
            view.voters.get_mut(&uid).unwrap().silent_for = PATIENCE;
        }
        assert_eq!(decide(&view), Step::Rest);
        view.voters.remove(&3);
        assert_eq!(decide(&view), Step::Rest, "one of two is no majority");
    }

    #[test]
    fn a_leaving_voter_is_replaced_or_let_go_at_once() {
        let mut view = view(3, &[1, 2, 3], &[2, 4]);
        view.voters.get_mut(&3).unwrap().leaving = true;
        assert_eq!(decide(&view), add(4));
        view.candidates.clear();
        assert_eq!(decide(&view), Step::RemoveVoter { uid: 3 });
    }

    #[test]
    fn an_unfinished_change_comes_first_and_the_leader_never_removes_itself() {
        let mut view = view(1, &[1, 2], &[]);
        view.voters.get_mut(&1).unwrap().silent_for = PATIENCE;
        assert_eq!(decide(&view), Step::RemoveVoter { uid: 2 });
        view.joint = true;
        assert_eq!(decide(&view), Step::FinishJoint);
    }
}
