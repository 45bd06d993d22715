//! Changes before they are logged, and claims. The simulation tries the rules together.

use chordfs_types::namespace::EntryName;

use super::*;

const ONE: SessionId = SessionId(1);
const TWO: SessionId = SessionId(2);
const THREE: SessionId = SessionId(3);
const FILE: Ino = Ino(5);
const DIRECTORY: Ino = Ino(6);
const LEASE: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(100);

/// A table with attached sessions.
fn table(sessions: &[SessionId]) -> LeaseTable {
    let max_per_session = NonZeroUsize::new(100).unwrap();
    let mut table = LeaseTable::new(LeaseSettings { duration: LEASE, max_per_session });
    table.begin_term([], START);
    sessions.iter().for_each(|session| table.attach(*session, &[], |_| true, START));
    table
}

fn name(text: &str) -> Vec<ChangeKey> {
    vec![ChangeKey::Name(DIRECTORY, EntryName::new(text.to_owned()).unwrap())]
}

/// What the sessions are told since the last call.
fn notices(table: &mut LeaseTable) -> Vec<(SessionId, NoticeKind, Vec<Ino>)> {
    table.take_notices().into_iter().map(|notice| (notice.id.session, notice.kind, notice.inos)).collect()
}

fn acknowledge(table: &mut LeaseTable) {
    for notice in table.take_notices() {
        table.acknowledge(notice.id, true);
    }
}

#[test]
fn a_change_waits_for_whoever_may_have_answered_others_and_then_nobody_may_until_it_is_applied() {
    let mut table = table(&[ONE, TWO]);
    assert_eq!(table.grant(ONE, FILE, START), Some(Lease::Sole));
    let (change, wait) = table.prepare_change(None, Some(TWO), &[FILE], Vec::new(), START);
    assert!(wait.is_some() && table.take_released().is_empty());
    acknowledge(&mut table);
    assert_eq!(table.take_released(), wait.as_slice());
    assert_eq!(table.grant(ONE, FILE, START), Some(Lease::Shared), "the change was recalled for");
    assert_eq!(table.prepare_change(Some(change), Some(TWO), &[FILE], Vec::new(), START), (change, None));
    acknowledge(&mut table);
    assert_eq!(table.grant(ONE, FILE, START), Some(Lease::Shared), "it is on its way into the log");
    table.end_change(change);
    assert_eq!(table.grant(ONE, FILE, START), Some(Lease::Sole));
}

/// Otherwise a mount that logs what it has answered, because others wait for it, could wait for them.
#[test]
fn a_session_that_is_alone_waits_for_nothing() {
    let mut table = table(&[ONE, TWO]);
    for ino in [FILE, DIRECTORY] {
        table.grant(ONE, ino, START);
    }
    let (first, _) = table.prepare_change(None, Some(ONE), &[DIRECTORY], name("a"), START);
    let (_, wait) = table.prepare_change(None, Some(TWO), &[DIRECTORY], name("a"), START);
    assert!(wait.is_some());
    let (second, wait) = table.prepare_change(None, Some(ONE), &[DIRECTORY, FILE], name("a"), START);
    assert_eq!((wait, table.settled_change(second)), (None, None));
    assert_ne!(first, second);
}

#[test]
fn changes_of_the_same_name_go_into_the_log_one_after_the_other() {
    let mut table = table(&[ONE, TWO]);
    for session in [ONE, TWO] {
        assert!(table.grant(session, DIRECTORY, START).is_some() || session == TWO);
    }
    let (first, wait) = table.prepare_change(None, Some(ONE), &[], name("a"), START);
    assert_eq!(wait, None);
    acknowledge(&mut table);
    let (other, wait) = table.prepare_change(None, Some(TWO), &[FILE], name("b"), START);
    assert_eq!(wait, None, "another name of the same directory");
    let (second, wait) = table.prepare_change(None, Some(TWO), &[FILE], name("a"), START);
    assert!(wait.is_some());
    table.end_change(other);
    assert_eq!(table.take_released(), []);
    table.end_change(first);
    assert_eq!(table.take_released(), wait.as_slice());
    assert_eq!(table.prepare_change(Some(second), Some(TWO), &[FILE], name("a"), START), (second, None));
    table.end_term();
    let (again, wait) = table.prepare_change(Some(second), Some(TWO), &[FILE], name("a"), START);
    assert!(again != second && wait.is_none(), "the term of the first one has ended");
}

#[test]
fn a_broken_connection_costs_no_sole_lease_that_is_claimed() {
    let mut table = table(&[ONE, TWO]);
    for ino in [FILE, DIRECTORY] {
        assert_eq!(table.grant(ONE, ino, START), Some(Lease::Sole));
    }
    let (change, wait) = table.prepare_change(None, Some(TWO), &[FILE], Vec::new(), START);
    assert_eq!(notices(&mut table), [(ONE, NoticeKind::Recalled, vec![FILE])]);
    let unborn = Ino(99);
    table.attach(ONE, &[FILE, unborn], |ino| ino != unborn, START);
    assert_eq!(table.take_released(), wait.as_slice(), "it has to be recalled again");
    let (_, wait) = table.prepare_change(Some(change), Some(TWO), &[FILE], Vec::new(), START);
    assert!(wait.is_some());
    assert_eq!(notices(&mut table), [(ONE, NoticeKind::Recalled, vec![FILE])], "nothing was refused");
    assert_eq!(table.grant(TWO, DIRECTORY, START), Some(Lease::Sole), "it was not claimed");
}

