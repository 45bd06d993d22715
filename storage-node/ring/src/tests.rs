//! Every event in every state, a line each.
//!
//! A state is written `20 40 60 80`: predecessor 20, self 40, successors 60 and 80; `-` is no predecessor, `- 40` a
//! ring of one. `60'` is another node with the id 60. A script is one event after another; checked is what the last one
//! leads to. The test on random lives is `sim_tests`.

use super::*;

const NOW: Duration = Duration::from_secs(100);
const TAG: Tag = 7;

fn node(word: &str) -> NodeRef {
    let id: u8 = word.trim_end_matches('\'').parse().expect("ids in tests are small numbers");
    let ip = [10, 0, u8::from(word.ends_with('\'')), id].into();
    NodeRef { ip, port: 5057, id: RingId(u32::from(id)) }
}

fn nodes(words: &[&str]) -> Vec<NodeRef> {
    words.iter().map(|word| node(word)).collect()
}

fn view(words: &[&str]) -> Neighbours {
    let predecessor = (words[0] != "-").then(|| node(words[0]));
    Neighbours { predecessor, node: node(words[1]), successors: nodes(&words[2..]) }
}

fn ring(state: &str) -> Ring {
    let words: Vec<&str> = state.split(' ').collect();
    let Neighbours { predecessor, node, successors } = view(&words);
    let mut ring = Ring::new(node, RingSettings { successor_list_len: 4, ..RingSettings::default() }, vec![]);
    (ring.predecessor, ring.successors) = (predecessor, successors);
    ring.published = ring.neighbours();
    ring
}

/// The call that is open to this node and fits the answer.
fn open_call(ring: &Ring, to: &str, fits: impl Fn(Purpose) -> bool) -> CallId {
    let open = ring.calls.iter().find(|(_, call)| call.to == node(to) && fits(call.purpose));
    *open.unwrap_or_else(|| panic!("nothing was asked of {to}: {:?}", ring.calls)).0
}

fn event(ring: &Ring, words: &[&str]) -> Event {
    let is_ping = |purpose| matches!(purpose, Purpose::Alive | Purpose::Rival | Purpose::Owner { .. });
    let is_hop = |purpose| matches!(purpose, Purpose::Hop { .. });
    let answered = |call, answer| Event::Answered { call, answer };
    match words {
        ["tick"] => Event::Tick,
        ["stabilize"] => Event::Stabilize,
        ["followed", newcomer] => Event::Followed { newcomer: node(newcomer) },
        ["check"] => Event::CheckPredecessor,
        ["leave"] => Event::Leave,
        ["notified", peer] => Event::Notified { peer: node(peer) },
        ["find", id] => Event::FindSuccessor { tag: TAG, target: node(id).id },
        ["join", member] => Event::Join { tag: TAG, member: node(member) },
        ["move", id] => Event::Reposition { id: node(id).id },
        ["lost", peer] => Event::ConnectionLost { peer: node(peer).ring_address() },
        ["left", rest @ ..] => {
            let Neighbours { predecessor, node, successors } = view(rest);
            Event::PeerLeft { peer: node, predecessor, successors }
        }
        [from, "says", rest @ ..] => answered(
            open_call(ring, from, |purpose| !is_ping(purpose) && !is_hop(purpose)),
            RingAnswer::Neighbours(view(rest)),
        ),
        [from, "is", id] => answered(open_call(ring, from, is_ping), RingAnswer::Info(node(id))),
        [from, "owner", rest @ ..] => {
            answered(open_call(ring, from, is_hop), RingAnswer::Route(RingRoute::Owner(nodes(rest))))
        }
        [from, "via", rest @ ..] => {
            let (before, beyond) = match rest.iter().position(|&word| word == "|") {
                Some(place) => (&rest[..place], &rest[place + 1..]),
                None => (rest, &[][..]),
            };
            let route = RingRoute::Ask { nodes: nodes(before), beyond: nodes(beyond) };
            answered(open_call(ring, from, is_hop), RingAnswer::Route(route))
        }
        [from, "silent"] => Event::Unanswered { call: open_call(ring, from, |_| true), why: CallFailure::Silent },
        [from, "closed"] => Event::Unanswered { call: open_call(ring, from, |_| true), why: CallFailure::Unreachable },
        [from, "refuses"] => Event::Unanswered { call: open_call(ring, from, |_| true), why: CallFailure::Refused },
        other => panic!("no event {other:?}"),
    }
}

