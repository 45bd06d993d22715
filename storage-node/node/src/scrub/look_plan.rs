//! Which of this node's chunks a look asks the namespace about: those that have become old since the last look, and a
//! small share of all.
//!
//! Asking about everything in each look would cost the leader a core in a large ring. A chunk that was referenced when
//! it became old can only become an orphan when a deletion does not reach this node, so the share suffices: together
//! the shares cover every version once in a period. The leader keeps deletions for nodes that did not carry them out; a
//! new leader does not know them, so the first look under it asks about everything.
#![deny(clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use chordfs_store::{AgeSpan, VersionShare};

pub(super) struct LookPlan {
    /// The namespace was asked about everything that was stored before this time. `None` before the first look.
    asked_before: Option<SystemTime>,
    next_share: u64,
    shares: u64,
    leader: Option<SocketAddr>,
}

impl LookPlan {
    /// `period` is the time in which every chunk is asked about, `pause` the one between two looks.
    pub(super) fn new(period: Duration, pause: Duration) -> Self {
        let shares = (period.as_millis() / pause.as_millis().max(1)).max(1) as u64;
        Self { asked_before: None, next_share: 0, shares, leader: None }
    }

    /// Returns when the chunks were stored that are old now and were young in the last look. If the clock was set back,
    /// these are all old chunks.
    pub(super) fn newly_old(&self, before: SystemTime) -> AgeSpan {
        AgeSpan { since: self.asked_before.filter(|asked| *asked <= before), before }
    }

    /// The share of all versions for this look.
    pub(super) fn share(&self) -> VersionShare {
        VersionShare::new(self.next_share, self.shares)
    }

    /// Records a look. If not all of its candidates could be kept, the next look asks about the same chunks again.
    pub(super) fn record(&mut self, span: AgeSpan, all_kept: bool) {
        if all_kept {
            self.asked_before = Some(span.before);
            self.next_share = (self.next_share + 1) % self.shares;
        }
    }

    /// Makes the next look ask about everything if the namespace has another leader than at the last call.
    pub(super) fn follow_leader(&mut self, leader: Option<SocketAddr>) {
        if leader.is_some() && self.leader != leader {
            self.leader = leader;
            self.start_over();
        }
    }

    /// Makes the next look ask about everything.
    pub(super) fn start_over(&mut self) {
        self.asked_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn a_look_asks_about_chunks_that_became_old_since_the_last_one() {
        let mut plan = LookPlan::new(Duration::from_secs(3600), Duration::from_secs(900));
        let first = plan.newly_old(at(1000));
        assert_eq!(first, AgeSpan::until(at(1000)));
        assert_eq!(plan.newly_old(at(1900)).since, None, "the first look has failed");
        plan.record(first, true);
        let second = plan.newly_old(at(1900));
        assert_eq!(second.since, Some(at(1000)));
        plan.record(second, false);
        assert_eq!(plan.newly_old(at(2800)).since, Some(at(1000)), "the second look did not keep all it found");
        assert_eq!(plan.newly_old(at(500)).since, None, "the clock was set back");
        plan.start_over();
        assert_eq!(plan.newly_old(at(2800)).since, None);
    }

    /// The deletions that the former leader had kept for this node were found only within a week.
    #[test]
    fn the_first_look_under_another_leader_asks_about_everything() {
        let mut plan = LookPlan::new(Duration::from_secs(3600), Duration::from_secs(900));
        let [first, second] = [1, 2].map(|port| Some(SocketAddr::from(([10, 0, 0, 1], port))));
        for (leader, since) in [(first, None), (first, Some(at(1000))), (None, Some(at(1000))), (second, None)] {
            plan.follow_leader(leader);
            let span = plan.newly_old(at(2000));
            assert_eq!(span.since, since, "{leader:?}");
            plan.record(AgeSpan::until(at(1000)), true);
        }
        plan.follow_leader(second);
        assert_eq!(plan.newly_old(at(2000)).since, Some(at(1000)));
    }

    #[test]
    fn the_shares_of_a_period_cover_every_version_once() {
        let mut plan = LookPlan::new(Duration::from_secs(3600), Duration::from_secs(900));
        let mut shares = Vec::new();
        for _ in 0..5 {
            shares.push(format!("{:?}", plan.share()));
            plan.record(AgeSpan::until(at(0)), true);
        }
        assert_eq!(shares[0], shares[4]);
        assert!((0..4).all(|number| shares[number] == format!("{:?}", VersionShare::new(number as u64, 4))));
    }
}