#[test]
fn leases_that_have_run_out_or_are_another_sessions_are_not_given_back() {
    let mut table = table(&[ONE, TWO]);
    table.grant(ONE, FILE, START);
    assert_eq!(table.expire(START + LEASE), [ONE]);
    let later = START + LEASE;
    table.attach(ONE, &[FILE], |_| true, later);
    assert_eq!(notices(&mut table), [(ONE, NoticeKind::Revoked, vec![FILE])]);
    assert_eq!(table.held_by(ONE), 0);
    table.attach(TWO, &[], |_| true, later);
    assert_eq!(table.grant(TWO, DIRECTORY, later), Some(Lease::Sole));
    table.attach(ONE, &[DIRECTORY], |_| true, later);
    assert_eq!(notices(&mut table), [(ONE, NoticeKind::Revoked, vec![DIRECTORY])]);
    assert_eq!(table.recall(Some(TWO), &[DIRECTORY]), None, "it is still alone");
}

#[test]
fn a_new_leader_lets_no_change_into_the_log_before_all_have_claimed() {
    let mut table = table(&[]);
    table.begin_term([ONE, TWO, THREE], START);
    table.attach(ONE, &[FILE], |_| true, START);
    let (_, wait) = table.prepare_change(None, Some(ONE), &[FILE], Vec::new(), START);
    assert_eq!(wait, None, "nobody else can claim what it has claimed");
    let (change, wait) = table.prepare_change(None, Some(ONE), &[DIRECTORY], Vec::new(), START);
    table.attach(TWO, &[DIRECTORY, FILE], |_| true, START);
    assert_eq!(notices(&mut table), [(TWO, NoticeKind::Revoked, vec![FILE])], "another has claimed it first");
    assert_eq!(table.take_released(), []);
    assert_eq!(table.expire(START + LEASE).len(), 3);
    assert_eq!(table.take_released(), wait.as_slice());
    assert_eq!(table.prepare_change(Some(change), Some(ONE), &[DIRECTORY], Vec::new(), START).1, None);
}

/// Its session has answered the creation and more changes before.
#[test]
fn a_session_is_alone_with_what_it_has_created_whatever_is_going_on() {
    let mut table = table(&[]);
    table.begin_term([ONE, TWO], START);
    table.attach(ONE, &[DIRECTORY], |_| true, START);
    assert_eq!(table.grant(ONE, FILE, START), None, "another session may claim it");
    assert_eq!(table.grant_created(ONE, FILE, START), Some(Lease::Sole));
    assert_eq!(table.grant_created(ONE, Ino(7), START + LEASE), None, "its leases have run out");
}

#[test]
fn claims_are_bounded() {
    let mut table = table(&[]);
    table.begin_term([ONE], START);
    let claims: Vec<Ino> = (1..=150).map(Ino).collect();
    table.attach(ONE, &claims, |_| true, START);
    assert_eq!(notices(&mut table), [(ONE, NoticeKind::Revoked, claims[100..].to_vec())]);
    assert_eq!(table.held_by(ONE), 100);
}

#[test]
fn a_reader_that_remembers_nothing_costs_no_lease_and_asks_each_session_once() {
    let mut table = table(&[ONE, TWO]);
    table.grant(ONE, FILE, START);
    table.grant(TWO, DIRECTORY, START);
    let mut asked = BTreeSet::new();
    let wait = table.want(None, &[FILE], &mut asked);
    assert_eq!(notices(&mut table), [(ONE, NoticeKind::Wanted, vec![FILE])]);
    assert!(wait.is_some());
    assert!(table.want(None, &[FILE, DIRECTORY], &mut asked).is_some(), "the name leads there now");
    assert_eq!(notices(&mut table), [(TWO, NoticeKind::Wanted, vec![DIRECTORY])]);
    assert_eq!(table.want(None, &[FILE, DIRECTORY], &mut asked), None);
    assert_eq!(table.grant(ONE, FILE, START), Some(Lease::Sole), "it keeps what it has");
}

/// A directory that a mount used alone between two uploads over HTTP: each upload waited for the kernel's names.
#[test]
fn a_change_by_a_session_without_leases_keeps_the_inode_shared_for_a_while() {
    let mut table = table(&[ONE]);
    table.grant(ONE, DIRECTORY, START);
    let (change, _) = table.prepare_change(None, Some(TWO), &[DIRECTORY], name("a"), START);
    acknowledge(&mut table);
    table.end_change(change);
    assert_eq!(table.grant(ONE, DIRECTORY, START), Some(Lease::Shared));
    let later = START + LEASE;
    table.renew(ONE, later);
    table.expire(later);
    assert_eq!(table.grant(ONE, DIRECTORY, later), Some(Lease::Sole));
}

/// A refused change tells of an earlier one, which others may not know yet.
#[test]
fn an_answer_to_a_change_waits_for_earlier_changes_of_the_same_inodes() {
    let mut table = table(&[ONE, TWO, THREE]);
    table.grant(THREE, DIRECTORY, START);
    assert!(table.prepare_change(None, Some(ONE), &[DIRECTORY], name("a"), START).1.is_some());
    acknowledge(&mut table);
    assert!(table.changed(Some(ONE), &[DIRECTORY]).is_some());
    let (refused, wait) = table.prepare_change(None, Some(TWO), &[DIRECTORY], name("b"), START);
    assert_eq!(wait, None);
    let wait = table.settled_change(refused);
    assert!(wait.is_some());
    acknowledge(&mut table);
    assert!(table.take_released().contains(&wait.unwrap()));
}
