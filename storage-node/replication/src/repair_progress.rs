//! How much repair and filling still have to copy, how fast they are, and when they will be done.
//!
//! What is left to fetch and to send is known from this node's own comparisons. Peers announce with every batch how
//! much they still have to send; a peer that announces nothing for a while has gone or is done.
#![deny(clippy::disallowed_methods)]

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use chordfs_types::{
    admin::{RepairStatus, TransferProgress},
    ring_id::RingId,
};

use crate::arc_comparison::CopyAmount;

/// Rates are averaged over this time.
const WINDOW: Duration = Duration::from_secs(10);
/// How long another node's announcement is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(60);
/// The most peers whose announcements are kept; a node has only a few neighbours.
const MAX_OTHERS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Incoming,
    Outgoing,
}

#[derive(Default)]
pub struct RepairProgress {
    /// For each holder, how much is left to fetch from it and to send to it.
    plans: HashMap<u32, (CopyAmount, CopyAmount)>,
    /// For each peer, how much it still has to send here, and when it announced that.
    announced: HashMap<u32, (CopyAmount, Instant)>,
    incoming: Meter,
    outgoing: Meter,
    /// The holders of this node's own arc; `None` before they are known.
    holders: Option<Vec<RingId>>,
    /// The holders with which the arc was compared since the neighbours last changed.
    compared: Vec<RingId>,
    /// Whether all copies beyond the third were handed on since then.
    without_surplus: bool,
}

impl RepairProgress {
    pub fn plan(&mut self, holder: RingId, fetch: CopyAmount, send: CopyAmount) {
        if fetch == CopyAmount::default() && send == CopyAmount::default() {
            self.plans.remove(&holder.0)
        } else {
            self.plans.insert(holder.0, (fetch, send))
        };
    }

    /// Sets the holders of this node's own arc; plans for other nodes are dropped.
    pub fn set_holders(&mut self, holders: Vec<RingId>) {
        self.plans.retain(|holder, _| holders.contains(&RingId(*holder)));
        self.holders = Some(holders);
    }

    pub fn compared_with(&mut self, holder: RingId) {
        if !self.compared.contains(&holder) {
            self.compared.push(holder);
        }
    }

    /// Forgets the comparisons and the search for surplus, as the neighbours have changed.
    pub fn forget_comparisons(&mut self) {
        self.compared.clear();
        self.without_surplus = false;
    }

    pub fn record_no_surplus(&mut self) {
        self.without_surplus = true;
    }

    pub fn has_no_surplus(&self) -> bool {
        self.without_surplus
    }

    /// Records how much another node announces that it still has to send here.
    pub fn announce(&mut self, by: RingId, left: CopyAmount, now: Instant) {
        self.announced.retain(|_, (_, at)| now.saturating_duration_since(*at) < BELIEVED_FOR);
        if left == CopyAmount::default() {
            self.announced.remove(&by.0);
        } else if self.announced.len() < MAX_OTHERS || self.announced.contains_key(&by.0) {
            self.announced.insert(by.0, (left, now));
        }
    }

    pub fn moved(&mut self, direction: Direction, moved: CopyAmount, now: Instant) {
        let meter = match direction {
            Direction::Incoming => &mut self.incoming,
            Direction::Outgoing => &mut self.outgoing,
        };
        meter.add(moved, now);
    }

    pub fn status(&self, limit: Option<u64>, now: Instant) -> RepairStatus {
        let believed = |at: &Instant| now.saturating_duration_since(*at) < BELIEVED_FOR;
        let announced = self.announced.values().filter(|(_, at)| believed(at)).map(|(left, _)| *left);
        let fetch =
            self.plans.values().map(|(fetch, _)| *fetch).chain(announced).fold(CopyAmount::default(), CopyAmount::and);
        let send = self.plans.values().map(|(_, send)| *send).fold(CopyAmount::default(), CopyAmount::and);
        RepairStatus {
            incoming: self.incoming.flow(fetch, now),
            outgoing: self.outgoing.flow(send, now),
            compared: self.holders.as_ref().is_some_and(|all| all.iter().all(|one| self.compared.contains(one))),
            limit,
        }
    }
}

