//! First or join: what a node without a ring does, from what it has heard of the others. Pure.
//!
//! Exactly one ring, always, so a doubt is a reason to wait:
//! - a member that has a ring settles it, whatever else is the case;
//! - a member that is silent may have one, so it is waited for; but not one whose host refuses the connection for
//!   minutes (no node runs there), nor, by an instance that was launched just now, one that was launched after it (it
//!   cannot have founded anything without passing this one over, which takes those minutes too);
//! - of those that are left the one launched first founds it, and of two launched at once the one with the smaller id;
//!   `mutual_exclusion` sees to it that no two of them do, even if their lists of the group differ.
#![deny(clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use chordfs_node::mutual_exclusion::{self, Claim, ClaimVerdict};
use serde::{Deserialize, Serialize};

/// A host that refuses connections for so long runs no node.
pub const REFUSES_FOR: Duration = Duration::from_secs(120);

/// Who comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    /// Since 1970; EC2 knows it to the second.
    pub launched_secs: u64,
    pub instance: String,
}

impl Rank {
    pub fn new(instance: &str, launched: Option<SystemTime>) -> Self {
        let since = launched.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self { launched_secs: since.map_or(u64::MAX, |since| since.as_secs()), instance: instance.to_owned() }
    }
}

/// Another member, as it was found when it was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    pub rank: Rank,
    /// Of its ring.
    pub address: SocketAddr,
    /// It is on its way out, or sick: its silence means nothing.
    pub going: bool,
    pub heard: Heard,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It is in a ring, or remembers one; `ready`: and can take others in.
    Ring { ready: bool },
    /// It has none.
    Bid(Claim),
    /// Its host answers that nobody listens, for so long.
    Refuses { since: Duration },
    /// Not a word.
    Silent,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Join(Vec<SocketAddr>),
    /// Nothing speaks against founding it: say `Tries`, and ask again.
    Try,
    /// Only after `Tries` was said before the others were asked.
    Found,
    /// Say so, and ask again soon.
    AskAgain,
    Wait(String),
}

pub struct View<'a> {
    pub me: &'a Rank,
    pub shows: Claim,
    /// The group's list has this instance.
    pub listed: bool,
    /// Members to be asked that EC2 does not show yet, so nobody knows where they are.
    pub unseen: &'a [String],
    /// This instance was launched less than [`REFUSES_FOR`] ago.
    pub fresh: bool,
    pub others: &'a [Seat],
}

pub fn decide(view: &View<'_>) -> Next {
    let rings = |wanted: bool| view.others.iter().filter(move |seat| seat.heard == Heard::Ring { ready: wanted });
    // A node that stays is a better way in than one that leaves.
    let mut ready: Vec<&Seat> = rings(true).collect();
    ready.sort_by_key(|seat| (seat.going, seat.rank.clone()));
    if !ready.is_empty() {
        return Next::Join(ready.iter().map(|seat| seat.address).collect());
    }
    if let Some(seat) = rings(false).next() {
        return Next::Wait(format!("the ring of {} is not ready to take this node in", shown(seat)));
    }
    if !view.listed {
        return Next::Wait("the group does not list this instance yet".to_owned());
    }
    if let Some(instance) = view.unseen.first() {
        return Next::Wait(format!("{instance} may have a ring, or found one: EC2 does not show it yet"));
    }
    if let Some(seat) = view.others.iter().find(|seat| is_missed(view, seat)) {
        return Next::Wait(missed(seat));
    }
    let bids = view.others.iter().filter_map(|seat| match seat.heard {
        Heard::Bid(bid) => Some((&seat.rank, bid)),
        _ => None,
    });
    match (mutual_exclusion::verdict(&view.me, bids), view.shows) {
        (ClaimVerdict::Go, Claim::Trying) => Next::Found,
        (ClaimVerdict::Go, _) => Next::Try,
        (ClaimVerdict::AskAgain, _) => Next::AskAgain,
        (ClaimVerdict::BackOff, _) => Next::Wait(first(view)),
    }
}

fn is_missed(view: &View<'_>, seat: &Seat) -> bool {
    let silent = match seat.heard {
        Heard::Silent => true,
        Heard::Refuses { since } => since < REFUSES_FOR,
        Heard::Ring { .. } | Heard::Bid(_) => false,
    };
    let after_me = view.fresh && seat.rank > *view.me;
    silent && !seat.going && !after_me
}

fn missed(seat: &Seat) -> String {
    let why = match seat.heard {
        Heard::Refuses { .. } => "no node runs there yet",
        _ => "it does not answer; if it goes on, is the port open between the members?",
    };
    format!("{} may have a ring, or found one: {why}", shown(seat))
}

fn first(view: &View<'_>) -> String {
    let bidding = view
        .others
        .iter()
        .filter(|seat| matches!(seat.heard, Heard::Bid(Claim::Waiting | Claim::Trying | Claim::Held)));
    match bidding.min_by_key(|seat| &seat.rank) {
        Some(seat) => format!("{} was launched first and founds the ring", shown(seat)),
        None => "another member founds the ring".to_owned(),
    }
}

