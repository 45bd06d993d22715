//! Found or join: decides what a node without a ring does, given the states of the other members. Pure.
//!
//! There must be exactly one ring, so a node that cannot rule out another one waits:
//! - If a member has a ring, this node joins it, whatever the others report.
//! - An unresponsive member may have a ring, so this node waits for it. There are two exceptions: a member whose host
//!   has refused connections for minutes, because no node runs there; and, for an instance that was launched just now,
//!   a member that was launched later, because that one must spend the same minutes before it may ignore this node.
//! - Among the remaining members the one launched first founds the ring, and of two launched in the same second the one
//!   with the smaller id. `mutual_exclusion` ensures that no two do, even if their lists of the group differ.
#![deny(clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use chordfs_node::mutual_exclusion::{self, Claim, ClaimVerdict};
use serde::{Deserialize, Serialize};

/// A host that refuses connections for this long is taken to run no node.
pub(crate) const REFUSES_FOR: Duration = Duration::from_secs(120);

/// The order of precedence for founding: the earliest launch, then the smallest instance id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rank {
    /// Seconds since 1970, the resolution that EC2 reports; the largest value if the launch time is unknown.
    pub launched_secs: u64,
    pub instance: String,
}

impl Rank {
    pub(crate) fn new(instance: &str, launched: Option<SystemTime>) -> Self {
        let since = launched.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self { launched_secs: since.map_or(u64::MAX, |since| since.as_secs()), instance: instance.to_owned() }
    }
}

/// Another member and its state when it was last asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub rank: Rank,
    /// The address of its ring port.
    pub address: SocketAddr,
    /// The member is terminating, unhealthy or not listed, so there is no need to wait for its reply.
    pub leaving: bool,
    pub state: CandidateState,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CandidateState {
    /// The member is in a ring or has a saved one. `ready`: it can admit nodes.
    HasRing { ready: bool },
    /// The member has no ring and reports this claim to found one.
    Claims(Claim),
    /// The host has refused connections for `since`.
    RefusesConnections { since: Duration },
    /// No answer.
    Unresponsive,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FoundingStep {
    Join(Vec<SocketAddr>),
    /// Nothing prevents founding: publish `Claim::Trying`, and ask again.
    Try,
    /// Found the ring. Decided only if `Claim::Trying` was published before the others were asked.
    Found,
    /// Keep the claim, and ask again soon.
    AskAgain,
    /// Wait, for the reason given.
    Wait(String),
}

pub(crate) struct FoundingView<'a> {
    pub me: &'a Rank,
    pub own_claim: Claim,
    /// The group lists this instance.
    pub listed: bool,
    /// Listed members that EC2 does not show yet, so their addresses are unknown.
    pub hidden_instances: &'a [String],
    /// This instance was launched less than [`REFUSES_FOR`] ago.
    pub fresh: bool,
    pub others: &'a [Candidate],
}

pub(crate) fn decide(view: &FoundingView<'_>) -> FoundingStep {
    let rings = |is_ready: bool| {
        view.others.iter().filter(move |candidate| candidate.state == CandidateState::HasRing { ready: is_ready })
    };
    // Members that stay come first; those that are leaving may be gone before the join completes.
    let mut ready: Vec<&Candidate> = rings(true).collect();
    ready.sort_by_key(|candidate| (candidate.leaving, candidate.rank.clone()));
    if !ready.is_empty() {
        return FoundingStep::Join(ready.iter().map(|candidate| candidate.address).collect());
    }
    if let Some(candidate) = rings(false).next() {
        return FoundingStep::Wait(format!("the ring of {} is not ready to admit this node", describe(candidate)));
    }
    if !view.listed {
        return FoundingStep::Wait("the group does not list this instance yet".to_owned());
    }
    if let Some(instance) = view.hidden_instances.first() {
        return FoundingStep::Wait(format!("{instance} may have or found a ring: EC2 does not show it yet"));
    }
    if let Some(candidate) = view.others.iter().find(|candidate| must_wait_for(view, candidate)) {
        return FoundingStep::Wait(wait_reason(candidate));
    }
    let claims = view.others.iter().filter_map(|candidate| match candidate.state {
        CandidateState::Claims(claim) => Some((&candidate.rank, claim)),
        _ => None,
    });
    match (mutual_exclusion::verdict(&view.me, claims), view.own_claim) {
        (ClaimVerdict::Go, Claim::Trying) => FoundingStep::Found,
        (ClaimVerdict::Go, _) => FoundingStep::Try,
        (ClaimVerdict::AskAgain, _) => FoundingStep::AskAgain,
        (ClaimVerdict::BackOff, _) => FoundingStep::Wait(founder_reason(view)),
    }
}

fn must_wait_for(view: &FoundingView<'_>, candidate: &Candidate) -> bool {
    let no_reply = match candidate.state {
        CandidateState::Unresponsive => true,
        CandidateState::RefusesConnections { since } => since < REFUSES_FOR,
        CandidateState::HasRing { .. } | CandidateState::Claims(_) => false,
    };
    let is_later = view.fresh && candidate.rank > *view.me;
    no_reply && !candidate.leaving && !is_later
}

fn wait_reason(candidate: &Candidate) -> String {
    let reason = match candidate.state {
        CandidateState::RefusesConnections { .. } => "no node runs there yet",
        _ => "it does not answer; if this persists, check that the ports are open between the members",
    };
    format!("{} may have or found a ring: {reason}", describe(candidate))
}

fn founder_reason(view: &FoundingView<'_>) -> String {
    let claiming = view.others.iter().filter(|candidate| {
        matches!(candidate.state, CandidateState::Claims(Claim::Waiting | Claim::Trying | Claim::Held))
    });
    match claiming.min_by_key(|candidate| &candidate.rank) {
        Some(candidate) => format!("{} was launched first and will found the ring", describe(candidate)),
        None => "another member is founding the ring".to_owned(),
    }
}