/// Measures how much was copied, and how fast.
#[derive(Default)]
pub struct Meter {
    total: CopyAmount,
    recent: VecDeque<(Instant, u64)>,
}

impl Meter {
    pub fn add(&mut self, moved: CopyAmount, now: Instant) {
        self.total = self.total.and(moved);
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.recent.pop_front();
        }
        // A second with many batches is one entry.
        match self.recent.back_mut().filter(|(at, _)| now.saturating_duration_since(*at) < WINDOW / 20) {
            Some((_, bytes)) => *bytes += moved.bytes,
            None => self.recent.push_back((now, moved.bytes)),
        }
    }

    pub fn flow(&self, left: CopyAmount, now: Instant) -> TransferProgress {
        let recent = || self.recent.iter().filter(|(at, _)| now.saturating_duration_since(*at) < WINDOW);
        let since = recent().next().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        let seconds = since.max(Duration::from_secs(1)).as_secs_f64();
        let bytes_per_second = (recent().map(|(_, bytes)| bytes).sum::<u64>() as f64 / seconds) as u64;
        let known = left.bytes > 0 && bytes_per_second > 0;
        TransferProgress {
            chunks_left: left.chunks,
            bytes_left: left.bytes,
            bytes_per_second,
            seconds_left: known.then(|| left.bytes.div_ceil(bytes_per_second.max(1))),
            chunks_moved: self.total.chunks,
            bytes_moved: self.total.bytes,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn left(chunks: u64, bytes: u64) -> CopyAmount {
        CopyAmount { chunks, bytes }
    }

    #[test]
    fn the_status_sums_what_is_left_and_estimates_when_it_is_done() {
        let (mut progress, start) = (RepairProgress::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        progress.plan(RingId(1), left(100, 40_000), left(7, 700));
        progress.announce(RingId(2), left(50, 20_000), at(0));
        for second in 0..5 {
            progress.moved(Direction::Incoming, left(10, 4_000), at(second));
        }
        let status = progress.status(Some(9), at(5));
        let incoming = status.incoming;
        assert_eq!((incoming.chunks_left, incoming.bytes_left, incoming.bytes_per_second), (150, 60_000, 4_000));
        assert_eq!((incoming.seconds_left, incoming.chunks_moved, incoming.bytes_moved), (Some(15), 50, 20_000));
        assert_eq!((status.outgoing.chunks_left, status.outgoing.seconds_left, status.limit), (7, None, Some(9)));
    }

    /// If surplus copies counted as load, the next new node would join next to a node that is about to drop them.
    #[test]
    fn after_a_change_of_neighbours_surplus_has_to_be_searched_for_again() {
        let mut progress = RepairProgress::default();
        assert!(!progress.has_no_surplus());
        progress.record_no_surplus();
        assert!(progress.has_no_surplus());
        progress.forget_comparisons();
        assert!(!progress.has_no_surplus());
    }

    #[test]
    fn a_peer_that_is_unresponsive_or_gone_has_nothing_to_send() {
        let (mut progress, start) = (RepairProgress::default(), Instant::now());
        progress.announce(RingId(2), left(50, 20_000), start);
        progress.plan(RingId(1), left(1, 10), CopyAmount::default());
        assert_eq!(progress.status(None, start + BELIEVED_FOR).incoming.chunks_left, 1);
        progress.set_holders(vec![RingId(3)]);
        assert_eq!(progress.status(None, start + BELIEVED_FOR).incoming, TransferProgress::default());
        progress.announce(RingId(2), left(50, 20_000), start);
        progress.announce(RingId(2), CopyAmount::default(), start);
        assert_eq!(progress.status(None, start).incoming, TransferProgress::default());
    }

    #[test]
    fn compared_means_compared_with_every_holder() {
        let (mut progress, now) = (RepairProgress::default(), Instant::now());
        let compared = |progress: &RepairProgress| progress.status(None, now).compared;
        assert!(!compared(&progress), "nothing is known yet");
        progress.set_holders(vec![RingId(1), RingId(2)]);
        progress.compared_with(RingId(1));
        assert!(!compared(&progress));
        progress.compared_with(RingId(2));
        assert!(compared(&progress));
        progress.forget_comparisons();
        assert!(!compared(&progress));
    }
}
