//! One budget for the bytes that a process takes from its peers: unfinished frames, bodies of requests, and what is
//! held of them until the request is answered.
//!
//! The length of a body is reserved before it is read, so a body never waits while it holds a part of the budget.
//! Work that waits for other nodes could still wait in a circle: a put at an owner waits for room at the holders,
//! which are owners of other puts. So each class of work has a ceiling of its own, and work waits only for work of a
//! higher class:
//!
//! ```text
//! Upload 4/8 < Call 5/8 < Put 6/8 < Copy 7/8 < Raft 8/8      the share up to which a class may fill the budget
//! ```
//!
//! An upload calls and puts, a call waits for Raft, a put waits for copies, and copies and Raft messages wait for no
//! other node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::peer_shares::{PeerKey, PeerShare, PeerShares};

/// The kinds of work that hold bytes of peers, each waiting only for those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteClass {
    Upload,
    Call,
    Put,
    Copy,
    Raft,
}

const CLASSES: usize = 5;
/// One peer may hold so much of the budget.
const PEER_PART: usize = 4;

/// Shared by all servers of a process; cheap to clone.
#[derive(Clone, Debug)]
pub struct ByteBudget(Arc<BudgetInner>);

#[derive(Debug)]
struct BudgetInner {
    limit_kib: usize,
    /// For each class the room left below its ceiling, in KiB. A reservation takes from its own class and all higher.
    room: [Arc<Semaphore>; CLASSES],
    waiting: AtomicUsize,
    /// For each class what one peer may hold below the class's ceiling.
    shares: [PeerShares; CLASSES],
}

/// A part of the budget, which is free again when this is dropped.
#[derive(Debug)]
pub struct ByteReservation {
    _permits: Vec<OwnedSemaphorePermit>,
    _shares: Vec<PeerShare>,
}

impl Default for ByteBudget {
    fn default() -> Self {
        Self::new(Self::DEFAULT_BYTES)
    }
}

impl ByteBudget {
    pub const DEFAULT_BYTES: usize = 512 << 20;
    /// With less, the largest batch would not fit below the ceiling of puts.
    pub const MIN_BYTES: usize = 128 << 20;

    pub fn new(limit_bytes: usize) -> Self {
        let limit_kib = (limit_bytes / 1024).max(CLASSES * 2);
        let room = std::array::from_fn(|class| Arc::new(Semaphore::new(ceiling_kib(limit_kib, class))));
        let share = |class| PeerShares::new((ceiling_kib(limit_kib, class) / PEER_PART).max(1) as u32);
        let shares = std::array::from_fn(share);
        Self(Arc::new(BudgetInner { limit_kib, room, waiting: AtomicUsize::new(0), shares }))
    }

    pub fn limit_bytes(&self) -> usize {
        self.0.limit_kib * 1024
    }

    /// The bytes of a class that one peer may hold.
    #[cfg(test)]
    pub(crate) fn share_bytes(&self, class: ByteClass) -> usize {
        ceiling_kib(self.0.limit_kib, class as usize) / PEER_PART * 1024
    }

    /// The bytes reserved now.
    pub fn used_bytes(&self) -> usize {
        (self.0.limit_kib - self.0.room[CLASSES - 1].available_permits()) * 1024
    }

    /// True while work waits for room. Then peers that send slowly have to give way.
    pub fn is_pressed(&self) -> bool {
        self.0.waiting.load(Relaxed) > 0
    }

    /// Reserves at once, or not at all.
    pub fn try_reserve(&self, class: ByteClass, bytes: usize) -> Option<ByteReservation> {
        let kib = self.kib(class, bytes);
        let levels = self.0.room[class as usize..].iter();
        let permits = levels.map(|room| room.clone().try_acquire_many_owned(kib).ok()).collect::<Option<Vec<_>>>()?;
        Some(ByteReservation { _permits: permits, _shares: Vec::new() })
    }