fn describe(candidate: &Candidate) -> String {
    format!("{} ({})", candidate.rank.instance, candidate.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(secs: u64, instance: &str) -> Rank {
        Rank { launched_secs: secs, instance: instance.into() }
    }

    fn candidate(secs: u64, state: CandidateState) -> Candidate {
        let address = SocketAddr::from(([10, 0, 0, secs as u8], 5057));
        Candidate { rank: rank(secs, &format!("i-{secs}")), address, leaving: false, state }
    }

    /// This node was launched at 5.
    fn check(own_claim: Claim, others: &[Candidate]) -> FoundingStep {
        decide(&view(&rank(5, "i-5"), own_claim, others))
    }

    fn view<'a>(me: &'a Rank, own_claim: Claim, others: &'a [Candidate]) -> FoundingView<'a> {
        FoundingView { me, own_claim, listed: true, fresh: false, hidden_instances: &[], others }
    }

    fn waits_for(next: FoundingStep, part: &str) {
        match next {
            FoundingStep::Wait(reason) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?} instead of waiting for {part}"),
        }
    }

    const READY: CandidateState = CandidateState::HasRing { ready: true };
    const REFUSES: CandidateState = CandidateState::RefusesConnections { since: Duration::from_secs(3) };
    const REFUSES_LONG: CandidateState = CandidateState::RefusesConnections { since: REFUSES_FOR };
    const WANTS: CandidateState = CandidateState::Claims(Claim::Waiting);

    #[test]
    fn a_lone_node_tries_and_then_founds() {
        assert_eq!(check(Claim::Waiting, &[]), FoundingStep::Try);
        assert_eq!(check(Claim::Trying, &[]), FoundingStep::Found);
    }

    #[test]
    fn a_ring_wins_over_every_rule() {
        let others = [candidate(9, READY), candidate(1, WANTS), candidate(2, CandidateState::Unresponsive)];
        assert_eq!(check(Claim::Trying, &others), FoundingStep::Join(vec![others[0].address]));
        waits_for(check(Claim::Trying, &[candidate(9, CandidateState::HasRing { ready: false })]), "not ready");
        let leaving = Candidate { leaving: true, ..candidate(1, READY) };
        let both = [leaving.clone(), candidate(9, READY)];
        assert_eq!(check(Claim::Waiting, &both), FoundingStep::Join(vec![both[1].address, leaving.address]));
        assert_eq!(check(Claim::Waiting, std::slice::from_ref(&leaving)), FoundingStep::Join(vec![leaving.address]));
    }

    #[test]
    fn the_member_launched_first_founds_the_ring() {
        waits_for(check(Claim::Waiting, &[candidate(1, WANTS), candidate(9, WANTS)]), "i-1");
        assert_eq!(check(Claim::Trying, &[candidate(8, WANTS), candidate(9, WANTS)]), FoundingStep::Found);
        let same_second = Candidate { rank: rank(5, "i-4"), ..candidate(5, WANTS) };
        waits_for(check(Claim::Waiting, &[same_second]), "i-4");
        let unknown = Candidate { rank: Rank::new("i-0", None), ..candidate(5, WANTS) };
        assert_eq!(check(Claim::Trying, &[unknown]), FoundingStep::Found, "EC2 does not know it yet, so it is young");
        assert_eq!(
            check(Claim::Trying, &[candidate(9, CandidateState::Claims(Claim::Trying))]),
            FoundingStep::AskAgain
        );
        waits_for(check(Claim::Trying, &[candidate(9, CandidateState::Claims(Claim::Held))]), "i-9");
    }

    #[test]
    fn an_unresponsive_member_may_have_a_ring() {
        for state in [CandidateState::Unresponsive, REFUSES] {
            waits_for(check(Claim::Trying, &[candidate(9, state.clone())]), "i-9");
            waits_for(check(Claim::Trying, &[candidate(1, state.clone())]), "i-1");
            let leaving = Candidate { leaving: true, ..candidate(1, state) };
            assert_eq!(check(Claim::Trying, &[leaving]), FoundingStep::Found);
        }
        assert_eq!(check(Claim::Trying, &[candidate(1, REFUSES_LONG)]), FoundingStep::Found, "no node runs there");
    }

    #[test]
    fn an_instance_launched_just_now_need_not_wait_for_later_ones() {
        let others = [candidate(9, CandidateState::Unresponsive), candidate(7, REFUSES)];
        let fresh = |others: &[Candidate]| {
            decide(&FoundingView { fresh: true, ..view(&rank(5, "i-5"), Claim::Trying, others) })
        };
        assert_eq!(fresh(&others), FoundingStep::Found);
        waits_for(fresh(&[candidate(1, CandidateState::Unresponsive)]), "i-1");
    }

    #[test]
    fn an_instance_that_is_not_listed_waits() {
        waits_for(
            decide(&FoundingView { listed: false, fresh: true, ..view(&rank(5, "i-5"), Claim::Trying, &[]) }),
            "list",
        );
    }

    #[test]
    fn a_member_whose_address_is_unknown_is_waited_for() {
        let (me, hidden_instances) = (rank(5, "i-5"), ["i-7".to_owned()]);
        for fresh in [false, true] {
            waits_for(
                decide(&FoundingView { hidden_instances: &hidden_instances, fresh, ..view(&me, Claim::Trying, &[]) }),
                "does not show it yet",
            );
        }
        let ring = [candidate(9, READY)];
        let joins = decide(&FoundingView { hidden_instances: &hidden_instances, ..view(&me, Claim::Waiting, &ring) });
        assert_eq!(joins, FoundingStep::Join(vec![ring[0].address]));
    }
}