fn name(node: NodeRef) -> String {
    let is_other = node.ring_address() != self::node(&node.id.to_string()).ring_address();
    format!("{}{}", node.id, if is_other { "'" } else { "" })
}

fn told(action: &Action) -> Option<String> {
    Some(match action {
        Action::Ask { to, request: RingRequest::Neighbours, .. } => format!("ask {}", name(*to)),
        Action::Ask { to, request: RingRequest::Info, .. } => format!("ping {}", name(*to)),
        Action::Ask { to, request: RingRequest::Route(id), .. } => format!("ask {} for {id}", name(*to)),
        Action::Tell { to, message: Message::Notify(_) } => format!("notify {}", name(*to)),
        Action::Tell { to, message: Message::Leave(_) } => format!("tell {} of leaving", name(*to)),
        Action::Found { result: Ok(node), .. } => format!("found {}", name(*node)),
        Action::Found { result: Err(_), .. } => "no route".to_owned(),
        Action::Joined { result: Ok(()), .. } => "joined".to_owned(),
        Action::Joined { result: Err(error), .. } => match error {
            JoinError::NotYet { member } => format!("not yet by {}", name(*member)),
            JoinError::NoAnswer { member } => format!("no answer from {}", name(*member)),
            JoinError::IdTaken { by } => format!("id is that of {}", name(*by)),
            JoinError::Itself { .. } => "it is ourselves".to_owned(),
            JoinError::Left => "we have left".to_owned(),
        },
        Action::IdTaken { by } => format!("moving, {} has the id", name(*by)),
        Action::Changed(view) => {
            let before = view.predecessor.map_or("-".to_owned(), name);
            let rest = std::iter::once(view.node).chain(view.successors.iter().copied()).map(name);
            format!("now {before} {}", rest.collect::<Vec<_>>().join(" "))
        }
        Action::Remember(_) => return None,
    })
}

#[track_caller]
fn check(state: &str, script: &[&str], wanted: &str) {
    let mut ring = ring(state);
    let mut last = Vec::new();
    for line in script {
        let event = event(&ring, &line.split(' ').collect::<Vec<_>>());
        last = ring.handle(NOW, event);
    }
    let outcome: Vec<String> = last.iter().filter_map(told).collect();
    assert_eq!(outcome.join(", "), wanted, "{state}: {script:?}");
}

#[track_caller]
fn check_notify(state_and_peer: &str, wanted: &str) {
    let (state, peer) = state_and_peer.split_once(" | ").expect("a state and who notifies");
    check(state, &[&format!("notified {peer}")], wanted);
}

#[test]
fn rectify() {
    check_notify("20 40 60 | 25", "ask 25, now 25 40 60"); // between: adopted, and asked whether it is there
    check_notify("20 40 60 | 10", "ask 20"); // not between: is the present one there?
    check_notify("20 40 60 | 20", "");
    check_notify("- 40 60 | 50", "ask 50, now 50 40 60"); // anybody is better than nobody
    check_notify("20 40 60 | 40", ""); // ourselves
    check_notify("20 40 60 | 40'", ""); // our id elsewhere
    check_notify("20 40 60 | 20'", "ask 20"); // its id elsewhere: the first stays while it answers
    check_notify("- 40 | 25", "ask 25, ask 25 for 41, now 25 40"); // alone: also the way to a successor
}