fn shown(seat: &Seat) -> String {
    format!("{} ({})", seat.rank.instance, seat.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(secs: u64, instance: &str) -> Rank {
        Rank { launched_secs: secs, instance: instance.into() }
    }

    fn seat(secs: u64, heard: Heard) -> Seat {
        let address = SocketAddr::from(([10, 0, 0, secs as u8], 5057));
        Seat { rank: rank(secs, &format!("i-{secs}")), address, going: false, heard }
    }

    /// This node was launched at 5.
    fn check(shows: Claim, others: &[Seat]) -> Next {
        decide(&view(&rank(5, "i-5"), shows, others))
    }

    fn view<'a>(me: &'a Rank, shows: Claim, others: &'a [Seat]) -> View<'a> {
        View { me, shows, listed: true, fresh: false, unseen: &[], others }
    }

    fn waits_for(next: Next, part: &str) {
        match next {
            Next::Wait(why) => assert!(why.contains(part), "{why}"),
            other => panic!("{other:?} instead of waiting for {part}"),
        }
    }

    const READY: Heard = Heard::Ring { ready: true };
    const REFUSES: Heard = Heard::Refuses { since: Duration::from_secs(3) };
    const REFUSES_LONG: Heard = Heard::Refuses { since: REFUSES_FOR };
    const WANTS: Heard = Heard::Bid(Claim::Waiting);

    #[test]
    fn alone_it_tries_and_then_founds() {
        assert_eq!(check(Claim::Waiting, &[]), Next::Try);
        assert_eq!(check(Claim::Trying, &[]), Next::Found);
    }

    #[test]
    fn a_ring_wins_over_every_rule() {
        let others = [seat(9, READY), seat(1, WANTS), seat(2, Heard::Silent)];
        assert_eq!(check(Claim::Trying, &others), Next::Join(vec![others[0].address]));
        waits_for(check(Claim::Trying, &[seat(9, Heard::Ring { ready: false })]), "not ready");
        let leaving = Seat { going: true, ..seat(1, READY) };
        let both = [leaving.clone(), seat(9, READY)];
        assert_eq!(check(Claim::Waiting, &both), Next::Join(vec![both[1].address, leaving.address]));
        assert_eq!(check(Claim::Waiting, std::slice::from_ref(&leaving)), Next::Join(vec![leaving.address]));
    }

    #[test]
    fn the_one_launched_first_founds_it() {
        waits_for(check(Claim::Waiting, &[seat(1, WANTS), seat(9, WANTS)]), "i-1");
        assert_eq!(check(Claim::Trying, &[seat(8, WANTS), seat(9, WANTS)]), Next::Found);
        let same_second = Seat { rank: rank(5, "i-4"), ..seat(5, WANTS) };
        waits_for(check(Claim::Waiting, &[same_second]), "i-4");
        let unknown = Seat { rank: Rank::new("i-0", None), ..seat(5, WANTS) };
        assert_eq!(check(Claim::Trying, &[unknown]), Next::Found, "EC2 does not know it yet, so it is young");
        assert_eq!(check(Claim::Trying, &[seat(9, Heard::Bid(Claim::Trying))]), Next::AskAgain);
        waits_for(check(Claim::Trying, &[seat(9, Heard::Bid(Claim::Held))]), "i-9");
    }

    #[test]
    fn who_is_silent_may_have_a_ring() {
        for heard in [Heard::Silent, REFUSES] {
            waits_for(check(Claim::Trying, &[seat(9, heard.clone())]), "i-9");
            waits_for(check(Claim::Trying, &[seat(1, heard.clone())]), "i-1");
            let going = Seat { going: true, ..seat(1, heard) };
            assert_eq!(check(Claim::Trying, &[going]), Next::Found);
        }
        assert_eq!(check(Claim::Trying, &[seat(1, REFUSES_LONG)]), Next::Found, "no node runs there");
    }

    #[test]
    fn an_instance_launched_just_now_need_not_wait_for_later_ones() {
        let others = [seat(9, Heard::Silent), seat(7, REFUSES)];
        let fresh = |others: &[Seat]| decide(&View { fresh: true, ..view(&rank(5, "i-5"), Claim::Trying, others) });
        assert_eq!(fresh(&others), Next::Found);
        waits_for(fresh(&[seat(1, Heard::Silent)]), "i-1");
    }

    #[test]
    fn an_instance_that_is_not_listed_waits() {
        waits_for(decide(&View { listed: false, fresh: true, ..view(&rank(5, "i-5"), Claim::Trying, &[]) }), "list");
    }

    #[test]
    fn a_member_whose_address_nobody_knows_yet_is_waited_for() {
        let (me, unseen) = (rank(5, "i-5"), ["i-7".to_owned()]);
        for fresh in [false, true] {
            waits_for(
                decide(&View { unseen: &unseen, fresh, ..view(&me, Claim::Trying, &[]) }),
                "does not show it yet",
            );
        }
        let ring = [seat(9, READY)];
        let joins = decide(&View { unseen: &unseen, ..view(&me, Claim::Waiting, &ring) });
        assert_eq!(joins, Next::Join(vec![ring[0].address]));
    }
}