    /// Like [`Self::reserve`], for a peer that may hold only its share. It waits for that first, and holds nothing of
    /// the budget meanwhile.
    pub async fn reserve_for(
        &self,
        peer: Option<PeerKey>,
        class: ByteClass,
        bytes: usize,
        deadline: Duration,
    ) -> Option<ByteReservation> {
        let Some(peer) = peer else { return self.reserve(class, bytes, deadline).await };
        let (begun, kib) = (Instant::now(), self.kib(class, bytes));
        let left = || deadline.saturating_sub(begun.elapsed());
        let mut shares = Vec::with_capacity(CLASSES - class as usize);
        // In the order of the classes, as the room of all peers: a peer's uploads do not hold up its puts.
        for level in &self.0.shares[class as usize..] {
            shares.push(level.take(peer, kib, left()).await?);
        }
        let reservation = self.reserve(class, bytes, left()).await?;
        Some(ByteReservation { _shares: shares, ..reservation })
    }

    /// Like [`Self::try_reserve`], for a peer that may hold only its share.
    pub fn try_reserve_for(&self, peer: Option<PeerKey>, class: ByteClass, bytes: usize) -> Option<ByteReservation> {
        let Some(peer) = peer else { return self.try_reserve(class, bytes) };
        let kib = self.kib(class, bytes);
        let levels = self.0.shares[class as usize..].iter();
        let shares = levels.map(|level| level.try_take(peer, kib)).collect::<Option<Vec<_>>>()?;
        Some(ByteReservation { _shares: shares, ..self.try_reserve(class, bytes)? })
    }

    /// Waits for room, in the order of the calls, for at most `deadline`. The caller must not hold a reservation.
    pub async fn reserve(&self, class: ByteClass, bytes: usize, deadline: Duration) -> Option<ByteReservation> {
        if let Some(reservation) = self.try_reserve(class, bytes) {
            return Some(reservation);
        }
        let _waiting = WaitingMark::new(&self.0);
        timeout(deadline, self.wait_for_room(class, bytes)).await.ok()
    }

    /// Like `reserve`, without a deadline.
    pub async fn reserve_patiently(&self, class: ByteClass, bytes: usize) -> ByteReservation {
        match self.try_reserve(class, bytes) {
            Some(reservation) => reservation,
            None => {
                let _waiting = WaitingMark::new(&self.0);
                self.wait_for_room(class, bytes).await
            }
        }
    }

    async fn wait_for_room(&self, class: ByteClass, bytes: usize) -> ByteReservation {
        let kib = self.kib(class, bytes);
        let mut permits = Vec::with_capacity(CLASSES - class as usize);
        for room in &self.0.room[class as usize..] {
            permits.push(room.clone().acquire_many_owned(kib).await.expect("the semaphore is never closed"));
        }
        ByteReservation { _permits: permits, _shares: Vec::new() }
    }

    /// More than a class may ever have counts as all that it may have.
    fn kib(&self, class: ByteClass, bytes: usize) -> u32 {
        bytes.div_ceil(1024).min(ceiling_kib(self.0.limit_kib, class as usize)) as u32
    }
}

fn ceiling_kib(limit_kib: usize, class: usize) -> usize {
    limit_kib * (4 + class) / 8
}

/// Counts one waiting caller, also if its future is dropped.
struct WaitingMark<'a>(&'a BudgetInner);

impl<'a> WaitingMark<'a> {
    fn new(budget: &'a BudgetInner) -> Self {
        budget.waiting.fetch_add(1, Relaxed);
        Self(budget)
    }
}

