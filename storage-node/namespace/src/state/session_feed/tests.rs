//! Tests of the feed: which sessions hear of a change, and which ones are waited for.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use chordfs_types::namespace::{FeedEvent, FeedMessage, Granted, decode};

use super::*;

const TERM: u64 = 5;

fn attaching(session: SessionId, holds_leases: bool) -> AttachingSession {
    AttachingSession { session, holds_leases, is_bound: false }
}

struct FakeConnection {
    id: u64,
    open: bool,
    closed: AtomicBool,
    received: Mutex<Vec<FeedMessage>>,
}

impl FeedConnection for FakeConnection {
    fn id(&self) -> u64 {
        self.id
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], self.id as u16))
    }

    fn push(&self, events: Bytes) -> bool {
        self.received.lock().push(decode(&events).unwrap());
        self.open
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

fn connection(id: u64, open: bool) -> Arc<FakeConnection> {
    Arc::new(FakeConnection { id, open, closed: AtomicBool::new(false), received: Mutex::default() })
}

fn event(ino: u64) -> FeedEvent {
    FeedEvent::Inode { ino: Ino(ino), contents: true }
}

/// Tells the others of a change by `origin`.
fn changed(feed: &SessionFeed, origin: u64, ino: u64) {
    feed.attached.lock().push(Some(SessionId(origin)), &[event(ino)], Told::default(), false);
}

/// A feed of the node that leads in [`TERM`].
fn leading() -> SessionFeed {
    let feed = SessionFeed::of_node(1);
    feed.follow_leader(LeaderTerm { term: TERM, node_id: 1 }, Vec::new);
    feed
}

/// Attaches a mount that has named what it has open.
fn mount(feed: &SessionFeed, id: u64) -> Arc<FakeConnection> {
    let connection = connection(id, true);
    feed.attach(attaching(SessionId(id), true), connection.clone(), 3, Instant::now());
    feed.claim(SessionId(id), &[], |_| true);
    feed.answer(SessionId(id), id, 3, None, Instant::now());
    connection
}

/// Answers a query of the session about the inode.
fn read(feed: &SessionFeed, session: u64, ino: u64) -> Granted {
    let told = Told { inos: vec![Ino(ino)], ..Told::default() };
    match feed.read(Some(SessionId(session)), &told, &mut BTreeSet::new()) {
        Ok(terms) => terms.granted,
        Err(_) => panic!("another session has to let go first"),
    }
}

/// The inodes of all events that arrived.
fn heard(connection: &FakeConnection) -> Vec<u64> {
    connection.received.lock().drain(..).flat_map(|message| message.events).map(|event| event.ino().0).collect()
}

#[test]
fn all_sessions_except_the_origin_receive_the_events_and_a_closed_connection_is_forgotten() {
    let (feed, now) = (SessionFeed::default(), Instant::now());
    let (own, other, closed) = (connection(1, true), connection(2, true), connection(3, false));
    feed.attach(attaching(SessionId(7), true), own.clone(), 0, now);
    feed.attach(attaching(SessionId(8), true), other.clone(), 0, now);
    feed.attach(attaching(SessionId(9), true), closed.clone(), 0, now);
    changed(&feed, 7, 1);
    changed(&feed, 7, 2);
    assert!(own.received.lock().is_empty());
    let message = |ino| FeedMessage { notice: None, events: vec![event(ino)] };
    assert_eq!(*other.received.lock(), [message(1), message(2)]);
    assert_eq!(closed.received.lock().len(), 1);
    assert_eq!(feed.attached_sessions(), 2);
    feed.interrupt();
    assert!(own.closed.load(Ordering::Relaxed) && other.closed.load(Ordering::Relaxed));
    assert_eq!((feed.attached_sessions(), feed.renew(1, now)), (0, None));
}

#[test]
fn a_lease_expires_without_messages_and_starts_anew_for_an_unknown_session() {
    let (feed, start, lease) = (SessionFeed::default(), Instant::now(), Duration::from_secs(60));
    let sessions = [SessionId(1), SessionId(2)];
    let silent = |at: Instant| sessions.map(|session| feed.silent_for(session, at));
    feed.attach(attaching(SessionId(1), true), connection(1, true), 0, start);
    assert_eq!(silent(start + lease / 2), [lease / 2, Duration::ZERO]);
    let report = ClientReport { dirty_bytes: 7, open_files: 1, ..ClientReport::default() };
    feed.note_report(1, report);
    feed.note_report(9, ClientReport::default());
    let contacts = feed.contacts(&sessions, start + lease / 2);
    let addresses = vec![SocketAddr::from(([10, 0, 0, 1], 1))];
    let known = SessionContact { addresses, silent: lease / 2, report: Some(report), leases: 0, recalls: 0 };
    assert_eq!(contacts, [known, SessionContact::default()], "nothing is known of the other one");
    assert_eq!(feed.renew(1, start + lease / 2), Some(SessionId(1)));
    assert_eq!(silent(start + lease), [lease / 2; 2]);
    feed.renew_all(start + lease * 3 / 2);
    assert_eq!(silent(start + lease * 3 / 2), [Duration::ZERO; 2]);
}

/// A mount that was silent for a quarter of a minute used to lose its open files.
#[test]
fn a_silent_session_delays_the_answer_of_all_until_it_answers_or_ends() {
    let (feed, start, second) = (SessionFeed::default(), Instant::now(), Duration::from_secs(1));
    let (busy, silent) = (SessionId(1), SessionId(2));
    feed.attach(attaching(busy, true), connection(1, true), 0, start);
    feed.attach(attaching(silent, true), connection(2, true), 0, start);
    feed.answer(busy, 1, 9, None, start);
    let all =
        |sessions: &[SessionId], at: u32| feed.answered_by_all(sessions, start + at * second, TERM, (7, 75 * second));
    assert_eq!(all(&[busy, silent], 15), 0);
    assert_eq!(all(&[busy, silent], 50), 0);
    assert_eq!((all(&[busy], 50), all(&[], 50)), (9, u64::MAX), "once the silent one has ended");
    feed.renew(2, start + 59 * second);
    assert_eq!(all(&[busy, silent], 110), 0, "it is silent again, and its lease not over");
    feed.answer(silent, 2, 8, None, start + 111 * second);
    assert_eq!(all(&[busy, silent], 112), 8);
}

/// The death of a storage node, which has a session for its downloads, used to delay the deletion of all removed
/// files by a minute.
#[test]
fn a_silent_session_that_had_nothing_open_delays_no_answer() {
    let (feed, now) = (SessionFeed::default(), Instant::now());
    let (busy, node) = (SessionId(1), SessionId(2));
    feed.attach(attaching(busy, true), connection(1, true), 0, now);
    feed.attach(attaching(node, false), connection(2, true), 0, now);
    feed.answer(busy, 1, 9, None, now);
    let all = |term: u64| feed.answered_by_all(&[busy, node], now, term, (7, Duration::from_secs(75)));
    let counted = |count: u64| Some(SessionRequests { term: TERM, count });
    assert_eq!(feed.answer(node, 2, 3, counted(0), now), 0);
    feed.detach(2);
    assert_eq!(all(TERM), 9, "its connection was lost, and nothing else has changed");
    assert_eq!(all(TERM + 2), 3, "it may have opened a file at the leader in between");
    feed.attach(attaching(node, false), connection(3, true), 0, now);
    feed.count_request(3);
    assert_eq!(all(TERM), 3, "the request may open a file");
    assert_eq!(feed.answer(node, 2, 3, counted(0), now), 1);
    assert_eq!(all(TERM), 3, "the report is older than the request");
    assert_eq!(feed.answer(node, 2, 3, counted(1), now), 1);
    assert_eq!(all(TERM), 9);
    feed.answer(node, 2, 3, None, now);
    assert_eq!(all(TERM), 3, "it has something open");
}

#[test]
fn a_session_that_keeps_its_lease_and_never_answers_is_excused_after_some_time() {
    let (feed, start, second) = (SessionFeed::default(), Instant::now(), Duration::from_secs(1));
    feed.attach(attaching(SessionId(1), true), connection(1, true), 0, start);
    let answered = |at: u32| {
        feed.renew(1, start + at * second);
        feed.answered_by_all(&[SessionId(1)], start + at * second, TERM, (7, 20 * second))
    };
    assert_eq!([5, 10, 15, 19, 20].map(answered), [0, 0, 0, 0, 7]);
    assert_eq!([40, 45].map(answered), [0, 0], "it was silent in between");
}

/// Each change used to be sent to every mount.
#[test]
fn the_messages_of_a_change_do_not_grow_with_the_sessions_that_it_does_not_concern() {
    let messages = |sessions: u64| {
        let feed = leading();
        let others: Vec<_> = (2..2 + sessions).map(|id| mount(&feed, id)).collect();
        (2..2 + sessions).for_each(|id| drop(read(&feed, id, 1000 + id)));
        (1..50).for_each(|ino| changed(&feed, 1, ino));
        changed(&feed, 1, 1002);
        others.iter().map(|other| other.received.lock().len()).sum::<usize>()
    };
    assert_eq!((messages(1), messages(100)), (1, 1));
}

#[test]
fn a_session_hears_of_what_it_may_have_open_without_a_lease() {
    let feed = leading();
    let (reader, writer) = (mount(&feed, 2), mount(&feed, 3));
    let hears = |ino: u64| {
        changed(&feed, 1, ino);
        heard(&reader) == [ino]
    };
    // An answer that it must not remember: the other one is asked to let go, and it reads meanwhile.
    read(&feed, 3, 7);
    feed.attached.lock().leases.note_open(SessionId(2), &[Ino(7)]);
    assert!(hears(7) && !hears(8), "it reads 7 alone");
    // A lease that it gives back.
    read(&feed, 2, 9);
    changed(&feed, 1, 9);
    let notice = reader.received.lock().pop().and_then(|message| message.notice).expect("it has a lease");
    feed.acknowledge(2, notice, false);
    assert_eq!(feed.contacts(&[SessionId(2)], Instant::now())[0].leases, 0);
    assert!(hears(9), "it may have opened the file from memory");
    // Having nothing open, it hears of nothing any longer.
    let count = feed.answer(SessionId(2), 2, 4, None, Instant::now());
    feed.answer(SessionId(2), 2, 4, Some(SessionRequests { term: TERM, count }), Instant::now());
    assert!(!hears(7) && !hears(9));
    drop(heard(&writer));
}

#[test]
fn a_session_hears_of_everything_from_when_it_attaches_until_it_has_named_its_open_files() {
    let feed = leading();
    let other = connection(2, true);
    feed.attach(attaching(SessionId(2), true), other.clone(), 8, Instant::now());
    feed.claim(SessionId(2), &[], |_| true);
    changed(&feed, 1, 5);
    feed.answer(SessionId(2), 2, 7, None, Instant::now());
    changed(&feed, 1, 6);
    feed.answer(SessionId(2), 2, 8, None, Instant::now());
    changed(&feed, 1, 7);
    assert_eq!(heard(&other), [5, 6]);
}

#[test]
fn a_session_without_leases_hears_of_removals_while_it_may_have_something_open() {
    let feed = leading();
    let node = connection(2, true);
    feed.attach(attaching(SessionId(2), false), node.clone(), 0, Instant::now());
    let remove = |ino: u64| {
        let events = [event(1), FeedEvent::Orphaned { ino: Ino(ino) }];
        feed.attached.lock().push(Some(SessionId(1)), &events, Told::default(), false);
    };
    remove(5);
    feed.answer(SessionId(2), 2, 0, Some(SessionRequests { term: TERM, count: 0 }), Instant::now());
    remove(6);
    feed.count_request(2);
    remove(7);
    assert_eq!(heard(&node), [5, 7]);
}

/// It opens files from memory without a request. A file that it had opened so was lost when another mount removed
/// it while the first was stopped.
#[test]
fn a_silent_session_with_leases_that_had_nothing_open_is_waited_for() {
    let (feed, now) = (SessionFeed::default(), Instant::now());
    feed.attach(attaching(SessionId(2), true), connection(2, true), 0, now);
    feed.answer(SessionId(2), 2, 3, Some(SessionRequests { term: TERM, count: 0 }), now);
    assert_eq!(feed.answered_by_all(&[SessionId(2)], now, TERM, (7, Duration::from_secs(75))), 3);
}
