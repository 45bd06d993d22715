//! Who is attached: the connections of each session, their leases, and pushing what changed to them.
//!
//! Connections are attached on the leader only. Pushing happens while an operation is applied, in the order of the log,
//! and only queues bytes on a connection; one that does not keep up is closed by its own queue and must attach again.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chordfs_net::rpc::{RpcPeer, Value};
use chordfs_types::namespace::{FeedEvent, SessionId, calls, encode};
use parking_lot::Mutex;

/// The other end of a connection, as far as the feed needs it.
pub trait Connection: Send + Sync + 'static {
    /// Unique in this process's life.
    fn id(&self) -> u64;
    /// Queues feed events, encoded; false when the connection is gone.
    fn push(&self, events: Bytes) -> bool;
    /// Hangs up; the session attaches again and takes all it has cached for stale.
    fn close(&self);
    /// Resolves when the connection is gone.
    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl Connection for RpcPeer {
    fn id(&self) -> u64 {
        self.connection_id()
    }

    fn push(&self, events: Bytes) -> bool {
        self.notify(calls::FEED, vec![Value::Binary(events.to_vec())])
    }

    fn close(&self) {
        RpcPeer::close(self);
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(RpcPeer::closed(self))
    }
}

#[derive(Default)]
pub struct Feed {
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    sessions: HashMap<SessionId, Seat>,
    by_connection: HashMap<u64, SessionId>,
}

struct Seat {
    connections: HashMap<u64, Arc<dyn Connection>>,
    last_heard: Instant,
}

impl Feed {
    /// True when the connection was not attached before, to this session or another.
    pub fn attach(&self, session: SessionId, connection: Arc<dyn Connection>, now: Instant) -> bool {
        let mut attached = self.attached.lock();
        let id = connection.id();
        let new = !attached.by_connection.contains_key(&id);
        attached.detach(id);
        let seat = attached.seat(session, now);
        seat.last_heard = now;
        seat.connections.insert(id, connection);
        attached.by_connection.insert(id, session);
        new
    }

    pub fn detach(&self, connection: u64) {
        self.attached.lock().detach(connection);
    }

    /// The session that `connection` is attached to is alive; `None` when it is not attached.
    pub fn renew(&self, connection: u64, now: Instant) -> Option<SessionId> {
        let mut attached = self.attached.lock();
        let session = *attached.by_connection.get(&connection)?;
        attached.seat(session, now).last_heard = now;
        Some(session)
    }

    /// Every known session has been heard from just now: a new leader cannot know better.
    pub fn renew_all(&self, now: Instant) {
        for seat in self.attached.lock().sessions.values_mut() {
            seat.last_heard = now;
        }
    }

    /// Which of the open `sessions` have been silent for `lease`. One never heard of begins its lease now.
    pub fn expired(&self, sessions: &[SessionId], now: Instant, lease: Duration) -> Vec<SessionId> {
        let mut attached = self.attached.lock();
        attached.sessions.retain(|id, seat| !seat.connections.is_empty() || sessions.contains(id));
        let silent = |id: &&SessionId| now.duration_since(attached.seat(**id, now).last_heard) >= lease;
        sessions.iter().filter(silent).copied().collect()
    }

    /// Tells all sessions but the one that caused it.
    pub fn push(&self, origin: Option<SessionId>, events: &[FeedEvent]) {
        if events.is_empty() {
            return;
        }
        let mut attached = self.attached.lock();
        if attached.by_connection.is_empty() {
            return;
        }
        let bytes = encode(&events);
        let mut gone = Vec::new();
        for (_, seat) in attached.sessions.iter().filter(|(id, _)| Some(**id) != origin) {
            gone.extend(seat.connections.values().filter(|peer| !peer.push(bytes.clone())).map(|peer| peer.id()));
        }
        gone.into_iter().for_each(|connection| attached.detach(connection));
    }

    /// What changed cannot be told: hangs up on everybody.
    pub fn interrupt(&self) {
        let mut attached = self.attached.lock();
        for seat in attached.sessions.values_mut() {
            seat.connections.drain().for_each(|(_, connection)| connection.close());
        }
        attached.by_connection.clear();
    }

    pub fn attached_sessions(&self) -> usize {
        self.attached.lock().sessions.values().filter(|seat| !seat.connections.is_empty()).count()
    }
}

impl Attached {
    fn seat(&mut self, session: SessionId, now: Instant) -> &mut Seat {
        self.sessions.entry(session).or_insert_with(|| Seat { connections: HashMap::new(), last_heard: now })
    }

    fn detach(&mut self, connection: u64) {
        if let Some(session) = self.by_connection.remove(&connection)
            && let Some(seat) = self.sessions.get_mut(&session)
        {
            seat.connections.remove(&connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use chordfs_types::namespace::{Ino, decode};

    use super::*;

    struct Wire {
        id: u64,
        open: bool,
        hung_up: AtomicBool,
        got: Mutex<Vec<Vec<FeedEvent>>>,
    }

    impl Connection for Wire {
        fn id(&self) -> u64 {
            self.id
        }

        fn push(&self, events: Bytes) -> bool {
            self.got.lock().push(decode(&events).unwrap());
            self.open
        }

        fn close(&self) {
            self.hung_up.store(true, Ordering::Relaxed);
        }

        fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::pending())
        }
    }

    fn wire(id: u64, open: bool) -> Arc<Wire> {
        Arc::new(Wire { id, open, hung_up: AtomicBool::new(false), got: Mutex::default() })
    }

    fn event(ino: u64) -> FeedEvent {
        FeedEvent::Inode { ino: Ino(ino), contents: true }
    }

    #[test]
    fn all_but_the_origin_hear_of_it_and_a_closed_connection_is_forgotten() {
        let (feed, now) = (Feed::default(), Instant::now());
        let (own, other, closed) = (wire(1, true), wire(2, true), wire(3, false));
        feed.attach(SessionId(7), own.clone(), now);
        feed.attach(SessionId(8), other.clone(), now);
        feed.attach(SessionId(9), closed.clone(), now);
        feed.push(Some(SessionId(7)), &[event(1)]);
        feed.push(Some(SessionId(7)), &[event(2)]);
        assert!(own.got.lock().is_empty());
        assert_eq!(*other.got.lock(), [vec![event(1)], vec![event(2)]]);
        assert_eq!(closed.got.lock().len(), 1);
        assert_eq!(feed.attached_sessions(), 2);
        feed.interrupt();
        assert!(own.hung_up.load(Ordering::Relaxed) && other.hung_up.load(Ordering::Relaxed));
        assert_eq!((feed.attached_sessions(), feed.renew(1, now)), (0, None));
    }

    #[test]
    fn a_lease_ends_with_silence_and_begins_anew_for_a_session_never_heard_of() {
        let (feed, start, lease) = (Feed::default(), Instant::now(), Duration::from_secs(60));
        let sessions = [SessionId(1), SessionId(2)];
        feed.attach(SessionId(1), wire(1, true), start);
        assert_eq!(feed.expired(&sessions, start + lease / 2, lease), []);
        assert_eq!(feed.renew(1, start + lease / 2), Some(SessionId(1)));
        assert_eq!(feed.expired(&sessions, start + lease, lease), []);
        assert_eq!(feed.expired(&sessions, start + lease * 3 / 2, lease), sessions);
        feed.renew_all(start + lease * 3 / 2);
        assert_eq!(feed.expired(&sessions, start + lease * 3 / 2, lease), []);
    }
}