#[test]
fn the_predecessor_is_checked() {
    check("20 40 60", &["check"], "ask 20");
    check("- 40 60", &["check"], "");
    check("20 40 60", &["check", "check"], ""); // one question at a time
    check("20 40 60", &["check", "20 says 10 20 40"], "");
    check("20 40 60", &["check", "20 closed"], "now - 40 60");
    check("20 40 60", &["check", "20 says - 20"], "ask 20"); // there, but in no ring? That may be long ago
    check("20 40 60", &["check", "20 says - 20", "20 says 10 20 40"], "");
    check("20 40 60", &["check", "20 says - 20", "20 says - 20"], "notify 20, notify 60, now - 40 60");
    check("20 40 60", &["notified 10", "20 says - 20", "20 says - 20"], "ask 10, notify 20, notify 60, now 10 40 60");
    check("20 40 60", &["check", "20 says 10 21 40"], "now - 40 60"); // has moved to 21
    check("20 40 60", &["notified 10", "20 closed"], "ask 10, now 10 40 60");
    check("20 40 60", &["notified 10", "20 says 10 20 40"], "");
    check("20 40 60", &["notified 25", "25 closed"], "ask 20, now 20 40 60"); // a false one does not last
    check("20 40 20", &["check", "20 closed"], "now - 40"); // it was the successor too
}

#[test]
fn stabilize_in_a_ring() {
    check("20 40 60 80", &["stabilize"], "ask 60");
    check("20 40 60 80", &["stabilize", "stabilize"], "");
    check("20 40 60 80", &["stabilize", "60 says 40 60 80"], "notify 60");
    check("20 40 60 80", &["stabilize", "60 says - 60 80 90 20 40"], "notify 60, now 20 40 60 80 90 20");
    check("20 40 60 80", &["stabilize", "60 says 40 60 80 90 100 110"], "notify 60, now 20 40 60 80 90 100");
    check("20 40 60 80", &["stabilize", "60 says 40 60 80 70 90"], "notify 60"); // out of order: cut
    check("20 40 60 80", &["stabilize", "60 says 40 60 80 80"], "notify 60"); // repeated: cut
    check("20 40 60 80", &["stabilize", "60 says 30 60 80"], "notify 60"); // not between
}

#[test]
fn a_candidate_is_asked_before_it_is_adopted() {
    check("20 40 60 80", &["stabilize", "60 says 50 60 80"], "ask 50");
    let asked = ["stabilize", "60 says 50 60 80"];
    let then = |line| [&asked[..], &[line]].concat();
    check("20 40 60 80", &then("50 says 40 50 60 80"), "notify 50, now 20 40 50 60 80");
    check("20 40 60 80", &then("50 says 45 50 60 80"), "ask 45, now 20 40 50 60 80"); // there is one yet nearer
    check("20 40 60 80", &then("50 closed"), "notify 60");
    check("20 40 60 80", &then("50 refuses"), "notify 60");
    check("20 40 60 80", &then("50 says - 50"), "notify 50, notify 60"); // in no ring: no successor yet
    check("20 40 60 80", &then("50 says 40 51 60"), ""); // it has moved: next time
}

#[test]
fn a_dead_successor_gives_way_to_the_next() {
    check("20 40 60 80", &["stabilize", "60 closed"], "ask 80, now 20 40 80");
    check("20 40 60 80", &["stabilize", "60 closed", "80 says 60 80 90"], "notify 80, now 20 40 80 90"); // 60 is not believed in
    check("20 40 60", &["stabilize", "60 closed"], "ask 20 for 41, now 20 40"); // alone: by way of the predecessor
    check("- 40 60", &["stabilize", "60 closed"], "now - 40");
    check("20 40 60 80", &["stabilize", "60 says - 60"], "ask 60"); // started again, or an old answer
    check("20 40 60 80", &["stabilize", "60 says - 60", "60 says 40 60 80"], "");
    let twice = ["stabilize", "60 says - 60", "60 says - 60"];
    check("20 40 60 80", &twice, "ask 80, notify 60, notify 80, now 20 40 80");
    check("20 40 60", &["stabilize", "60 says - 60"], "notify 60"); // the only one: it may just have been founded
    check("20 40 60 80", &["tick", "80 closed"], "now 20 40 60");
    check("20 40 60 80", &["tick", "80 is 81"], "now 20 40 60");
    check("20 40 60 80", &["tick", "80 is 80"], "");
}

