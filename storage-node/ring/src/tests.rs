//! Every event in every state, one line each.
//!
//! A state is written `20 40 60 80`: predecessor 20, self 40, successors 60 and 80; `-` is no predecessor, `- 40` a
//! ring of one. `60'` is another node with the id 60. A script is a sequence of events; each check compares the actions
//! that the last event leads to. Random histories are tested in `tests/ring`.

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

/// The pending call to this node whose purpose fits the answer.
fn open_call(ring: &Ring, to: &str, fits: impl Fn(Purpose) -> bool) -> CallId {
    let open = ring.calls.iter().find(|(_, call)| call.to == node(to) && fits(call.purpose));
    *open.unwrap_or_else(|| panic!("no pending call to {to}: {:?}", ring.calls)).0
}

fn event(ring: &Ring, words: &[&str]) -> Event {
    let is_ping = |purpose| matches!(purpose, Purpose::Liveness | Purpose::Rival | Purpose::Owner { .. });
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
        ["foreign", peer] => Event::KindKnown { peer: node(peer).ring_address(), is_foreign: true },
        ["ours", peer] => Event::KindKnown { peer: node(peer).ring_address(), is_foreign: false },
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
            let route = RingRoute::NextHops { nodes: nodes(before), beyond: nodes(beyond) };
            answered(open_call(ring, from, is_hop), RingAnswer::Route(route))
        }
        [from, "timeout"] => {
            Event::Unanswered { call: open_call(ring, from, |_| true), failure: CallFailure::TimedOut }
        }
        [from, "closed"] => {
            Event::Unanswered { call: open_call(ring, from, |_| true), failure: CallFailure::Unreachable }
        }
        [from, "refuses"] => Event::Unanswered { call: open_call(ring, from, |_| true), failure: CallFailure::Refused },
        other => panic!("no event {other:?}"),
    }
}

fn name(node: NodeRef) -> String {
    let is_other = node.ring_address() != self::node(&node.id.to_string()).ring_address();
    format!("{}{}", node.id, if is_other { "'" } else { "" })
}

