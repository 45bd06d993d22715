//! What one peer may hold of something that all peers share: bytes in flight, calls under way, connections. The limits
//! on all peers together keep the process alive; this leaves the others room when one peer, let in or not, asks for
//! everything.
//!
//! A peer that asks for more waits for what it holds itself, and for nobody else.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use chordfs_identity::Role;
use chordfs_types::identity::IdentityId;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::transport::RemoteCaller;

/// The one who has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKey {
    /// From wherever it connects.
    Identity(IdentityId),
    Address(IpAddr),
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerShares(Arc<SharesInner>);

#[derive(Debug)]
struct SharesInner {
    units: u32,
    peers: Mutex<HashMap<PeerKey, PeerRoom>>,
}

/// The room of a peer that holds or waits for something.
#[derive(Debug)]
struct PeerRoom {
    room: Arc<Semaphore>,
    users: usize,
}

/// What a peer holds, until this is dropped.
#[derive(Debug)]
pub struct PeerShare {
    _permit: OwnedSemaphorePermit,
    _user: RoomUser,
}

/// Keeps the room of a peer, also while it is waited for.
#[derive(Debug)]
struct RoomUser {
    shares: PeerShares,
    peer: PeerKey,
}

impl PeerKey {
    /// `None` for peers that are not limited: nodes, which act for others, programs of this machine, and everybody in a
    /// ring without identities.
    pub fn of(caller: &RemoteCaller, address: IpAddr) -> Option<Self> {
        match caller {
            RemoteCaller::Certified(owner) if owner.identity.role == Role::Node => None,
            RemoteCaller::Certified(owner) => Some(Self::Identity(owner.identity.id)),
            RemoteCaller::Unknown | RemoteCaller::Plain if !address.is_loopback() => Some(Self::Address(address)),
            RemoteCaller::Unknown | RemoteCaller::Plain | RemoteCaller::Unchecked => None,
        }
    }
}

impl PeerShares {
    /// Each peer may hold so many units.
    pub fn new(units: u32) -> Self {
        Self(Arc::new(SharesInner { units, peers: Mutex::default() }))
    }

    /// Takes at once, or not at all.
    pub fn try_take(&self, peer: PeerKey, units: u32) -> Option<PeerShare> {
        let (room, user) = self.room(peer);
        let permit = room.try_acquire_many_owned(units.min(self.0.units)).ok()?;
        Some(PeerShare { _permit: permit, _user: user })
    }

    /// Waits until the peer holds little enough, for at most `deadline`. More than a peer may ever hold counts as all
    /// of it.
    pub async fn take(&self, peer: PeerKey, units: u32, deadline: Duration) -> Option<PeerShare> {
        timeout(deadline, self.take_patiently(peer, units)).await.ok()
    }

    /// Like `take`, without a deadline.
    pub async fn take_patiently(&self, peer: PeerKey, units: u32) -> PeerShare {
        let (room, user) = self.room(peer);
        let permit = room.acquire_many_owned(units.min(self.0.units)).await.expect("the semaphore is never closed");
        PeerShare { _permit: permit, _user: user }
    }

    fn room(&self, peer: PeerKey) -> (Arc<Semaphore>, RoomUser) {
        let mut peers = self.0.peers.lock();
        let new = || PeerRoom { room: Arc::new(Semaphore::new(self.0.units as usize)), users: 0 };
        let entry = peers.entry(peer).or_insert_with(new);
        entry.users += 1;
        (entry.room.clone(), RoomUser { shares: self.clone(), peer })
    }
}

impl Drop for RoomUser {
    fn drop(&mut self) {
        let mut peers = self.shares.0.peers.lock();
        if let Some(entry) = peers.get_mut(&self.peer) {
            entry.users -= 1;
            if entry.users == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u8) -> PeerKey {
        PeerKey::Address(Ipv4Addr::new(10, 0, 0, number).into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_waits_for_itself_alone() {
        let shares = PeerShares::new(10);
        let held = shares.try_take(peer(1), 8).unwrap();
        assert!(shares.try_take(peer(1), 3).is_none());
        assert!(shares.take(peer(1), 3, Duration::from_secs(1)).await.is_none());
        assert!(shares.try_take(peer(2), 10).is_some());
        let waiting = tokio::spawn({
            let shares = shares.clone();
            async move { shares.take(peer(1), 3, Duration::from_secs(60)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_demand_beyond_the_share_takes_all_of_it() {
        let shares = PeerShares::new(10);
        let all = shares.try_take(peer(1), 1000).unwrap();
        assert!(shares.try_take(peer(1), 1).is_none());
        drop(all);
        assert!(shares.try_take(peer(1), 1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_hold_nothing_are_forgotten() {
        let shares = PeerShares::new(1);
        for number in 0..100 {
            let held = shares.try_take(peer(number), 1);
            assert!(shares.take(peer(number), 1, Duration::from_millis(1)).await.is_none());
            drop(held);
        }
        assert!(shares.0.peers.lock().is_empty());
    }
}