#[test]
fn stabilize_alone() {
    check("- 40", &["stabilize"], "");
    check("20 40", &["stabilize"], "ask 20 for 41");
    check("20 40", &["stabilize", "20 owner 60 80"], "ask 60");
    check("20 40", &["stabilize", "20 owner 60 80", "60 says 20 60 10 20"], "notify 60, now 20 40 60 10 20");
    check("20 40", &["stabilize", "20 via 40"], "ask 20"); // it knows only us, or us from before
    check("20 40", &["stabilize", "20 via 40", "20 says - 20 40"], "notify 20, now 20 40 20");
    check("20 40", &["stabilize", "20 via 40", "20 says 10 20 60 80"], ""); // not yet: 60 would be skipped
    // Foreign nodes never notice that we were started again: the one behind us in their list is our successor.
    let counted_on = ["stabilize", "20 via 40", "20 says 10 20 40 60"];
    let then = |line| [&counted_on[..], &[line]].concat();
    check("20 40", &counted_on, "ask 60");
    check("20 40", &then("60 says 40 60 80 20"), "notify 60, now 20 40 60 80 20");
    check("20 40", &then("60 says - 60"), ""); // started again like us
    check("20 40", &then("60 closed"), "");
    check("20 40", &["stabilize", "20 closed"], "now - 40");
}

#[test]
fn every_tick_asks_all_neighbours() {
    check("- 40", &["tick"], "");
    check("20 40 60 80", &["tick"], "ask 60, ask 20, ping 80, ask 60 for 72, ask 80 for 104, ask 80 for 168");
    check("20 40 60 80", &["lost 60"], "ask 60");
    check("20 40 60 80", &["lost 80"], "ping 80");
    check("20 40 60 80", &["lost 20"], "ask 20");
    check("20 40 60 80", &["lost 99"], "");
}

#[test]
fn lookups() {
    check("- 40", &["find 50"], "found 40");
    check("20 40 60 80", &["find 30"], "found 40");
    check("20 40 60 80", &["find 40"], "found 40");
    check("20 40 60 80", &["find 50"], "ping 60");
    check("20 40 60 80", &["find 50", "60 is 60"], "found 60");
    check("20 40 60 80", &["find 60", "60 is 60"], "found 60");
    check("20 40 60 80", &["find 70"], "ask 60 for 70");
    check("20 40 60 80", &["find 70", "60 owner 80 90"], "ping 80");
    check("20 40 60 80", &["find 70", "60 owner 80 90", "80 is 80"], "found 80");
    check("20 40 60 80", &["find 90"], "ask 80 for 90");
    check("20 40 60 80", &["find 95", "80 via 90"], "ask 90 for 95");
    check("20 40 60 80", &["find 95", "80 via 90", "90 owner 100", "100 is 100"], "found 100");
    check("20 40 60 80", &["find 95", "80 via 90", "90 owner 40"], "found 40"); // ourselves: we are there
    check("- 40 60 80", &["find 30"], "ask 80 for 30"); // without a predecessor it vouches for nothing
}