fn describe_action(action: &Action) -> Option<String> {
    Some(match action {
        Action::Call { to, request: RingRequest::Neighbours, .. } => format!("ask {}", name(*to)),
        Action::Call { to, request: RingRequest::Info, .. } => format!("ping {}", name(*to)),
        Action::Call { to, request: RingRequest::Route(id), .. } => format!("ask {} for {id}", name(*to)),
        Action::Send { to, message: Message::Notify(_) } => format!("notify {}", name(*to)),
        Action::Send { to, message: Message::Leave(_) } => format!("leave to {}", name(*to)),
        Action::Found { result: Ok(node), .. } => format!("found {}", name(*node)),
        Action::Found { result: Err(_), .. } => "no route".to_owned(),
        Action::Joined { result: Ok(()), .. } => "joined".to_owned(),
        Action::Joined { result: Err(error), .. } => match error {
            JoinError::NotYet { member } => format!("not yet by {}", name(*member)),
            JoinError::NoAnswer { member } => format!("no answer from {}", name(*member)),
            JoinError::IdTaken { by } => format!("id taken by {}", name(*by)),
            JoinError::Itself { .. } => "cannot join itself".to_owned(),
            JoinError::Left => "has left".to_owned(),
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
    let outcome: Vec<String> = last.iter().filter_map(describe_action).collect();
    assert_eq!(outcome.join(", "), wanted, "{state}: {script:?}");
}

#[track_caller]
fn check_notify(state_and_peer: &str, wanted: &str) {
    let (state, peer) = state_and_peer.split_once(" | ").expect("a state and the notifying peer");
    check(state, &[&format!("notified {peer}")], wanted);
}

#[test]
fn rectify() {
    check_notify("20 40 60 | 25", "ask 25, now 25 40 60"); // between: adopted, and checked
    check_notify("20 40 60 | 10", "ask 20"); // not between: the present one is checked
    check_notify("20 40 60 | 20", "");
    check_notify("- 40 60 | 50", "ask 50, now 50 40 60"); // any predecessor is better than none
    check_notify("20 40 60 | 40", ""); // this node itself
    check_notify("20 40 60 | 40'", ""); // our id at another address
    check_notify("20 40 60 | 20'", "ask 20"); // its id at another address: the first stays while it answers
    check_notify("- 40 | 25", "ask 25, ask 25 for 41, now 25 40"); // alone: the peer also leads to a successor
}

#[test]
fn the_predecessor_is_checked() {
    check("20 40 60", &["check"], "ask 20");
    check("- 40 60", &["check"], "");
    check("20 40 60", &["check", "check"], ""); // one call at a time
    check("20 40 60", &["check", "20 says 10 20 40"], "");
    check("20 40 60", &["check", "20 closed"], "now - 40 60");
    check("20 40 60", &["check", "20 says - 20"], "ask 20"); // there, but in no ring? That may be long ago
    check("20 40 60", &["check", "20 says - 20", "20 says 10 20 40"], "");
    check("20 40 60", &["check", "20 says - 20", "20 says - 20"], "notify 20, notify 60, now - 40 60");
    check("20 40 60", &["notified 10", "20 says - 20", "20 says - 20"], "ask 10, notify 20, notify 60, now 10 40 60");
    check("20 40 60", &["check", "20 says 10 21 40"], "now - 40 60"); // has moved to 21
    check("20 40 60", &["notified 10", "20 closed"], "ask 10, now 10 40 60");
    check("20 40 60", &["notified 10", "20 says 10 20 40"], "");
    check("20 40 60", &["notified 25", "25 closed"], "ask 20, now 20 40 60"); // a false predecessor does not last
    check("20 40 20", &["check", "20 closed"], "now - 40"); // it was the successor too
}

#[test]
fn stabilize_adopts_the_list_and_notifies_the_successor() {
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
fn a_candidate_is_contacted_before_it_is_adopted() {
    check("20 40 60 80", &["stabilize", "60 says 50 60 80"], "ask 50");
    let asked = ["stabilize", "60 says 50 60 80"];
    let then = |line| [&asked[..], &[line]].concat();
    check("20 40 60 80", &then("50 says 40 50 60 80"), "notify 50, now 20 40 50 60 80");
    check("20 40 60 80", &then("50 says 45 50 60 80"), "ask 45, now 20 40 50 60 80"); // there is an even nearer node
    check("20 40 60 80", &then("50 closed"), "notify 60");
    check("20 40 60 80", &then("50 refuses"), "notify 60");
    check("20 40 60 80", &then("50 says - 50"), "notify 50, notify 60"); // alone: no successor yet
    check("20 40 60 80", &then("50 says 40 51 60"), ""); // it has moved: the next period finds it
}

#[test]
fn a_dead_successor_gives_way_to_the_next() {
    check("20 40 60 80", &["stabilize", "60 closed"], "ask 80, now 20 40 80");
    check("20 40 60 80", &["stabilize", "60 closed", "80 says 60 80 90"], "notify 80, now 20 40 80 90"); // 60 is in quarantine
    check("20 40 60", &["stabilize", "60 closed"], "ask 20 for 41, now 20 40"); // alone: through the predecessor
    check("- 40 60", &["stabilize", "60 closed"], "now - 40");
    check("20 40 60 80", &["stabilize", "60 says - 60"], "ask 60"); // restarted, or an outdated answer
    check("20 40 60 80", &["stabilize", "60 says - 60", "60 says 40 60 80"], "");
    let twice = ["stabilize", "60 says - 60", "60 says - 60"];
    check("20 40 60 80", &twice, "ask 80, notify 60, notify 80, now 20 40 80");
    check("20 40 60", &["stabilize", "60 says - 60"], "notify 60"); // the only successor: it may just have been founded
    check("20 40 60 80", &["tick", "80 closed"], "now 20 40 60");
    check("20 40 60 80", &["tick", "80 is 81"], "now 20 40 60");
    check("20 40 60 80", &["tick", "80 is 80"], "");
}

#[test]
fn a_lone_node_stabilizes_through_its_predecessor() {
    check("- 40", &["stabilize"], "");
    check("20 40", &["stabilize"], "ask 20 for 41");
    check("20 40", &["stabilize", "20 owner 60 80"], "ask 60");
    check("20 40", &["stabilize", "20 owner 60 80", "60 says 20 60 10 20"], "notify 60, now 20 40 60 10 20");
    check("20 40", &["stabilize", "20 via 40"], "ask 20"); // it knows only us, or lists us from before a restart
    check("20 40", &["stabilize", "20 via 40", "20 says - 20 40"], "notify 20, now 20 40 20");
    check("20 40", &["stabilize", "20 via 40", "20 says 10 20 60 80"], ""); // not yet: 60 would be skipped
    // Foreign nodes never notice that we restarted: the node after us in their list is our successor.
    let still_listed = ["stabilize", "20 via 40", "20 says 10 20 40 60"];
    let then = |line| [&still_listed[..], &[line]].concat();
    check("20 40", &still_listed, "ask 60");
    check("20 40", &then("60 says 40 60 80 20"), "notify 60, now 20 40 60 80 20");
    check("20 40", &then("60 says - 60"), ""); // restarted like us
    check("20 40", &then("60 closed"), "");
    check("20 40", &["stabilize", "20 closed"], "now - 40");
}

#[test]
fn every_tick_checks_all_neighbours() {
    check("- 40", &["tick"], "");
    check("20 40 60 80", &["tick"], "ask 60, ask 20, ping 80, ask 60 for 72, ask 80 for 104, ask 80 for 168");
    check("20 40 60 80", &["lost 60"], "ask 60");
    check("20 40 60 80", &["lost 80"], "ping 80");
    check("20 40 60 80", &["lost 20"], "ask 20");
    check("20 40 60 80", &["lost 99"], "");
}

#[test]
fn lookups_follow_hops_and_check_the_owner() {
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
    check("20 40 60 80", &["find 95", "80 via 90", "90 owner 40"], "found 40"); // this node itself needs no check
    check("- 40 60 80", &["find 30"], "ask 80 for 30"); // without a predecessor it knows no arc of its own
}

/// The story: a foreign node with one thread forwarded a lookup and was called within it, so it counted as dead, and
/// the node after it was named.
#[test]
fn a_lookup_does_not_call_foreign_nodes() {
    check("20 40 60 80", &["foreign 60", "find 50"], "found 60");
    check("20 40 60 80", &["foreign 60", "find 70"], "ping 80"); // our list reaches beyond the foreign hop
    check("20 40 60 80", &["foreign 60", "foreign 80", "find 70"], "found 80");
    check("20 40 60 80", &["foreign 60", "find 95"], "ask 80 for 95");
    check("20 40 60 80", &["foreign 80", "find 95"], "ask 60 for 95"); // ours first, though farther from the target
    check("20 40 60 80", &["foreign 80", "find 95", "60 via 80 | 100", "100 is 100"], "found 100");
    check("20 40 60 80", &["foreign 80", "foreign 100", "find 95", "60 via 80 | 100"], "found 100");
    check("20 40 60 80", &["foreign 80", "find 95", "60 via 80"], "ask 80 for 95"); // nothing else leads on
    check("20 40 60 80", &["foreign 60", "ours 60", "find 50"], "ping 60");
    check("- 40", &["foreign 60", "join 60"], "ask 60 for 40"); // a join may
}

/// The story: others may still list a restarted node. A joining node that took it for the owner of everything skipped
/// the whole ring.
#[test]
fn a_restarted_node_does_not_name_itself_the_owner_of_everything() {
    let again = |known| Ring::new(node("40"), RingSettings::default(), known);
    assert_eq!(again(vec![]).route(node("50").id), RingRoute::Owner(vec![node("40")]));
    assert_eq!(again(nodes(&["60"])).route(node("50").id), RingRoute::NextHops { nodes: vec![], beyond: vec![] });
    let found = Action::Found { tag: TAG, result: Ok(node("40")) };
    assert_eq!(again(nodes(&["60"])).handle(NOW, Event::FindSuccessor { tag: TAG, target: RingId(50) }), [found]);
}

#[test]
fn lookups_bypass_dead_hops() {
    check("20 40 60 80", &["find 90", "80 closed"], "ask 60 for 90, now 20 40 60");
    check("20 40 60 80", &["find 90", "80 refuses"], "ask 60 for 90"); // alive nevertheless
    check("20 40 60 80", &["find 90", "80 closed", "60 owner 80 100"], "ping 100"); // 80 is in quarantine
    check("20 40 60 80", &["find 70", "60 closed"], "ask 80, ping 80, now 20 40 80");
    check("20 40 60 80", &["find 95", "80 via 90", "90 via 85"], "ask 60 for 95"); // not nearer: ignored
    check("20 40 60", &["find 90", "60 refuses"], "no route");
    let last = ["find 120", "80 via 100", "100 via 110 | 130 140"];
    let then = |lines: &[&'static str]| [&last[..], lines].concat();
    check("20 40 60 80", &then(&[]), "ask 110 for 120");
    check("20 40 60 80", &then(&["110 closed"]), "ping 130"); // the node beyond the last live hop
    check("20 40 60 80", &then(&["110 timeout"]), "ping 130");
    check("20 40 60 80", &then(&["110 owner 125 130"]), "ping 125"); // the nearest hop knows best
    check("20 40 60 80", &then(&["110 closed", "130 closed", "140 is 140"]), "found 140");
    check("20 40 60 80", &["find 120", "80 via 110 | 130", "110 closed"], "ping 130");
    let joining = ["join 60", "60 via 30", "30 via 35 | 50", "35 closed"];
    check("- 40", &joining, "ask 60"); // a join ignores the nodes beyond
    check("20 40 60", &["find 90", "60 closed"], "ask 20 for 41, found 40, now 20 40");
}

#[test]
fn a_lookup_never_finds_a_dead_node() {
    check("20 40 60 80", &["find 50", "60 closed"], "ask 80, ping 80, now 20 40 80");
    check("20 40 60 80", &["find 50", "60 closed", "80 is 80"], "found 80");
    check("20 40 60 80", &["find 50", "60 is 61"], "ask 80, ping 80, now 20 40 80"); // it has moved: no node is at 60
    check("20 40 60 80", &["find 50", "60 refuses"], "found 60"); // it is alive
    check("20 40 60 80", &["find 50", "60 timeout"], "ping 60"); // an answer may have been lost
    check("20 40 60 80", &["find 50", "60 timeout", "60 is 60"], "found 60");
    check("20 40 60 80", &["find 50", "60 timeout", "60 timeout"], "ask 80, ping 80, now 20 40 80");
    check("20 40 60 80", &["find 70", "60 owner 80 90", "80 closed"], "ping 90, now 20 40 60");
    check("20 40 60", &["find 50", "leave"], "leave to 20, leave to 60, no route, now - 40");
}

#[test]
fn one_time_out_does_not_make_a_node_dead() {
    check("20 40 60 80", &["stabilize", "60 timeout"], "ask 60");
    check("20 40 60 80", &["stabilize", "60 timeout", "60 says 40 60 80"], "notify 60");
    check("20 40 60 80", &["stabilize", "60 timeout", "60 timeout"], "ask 80, now 20 40 80");
    check("20 40 60", &["check", "20 timeout"], "ask 20");
    check("20 40 60", &["check", "20 timeout", "20 timeout"], "now - 40 60");
    check("- 40", &["join 60", "60 timeout", "60 timeout"], "no answer from 60");
    // A lookup tries other hops at once. The hop that timed out is checked, and tried again when no other is left.
    check("20 40 60 80", &["find 90", "80 timeout"], "ping 80, ask 60 for 90");
    check("20 40 60 80", &["find 70", "60 timeout"], "ask 60, ask 60 for 70");
    check("20 40 60 80", &["find 70", "60 timeout", "60 owner 80 90"], "ping 80");
    check("20 40 60 80", &["find 70", "60 timeout", "find 95"], "ask 80 for 95"); // others first
}

#[test]
fn a_join_takes_the_successor_with_its_list() {
    check("- 40", &["join 60"], "ask 60 for 40");
    check("- 40", &["join 60", "60 owner 60"], "ask 60");
    check("- 40", &["join 60", "60 owner 60", "60 says - 60"], "notify 60, joined, now - 40 60");
    check("- 40", &["join 60", "60 owner 80 90"], "ask 80");
    check("- 40", &["join 60", "60 owner 80 90", "80 says - 80 90 60"], "notify 80, joined, now - 40 80 90");
    check("- 40", &["join 60", "60 owner 80 90", "80 closed"], "no answer from 80");
    check("- 40", &["join 60", "60 owner 80 90", "80 says - 80"], "not yet by 80"); // it has restarted
    check("- 40", &["join 60", "60 closed"], "no answer from 60");
    check("- 40", &["join 60", "60 refuses"], "ask 60"); // it cannot route; its neighbours may lead on
    check("- 40", &["join 60", "60 owner 40' 60"], "id taken by 40'");
    check("- 40", &["join 60", "60 owner 40 60"], "ask 60"); // the ring still lists us from before a restart
    check("- 40", &["join 40"], "cannot join itself");
    check("20 40 60", &["join 80"], "ask 80"); // in a ring already
    check("20 40 60", &["join 80", "80 says 60 80 20"], "joined");
    check(
        "20 40 60",
        &["join 80", "80 says 60 80 20", "tick"],
        "ask 60, ask 20, ask 60 for 72, ask 60 for 104, ask 60 for 168, ask 80 for 41",
    );
    check("20 40 60", &["leave", "join 80"], "has left");
}

/// The story: the call `notify` with a dead address left it in `ring.json`, up to 64 of them, and the node asked each
/// every few seconds. A founder that was alone named no owner of anything from then on.
#[test]
fn a_peer_that_only_announced_itself_is_forgotten_when_it_fails() {
    let run = |state: &str, script: &[&str]| {
        let mut ring = ring(state);
        for line in script {
            let event = event(&ring, &line.split(' ').collect::<Vec<_>>());
            ring.handle(NOW, event);
        }
        (ring.known().to_vec(), ring)
    };
    let known = |state: &str, script: &[&str]| run(state, script).0;
    let notified = ["notified 30"];
    assert_eq!(known("20 40 60", &notified), nodes(&["30", "60"]));
    assert_eq!(known("20 40 60", &[&notified[..], &["30 closed"]].concat()), nodes(&["60", "20"]));
    let answered = [&notified[..], &["30 says 20 30 40", "check"]].concat();
    assert!(known("20 40 60", &[&answered[..], &["30 closed"]].concat()).contains(&node("30")), "a divided ring");
    let (known, founder) = run("- 40", &["notified 30", "30 closed", "30 closed"]);
    assert_eq!(known, []);
    assert_eq!(founder.route(RingId(50)), RingRoute::Owner(vec![node("40")]));
}

/// The story: the call `join` with a dead address at a node in a ring succeeded, and the node asked that address every
/// few seconds from then on.
#[test]
fn a_node_in_a_ring_remembers_no_peer_that_does_not_answer() {
    let remembered = |script: &[&str]| {
        let mut ring = ring("20 40 60");
        for line in script {
            let event = event(&ring, &line.split(' ').collect::<Vec<_>>());
            ring.handle(NOW, event);
        }
        ring.known().to_vec()
    };
    for failure in ["80 closed", "80 refuses"] {
        check("20 40 60", &["join 80", failure], "no answer from 80");
        assert_eq!(remembered(&["join 80", failure]), []);
    }
    check("20 40 60", &["join 80", "80 timeout", "80 timeout"], "no answer from 80");
    assert_eq!(remembered(&["join 80", "80 says 60 80 20"]), [node("80")]);
}

#[test]
fn rings_are_searched_through_remembered_peers() {
    let remembering = |state: &str, script: &[&str], wanted: &str| {
        let all = [&["join 200", "200 says 100 200 210"], script].concat();
        check(state, &all, wanted);
    };
    let found = |owner| ["tick", owner];
    remembering("20 40 60", &found("200 owner 60 80"), ""); // the same ring
    remembering("20 40 60", &found("200 owner 50 80"), "ask 50"); // a nearer node
    remembering("20 40 60", &found("200 owner 80 90"), "notify 80"); // a ring that does not know us
    remembering("20 40 60", &["tick", "200 owner 50 80", "50 says 30 50 80"], "notify 50, now 20 40 50 80");
    remembering("20 40 60", &["tick", "200 owner 50 80", "50 closed"], "");
    remembering("20 40 60", &["tick", "200 closed"], "");
}

#[test]
fn of_two_nodes_with_one_id_the_newcomer_moves() {
    check("20 40 60", &["stabilize", "60 says 40' 60 20"], "ping 40', now 20 40 60 20");
    let met = ["stabilize", "60 says 40' 60"];
    let then = |line| [&met[..], &[line]].concat();
    check("20 40 60", &then("40' is 40"), "moving, 40' has the id, now - 40");
    check("20 40 60", &then("40' is 41"), "notify 60");
    check("20 40 60", &then("40' closed"), "notify 60");
    check("- 40", &["move 50"], "now - 50'");
    check("20 40 60", &["move 50"], ""); // only a lone node may move
}

/// This node has lost its predecessor, or has none yet. It must not take the newcomer after it as its predecessor, or
/// it would own the arc of almost the whole ring.
#[test]
fn a_newcomer_after_this_node_becomes_the_successor_not_the_predecessor() {
    check("- 20 40 60", &["followed 25"], "ask 40");
    check("- 20 40 60", &["followed 25", "40 says 25 40 60"], "ask 25");
    check("- 20 40 60", &["followed 25", "40 says 25 40 60", "25 says 20 25 40 60"], "notify 25, now - 20 25 40 60");
    // The report ends the newcomer's quarantine.
    check("- 20 25 40", &["stabilize", "25 closed", "stabilize", "40 says 25 40 60"], "notify 40, now - 20 40 60");
    check("- 20 25 40", &["stabilize", "25 closed", "followed 25", "40 says 25 40 60"], "ask 25, now - 20 40 60");
}

#[test]
fn a_leaving_node_notifies_its_neighbours_and_ignores_later_events() {
    check("20 40 60 80", &["leave"], "leave to 20, leave to 60, now - 40");
    check("20 40 20", &["leave"], "leave to 20, now - 40");
    check("- 40", &["leave"], "");
    for ignored in ["tick", "stabilize", "check", "notified 25", "lost 60", "left 20 60 80", "move 50", "leave"] {
        check("20 40 60", &["leave", ignored], "");
    }
    check("20 40 60", &["leave", "find 50"], "no route");
    check("20 40 60", &["find 90", "leave"], "leave to 20, leave to 60, no route, now - 40");
    check("- 40", &["join 60", "leave"], "has left");
    check("20 40 60 80", &["left 40 60 80 90"], "ask 80, now 20 40 80");
    check("20 40 60 80", &["left 10 20 40 60"], "ask 10, now 10 40 60 80");
    check("- 40 60", &["left 40 60 80 90"], "ask 80 for 41, now - 40");
    check("20 40 60", &["left 40 90 100"], ""); // an unknown node
    check("20 40 60", &["left 20 40 60"], ""); // our own leaving is not for others to report
}

#[test]
fn a_surplus_answer_is_ignored() {
    let mut ring = ring("20 40 60 80");
    let answer = || RingAnswer::Neighbours(view(&["50", "60", "80"]));
    assert_eq!(ring.handle(NOW, Event::Answered { call: 99, answer: answer() }), vec![]);
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Unanswered { call, failure: CallFailure::Unreachable });
    assert_eq!(ring.handle(NOW, Event::Answered { call, answer: answer() }), vec![]);
}

#[test]
fn an_answer_does_not_lead_back_into_a_ring_after_leaving() {
    let mut ring = ring("20 40 60 80");
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Leave);
    let answer = RingAnswer::Neighbours(view(&["40", "60", "80"]));
    assert_eq!(ring.handle(NOW, Event::Answered { call, answer }), vec![]);
}

/// A peer may answer anything; an answer that does not match its request counts as a refusal.
#[test]
fn an_answer_of_the_wrong_kind_is_a_refusal() {
    let mut ring = ring("20 40 60 80");
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Answered { call, answer: RingAnswer::Info(node("60")) });
    assert_eq!(ring.neighbours(), view(&["20", "40", "80"]));
}

#[test]
fn quarantine_ends_after_a_while() {
    let mut ring = ring("20 40 60 80");
    ring.handle(NOW, Event::Stabilize);
    let call = open_call(&ring, "60", |_| true);
    ring.handle(NOW, Event::Unanswered { call, failure: CallFailure::Unreachable });
    let later = NOW + RingSettings::default().quarantine;
    let call = open_call(&ring, "80", |_| true);
    let actions =
        ring.handle(later, Event::Answered { call, answer: RingAnswer::Neighbours(view(&["60", "80", "20"])) });
    assert!(actions.iter().filter_map(describe_action).any(|action| action == "ask 60"), "{actions:?}");
}

#[test]
fn remembered_peers_are_bounded_and_tried_in_turn() {
    let mut known = KnownPeers::new(3);
    nodes(&["1", "2", "3", "4", "4"]).into_iter().for_each(|peer| known.add(peer));
    assert_eq!(known.all(), nodes(&["2", "3", "4"]));
    let turns: Vec<NodeRef> = (0..4).filter_map(|_| known.next(|peer| peer != node("3"))).collect();
    assert_eq!(turns, nodes(&["2", "4", "2", "4"]));
    known.remove(node("2"));
    known.add_named(node("3"));
    known.add_named(node("5"));
    ["3", "4", "5"].into_iter().for_each(|peer| known.note_failure(node(peer)));
    assert_eq!(known.all(), nodes(&["3", "4"]), "those that have answered stay");
    assert_eq!(known.next(|peer| peer == node("2")), None);
}