impl Drop for WaitingMark<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn each_class_stops_at_its_ceiling_and_leaves_room_for_the_higher_ones() {
        let budget = ByteBudget::new(8 * MIB);
        let mut held = Vec::new();
        for (class, at_most) in [
            (ByteClass::Upload, 4),
            (ByteClass::Call, 5),
            (ByteClass::Put, 6),
            (ByteClass::Copy, 7),
            (ByteClass::Raft, 8),
        ] {
            held.extend(std::iter::from_fn(|| budget.try_reserve(class, MIB)));
            assert_eq!((held.len(), budget.used_bytes()), (at_most, at_most * MIB), "{class:?}");
        }
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_higher_class_takes_the_room_of_the_lower_ones() {
        let budget = ByteBudget::new(8 * MIB);
        let _copies = budget.try_reserve(ByteClass::Copy, 7 * MIB).unwrap();
        assert!(budget.try_reserve(ByteClass::Upload, 2 * MIB).is_none());
        assert_eq!(budget.used_bytes(), 7 * MIB, "a failed attempt reserved something");
    }

    #[test]
    fn a_demand_beyond_its_ceiling_takes_all_that_its_class_may_have() {
        let budget = ByteBudget::new(8 * MIB);
        let _all = budget.try_reserve(ByteClass::Upload, 100 * MIB).unwrap();
        assert_eq!(budget.used_bytes(), 4 * MIB);
        assert!(budget.try_reserve(ByteClass::Upload, 1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_leaves_the_room_of_the_others() {
        let budget = ByteBudget::new(8 * MIB);
        let peer = |number| Some(PeerKey::Address([10, 0, 0, number].into()));
        let soon = Duration::from_millis(1);
        let held = budget.reserve_for(peer(1), ByteClass::Upload, MIB, soon).await.unwrap();
        assert!(budget.reserve_for(peer(1), ByteClass::Upload, MIB, soon).await.is_none());
        assert!(budget.try_reserve_for(peer(1), ByteClass::Upload, MIB).is_none());
        assert_eq!(budget.used_bytes(), MIB, "a peer that waits for itself holds nothing more of the budget");
        let put = budget.try_reserve_for(peer(1), ByteClass::Put, MIB / 2);
        assert!(put.is_some(), "uploads leave room for the puts of the same peer");
        assert!(budget.reserve_for(peer(2), ByteClass::Upload, MIB, soon).await.is_some());
        assert!(budget.reserve_for(None, ByteClass::Upload, 2 * MIB, soon).await.is_some());
        drop((held, put));
        assert!(budget.reserve_for(peer(1), ByteClass::Upload, MIB, soon).await.is_some());
    }

    #[tokio::test]
    async fn waiting_ends_with_room_or_at_the_deadline_and_is_visible_meanwhile() {
        let budget = ByteBudget::new(8 * MIB);
        let held = budget.try_reserve(ByteClass::Put, 6 * MIB).unwrap();
        assert!(budget.reserve(ByteClass::Put, MIB, Duration::from_millis(1)).await.is_none());
        assert!(!budget.is_pressed());
        let later = async {
            tokio::task::yield_now().await;
            assert!(budget.is_pressed());
            drop(held);
        };
        let (reserved, ()) = tokio::join!(budget.reserve(ByteClass::Put, MIB, Duration::from_secs(60)), later);
        assert!(reserved.is_some() && !budget.is_pressed());
    }

    /// A circle of nodes whose budgets are full of puts: each waits for copies at the next, and none for ever.
    #[tokio::test]
    async fn puts_that_fill_all_nodes_still_get_their_copies() {
        let nodes: Vec<ByteBudget> = (0..3).map(|_| ByteBudget::new(8 * MIB)).collect();
        let fill = |budget: &ByteBudget| std::iter::from_fn(|| budget.try_reserve(ByteClass::Put, MIB)).count();
        let held: Vec<_> = nodes.iter().map(|node| node.try_reserve(ByteClass::Put, 6 * MIB).unwrap()).collect();
        assert!(nodes.iter().all(|node| fill(node) == 0));
        let copies: Vec<_> = nodes.iter().map(|node| node.try_reserve(ByteClass::Copy, MIB)).collect();
        assert!(copies.iter().all(Option::is_some));
        drop(held);
    }
}