/// Others may still count on it: a joining node that took it for the owner of everything skipped the whole ring.
#[test]
fn a_node_that_was_started_again_leads_nobody_astray() {
    let again = |known| Ring::new(node("40"), RingSettings::default(), known);
    assert_eq!(again(vec![]).route(node("50").id), RingRoute::Owner(vec![node("40")]));
    assert_eq!(again(nodes(&["60"])).route(node("50").id), RingRoute::Ask { nodes: vec![], beyond: vec![] });
    let found = Action::Found { tag: TAG, result: Ok(node("40")) };
    assert_eq!(again(nodes(&["60"])).handle(NOW, Event::FindSuccessor { tag: TAG, target: RingId(50) }), [found]);
}

#[test]
fn lookups_go_round_dead_hops() {
    check("20 40 60 80", &["find 90", "80 closed"], "ask 60 for 90, now 20 40 60");
    check("20 40 60 80", &["find 90", "80 refuses"], "ask 60 for 90"); // alive all the same
    check("20 40 60 80", &["find 90", "80 closed", "60 owner 80 100"], "ping 100"); // 80 is not believed in
    check("20 40 60 80", &["find 70", "60 closed"], "ask 80, ping 80, now 20 40 80");
    check("20 40 60 80", &["find 95", "80 via 90", "90 via 85"], "ask 60 for 95"); // no nearer: not followed
    check("20 40 60", &["find 90", "60 refuses"], "no route");
    let last = ["find 120", "80 via 100", "100 via 110 | 130 140"];
    let then = |lines: &[&'static str]| [&last[..], lines].concat();
    check("20 40 60 80", &then(&[]), "ask 110 for 120");
    check("20 40 60 80", &then(&["110 closed"]), "ping 130"); // what lies beyond the last that lives
    check("20 40 60 80", &then(&["110 silent"]), "ping 130");
    check("20 40 60 80", &then(&["110 owner 125 130"]), "ping 125"); // the nearest knows best
    check("20 40 60 80", &then(&["110 closed", "130 closed", "140 is 140"]), "found 140");
    check("20 40 60 80", &["find 120", "80 via 110 | 130", "110 closed"], "ping 130");
    let joining = ["join 60", "60 via 30", "30 via 35 | 50", "35 closed"];
    check("- 40", &joining, "ask 60"); // who joins does not go by it
    check("20 40 60", &["find 90", "60 closed"], "ask 20 for 41, found 40, now 20 40");
}

#[test]
fn a_lookup_never_finds_a_dead_node() {
    check("20 40 60 80", &["find 50", "60 closed"], "ask 80, ping 80, now 20 40 80");
    check("20 40 60 80", &["find 50", "60 closed", "80 is 80"], "found 80");
    check("20 40 60 80", &["find 50", "60 is 61"], "ask 80, ping 80, now 20 40 80"); // at another place: nobody is at 60
    check("20 40 60 80", &["find 50", "60 refuses"], "found 60"); // it is there
    check("20 40 60 80", &["find 50", "60 silent"], "ping 60"); // an answer may have been lost
    check("20 40 60 80", &["find 50", "60 silent", "60 is 60"], "found 60");
    check("20 40 60 80", &["find 50", "60 silent", "60 silent"], "ask 80, ping 80, now 20 40 80");
    check("20 40 60 80", &["find 70", "60 owner 80 90", "80 closed"], "ping 90, now 20 40 60");
    check("20 40 60", &["find 50", "leave"], "tell 20 of leaving, tell 60 of leaving, no route, now - 40");
}

#[test]
fn silence_is_not_death() {
    check("20 40 60 80", &["stabilize", "60 silent"], "ask 60");
    check("20 40 60 80", &["stabilize", "60 silent", "60 says 40 60 80"], "notify 60");
    check("20 40 60 80", &["stabilize", "60 silent", "60 silent"], "ask 80, now 20 40 80");
    check("20 40 60", &["check", "20 silent"], "ask 20");
    check("20 40 60", &["check", "20 silent", "20 silent"], "now - 40 60");
    check("- 40", &["join 60", "60 silent", "60 silent"], "no answer from 60");
    // A lookup goes on to others at once, the silent node is asked whether it is there, and again when nobody is left.
    check("20 40 60 80", &["find 90", "80 silent"], "ping 80, ask 60 for 90");
    check("20 40 60 80", &["find 70", "60 silent"], "ask 60, ask 60 for 70");
    check("20 40 60 80", &["find 70", "60 silent", "60 owner 80 90"], "ping 80");
    check("20 40 60 80", &["find 70", "60 silent", "find 95"], "ask 80 for 95"); // others first
}

#[test]
fn join() {
    check("- 40", &["join 60"], "ask 60 for 40");
    check("- 40", &["join 60", "60 owner 60"], "ask 60");
    check("- 40", &["join 60", "60 owner 60", "60 says - 60"], "notify 60, joined, now - 40 60");
    check("- 40", &["join 60", "60 owner 80 90"], "ask 80");
    check("- 40", &["join 60", "60 owner 80 90", "80 says - 80 90 60"], "notify 80, joined, now - 40 80 90");
    check("- 40", &["join 60", "60 owner 80 90", "80 closed"], "no answer from 80");
    check("- 40", &["join 60", "60 owner 80 90", "80 says - 80"], "not yet by 80"); // it was started again
    check("- 40", &["join 60", "60 closed"], "no answer from 60");
    check("- 40", &["join 60", "60 refuses"], "ask 60"); // it cannot route; its neighbours may do
    check("- 40", &["join 60", "60 owner 40' 60"], "id is that of 40'");
    check("- 40", &["join 60", "60 owner 40 60"], "ask 60"); // the ring counts on us from before
    check("- 40", &["join 40"], "it is ourselves");
    check("20 40 60", &["join 80"], "joined"); // in a ring already
    check(
        "20 40 60",
        &["join 80", "tick"],
        "ask 60, ask 20, ask 60 for 72, ask 60 for 104, ask 60 for 168, ask 80 for 41",
    );
    check("20 40 60", &["leave", "join 80"], "we have left");
}

#[test]
fn remembered_peers_are_asked_for_their_ring() {
    let remembering = |state: &str, script: &[&str], wanted: &str| {
        let all = [&["join 200"], script].concat();
        check(state, &all, wanted);
    };
    let found = |owner| ["tick", owner];
    remembering("20 40 60", &found("200 owner 60 80"), ""); // the same ring
    remembering("20 40 60", &found("200 owner 50 80"), "ask 50"); // somebody nearer
    remembering("20 40 60", &found("200 owner 80 90"), "notify 80"); // a ring that does not know us
    remembering("20 40 60", &["tick", "200 owner 50 80", "50 says 30 50 80"], "notify 50, now 20 40 50 80");
    remembering("20 40 60", &["tick", "200 owner 50 80", "50 closed"], "");
    remembering("20 40 60", &["tick", "200 closed"], "");
}

#[test]
fn two_nodes_with_one_id() {
    check("20 40 60", &["stabilize", "60 says 40' 60 20"], "ping 40', now 20 40 60 20");
    let met = ["stabilize", "60 says 40' 60"];
    let then = |line| [&met[..], &[line]].concat();
    check("20 40 60", &then("40' is 40"), "moving, 40' has the id, now - 40");
    check("20 40 60", &then("40' is 41"), "notify 60");
    check("20 40 60", &then("40' closed"), "notify 60");
    check("- 40", &["move 50"], "now - 50'");
    check("20 40 60", &["move 50"], ""); // only a node that is alone may
}

/// It has lost its predecessor, or has none yet: a node behind it is none, or the arc of almost the whole ring would be
/// its own.
#[test]
fn a_newcomer_behind_is_found_and_taken_for_no_predecessor() {
    check("- 20 40 60", &["followed 25"], "ask 40");
    check("- 20 40 60", &["followed 25", "40 says 25 40 60"], "ask 25");
    check("- 20 40 60", &["followed 25", "40 says 25 40 60", "25 says 20 25 40 60"], "notify 25, now - 20 25 40 60");
    // Its earlier silence no longer counts.
    check("- 20 25 40", &["stabilize", "25 closed", "stabilize", "40 says 25 40 60"], "notify 40, now - 20 40 60");
    check("- 20 25 40", &["stabilize", "25 closed", "followed 25", "40 says 25 40 60"], "ask 25, now - 20 40 60");
}

#[test]
fn leaving() {
    check("20 40 60 80", &["leave"], "tell 20 of leaving, tell 60 of leaving, now - 40");
    check("20 40 20", &["leave"], "tell 20 of leaving, now - 40");
    check("- 40", &["leave"], "");
    for ignored in ["tick", "stabilize", "check", "notified 25", "lost 60", "left 20 60 80", "move 50", "leave"] {
        check("20 40 60", &["leave", ignored], "");
    }
    check("20 40 60", &["leave", "find 50"], "no route");
    check("20 40 60", &["find 90", "leave"], "tell 20 of leaving, tell 60 of leaving, no route, now - 40");
    check("- 40", &["join 60", "leave"], "we have left");
    check("20 40 60 80", &["left 40 60 80 90"], "ask 80, now 20 40 80");
    check("20 40 60 80", &["left 10 20 40 60"], "ask 10, now 10 40 60 80");
    check("- 40 60", &["left 40 60 80 90"], "ask 80 for 41, now - 40");
    check("20 40 60", &["left 40 90 100"], ""); // nobody we know
    check("20 40 60", &["left 20 40 60"], ""); // not for others to say
}

#[test]
fn an_answer_too_many_does_nothing() {
    let mut ring = ring("20 40 60 80");
    let answer = || RingAnswer::Neighbours(view(&["50", "60", "80"]));
    assert_eq!(ring.handle(NOW, Event::Answered { call: 99, answer: answer() }), vec![]);
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Unanswered { call, why: CallFailure::Unreachable });
    assert_eq!(ring.handle(NOW, Event::Answered { call, answer: answer() }), vec![]);
}

