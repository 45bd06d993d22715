//! Room for large answers: chunks that were read from the disk and wait in memory until their reader takes them.
//!
//! The room of an answer is free again when the socket has taken its last byte: the HTTP library drops the body
//! earlier, and holds up to a MiB itself.
//!
//! Answers have a budget of their own, beside that of arriving bodies. A request may therefore wait for the room of its
//! answer while its body holds room: what answers hold is waited for by nothing but their readers. While an answer
//! waits for room, a connection whose reader takes less than [`MIN_BYTES_UNDER_PRESSURE`] in [`CHECK_EVERY`] is closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Context,
    time::Duration,
};

use axum::body::Body;
use chordfs_net::limits::{ByteBudget, ByteClass, ByteReservation, PeerKey};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::observed::{BodyObserver, ObservedBody, PolledFrame};

/// Smaller answers need no room.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
const MIN_BYTES_UNDER_PRESSURE: u64 = 64 << 10;
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The limits of the answers of one server.
#[derive(Clone, Debug)]
pub struct AnswerLimits {
    pub budget: ByteBudget,
    /// How long an answer waits for room.
    pub room_deadline: Duration,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self { budget: ByteBudget::new(ByteBudget::MIN_BYTES), room_deadline: Duration::from_secs(5) }
    }
}

/// The answers of one connection. Every request carries it as an extension.
#[derive(Clone)]
pub(super) struct AnswerRoom {
    limits: AnswerLimits,
    peer: Option<PeerKey>,
    connection: Arc<ConnectionAnswers>,
}

#[derive(Default)]
struct ConnectionAnswers {
    /// Bytes that the socket has taken.
    written: AtomicU64,
    sending: Mutex<SendingAnswers>,
}

/// The answers with room that wait for their reader.
#[derive(Default)]
struct SendingAnswers {
    /// How many were begun on this connection.
    begun: u64,
    /// How many of them have a body that has not ended.
    open: usize,
    /// The room of those whose last bytes wait for the socket.
    unflushed: Vec<ByteReservation>,
}

impl SendingAnswers {
    /// The number of the answer that waits for its reader; `None` if none does.
    fn current(&self) -> Option<u64> {
        (self.open > 0 || !self.unflushed.is_empty()).then_some(self.begun)
    }
}

/// The room of one answer.
pub(super) struct AnswerReservation {
    connection: Arc<ConnectionAnswers>,
    parts: Vec<ByteReservation>,
    bytes: usize,
    is_begun: bool,
}

impl AnswerRoom {
    pub(super) fn new(limits: AnswerLimits) -> Self {
        Self { limits, peer: None, connection: Arc::default() }
    }

    /// Takes the room from the share of a peer.
    pub(super) fn of_peer(self, peer: Option<PeerKey>) -> Self {
        Self { peer, ..self }
    }

    /// Waits for the room of an answer of about `bytes`; `None` at the deadline.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<AnswerReservation> {
        let mut parts = Vec::new();
        if bytes > SMALL_ANSWER_BYTES {
            let AnswerLimits { budget, room_deadline } = &self.limits;
            parts.push(budget.reserve_for(self.peer, ByteClass::Raft, bytes, *room_deadline).await?);
        }
        Some(AnswerReservation { connection: self.connection.clone(), parts, bytes, is_begun: false })
    }

    /// Makes room for the `actual` length of an answer, if that is more than was reserved. Does not wait, because the
    /// answer holds room already.
    pub(super) fn extend(&self, reservation: &mut AnswerReservation, actual: usize) -> bool {
        let more = actual.saturating_sub(reservation.bytes.max(SMALL_ANSWER_BYTES));
        if more == 0 {
            return true;
        }
        let part = self.limits.budget.try_reserve_for(self.peer, ByteClass::Raft, more);
        let fits = part.is_some();
        reservation.parts.extend(part);
        fits
    }

    pub(super) fn count_written(&self, bytes: usize) {
        self.connection.written.fetch_add(bytes as u64, Relaxed);
    }

    /// The socket has taken everything that the HTTP library had.
    pub(super) fn flushed(&self) {
        self.connection.sending.lock().unflushed.clear();
    }

    /// Returns when the connection has to be closed, because others wait for the room of what its peer does not read.
    pub(super) async fn must_give_way(&self) {
        let look = || (self.connection.sending.lock().current(), self.connection.written.load(Relaxed));
        loop {
            let (answer, before) = look();
            sleep(CHECK_EVERY).await;
            let (same, now) = look();
            let is_slow = answer.is_some() && answer == same && now - before < MIN_BYTES_UNDER_PRESSURE;
            if is_slow && self.limits.budget.is_pressed() {
                return;
            }
        }
    }
}

impl AnswerReservation {
    /// Keeps the room until the body was sent.
    pub(super) fn around(self, body: Body) -> Body {
        Body::new(ObservedBody::new(body, self))
    }
}

impl BodyObserver for AnswerReservation {
    fn observe(&mut self, polled: PolledFrame, _context: &mut Context<'_>) -> PolledFrame {
        if !self.is_begun && !self.parts.is_empty() {
            self.is_begun = true;
            let mut sending = self.connection.sending.lock();
            sending.begun += 1;
            sending.open += 1;
        }
        polled
    }
}

impl Drop for AnswerReservation {
    fn drop(&mut self) {
        if self.is_begun {
            let mut sending = self.connection.sending.lock();
            sending.open -= 1;
            sending.unflushed.append(&mut self.parts);
        }
    }
}