#[test]
fn an_answer_does_not_lead_back_into_a_ring_that_was_left() {
    let mut ring = ring("20 40 60 80");
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Leave);
    let answer = RingAnswer::Neighbours(view(&["40", "60", "80"]));
    assert_eq!(ring.handle(NOW, Event::Answered { call, answer }), vec![]);
}

/// A peer may answer anything; what does not fit the question counts as no answer.
#[test]
fn an_answer_of_the_wrong_kind_is_none() {
    let mut ring = ring("20 40 60 80");
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Answered { call, answer: RingAnswer::Info(node("60")) });
    assert_eq!(ring.neighbours(), view(&["20", "40", "80"]));
}

#[test]
fn silence_is_forgotten_after_a_while() {
    let mut ring = ring("20 40 60 80");
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Unanswered { call, why: CallFailure::Unreachable });
    let later = NOW + RingSettings::default().silent_for;
    let call = open_call(&ring, "80", |_| true);
    let actions =
        ring.handle(later, Event::Answered { call, answer: RingAnswer::Neighbours(view(&["60", "80", "20"])) });
    assert!(actions.iter().filter_map(told).any(|action| action == "ask 60"), "{actions:?}");
}

#[test]
fn remembered_peers_are_bounded_and_asked_in_turn() {
    let mut known = KnownPeers::new(3);
    nodes(&["1", "2", "3", "4", "4"]).into_iter().for_each(|peer| known.add(peer));
    assert_eq!(known.all(), nodes(&["2", "3", "4"]));
    let turns: Vec<NodeRef> = (0..4).filter_map(|_| known.next(|peer| peer != node("3"))).collect();
    assert_eq!(turns, nodes(&["2", "4", "2", "4"]));
    known.remove(node("2"));
    assert_eq!(known.next(|peer| peer == node("2")), None);
}
