//! Which connections a server keeps: pure, with the time as an argument.
//!
//! A connection beyond the limit takes the place of the one that has been idle for the longest time. So connections
//! that do nothing keep no newcomer out, and one with a request under way is never closed. The limit for each address
//! works in the same way among the connections of that address.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use thiserror::Error;

#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub max_connections: usize,
    /// Connections of one address; it does not hold for trusted ones.
    pub max_per_address: usize,
    /// A connection gives its place away only after it has been idle for this long: a new one has done nothing yet.
    pub min_idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectionRefusal {
    #[error("all {0} connections are in use")]
    Full(usize),
    #[error("all {0} connections that one address may have are in use")]
    AddressFull(usize),
}

/// A place for a new connection, and the connection that has to be closed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdmittedConnection {
    pub id: u64,
    pub evicted: Option<u64>,
}

#[derive(Debug)]
pub(super) struct ConnectionTable {
    limits: ConnectionLimits,
    last_id: u64,
    open: HashMap<u64, OpenConnection>,
    per_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct OpenConnection {
    address: IpAddr,
    requests: usize,
    /// When the last request ended, or the connection began.
    idle_since: Duration,
}

impl ConnectionTable {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, last_id: 0, open: HashMap::new(), per_address: HashMap::new() }
    }

    pub(super) fn admit(
        &mut self,
        now: Duration,
        address: IpAddr,
        is_trusted: bool,
    ) -> Result<AdmittedConnection, ConnectionRefusal> {
        let of_address = self.per_address.get(&address).copied().unwrap_or(0);
        let evicted = if !is_trusted && of_address >= self.limits.max_per_address {
            let refusal = ConnectionRefusal::AddressFull(self.limits.max_per_address);
            Some(self.idlest(now, Some(address)).ok_or(refusal)?)
        } else if self.open.len() >= self.limits.max_connections {
            let refusal = ConnectionRefusal::Full(self.limits.max_connections);
            Some(self.idlest(now, None).ok_or(refusal)?)
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.remove(evicted);
        }
        self.last_id += 1;
        self.open.insert(self.last_id, OpenConnection { address, requests: 0, idle_since: now });
        *self.per_address.entry(address).or_default() += 1;
        Ok(AdmittedConnection { id: self.last_id, evicted })
    }

    /// The connection, of this address if one is given, that has been idle for the longest time.
    fn idlest(&self, now: Duration, of: Option<IpAddr>) -> Option<u64> {
        let latest = now.checked_sub(self.limits.min_idle)?;
        let idle = self.open.iter().filter(|(_, open)| {
            open.requests == 0 && open.idle_since <= latest && of.is_none_or(|address| address == open.address)
        });
        idle.min_by_key(|(id, open)| (open.idle_since, **id)).map(|(id, _)| *id)
    }

    pub(super) fn begin_request(&mut self, id: u64) {
        if let Some(open) = self.open.get_mut(&id) {
            open.requests += 1;
        }
    }

    pub(super) fn end_request(&mut self, id: u64, now: Duration) {
        if let Some(open) = self.open.get_mut(&id) {
            open.requests -= 1;
            open.idle_since = now;
        }
    }

    /// Since when the connection has been idle; `None` while it has a request.
    pub(super) fn idle_since(&self, id: u64) -> Option<Duration> {
        self.open.get(&id).filter(|open| open.requests == 0).map(|open| open.idle_since)
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(open) = self.open.remove(&id) else { return };
        if let Some(count) = self.per_address.get_mut(&open.address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&open.address);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn table(max_connections: usize, max_per_address: usize) -> ConnectionTable {
        let min_idle = Duration::from_secs(1);
        ConnectionTable::new(ConnectionLimits { max_connections, max_per_address, min_idle })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_idlest_connection() {
        let mut table = table(2, 2);
        let first = table.admit(at(0), A, false).unwrap();
        let second = table.admit(at(1), A, false).unwrap();
        table.begin_request(first.id);
        table.end_request(first.id, at(5));
        assert_eq!(table.admit(at(7), B, false).unwrap().evicted, Some(second.id));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn connections_with_requests_and_new_ones_keep_their_places() {
        let mut table = table(2, 2);
        let busy = table.admit(at(0), A, false).unwrap();
        table.begin_request(busy.id);
        let new = table.admit(at(10), A, false).unwrap();
        assert_eq!(table.admit(at(10), B, false), Err(ConnectionRefusal::Full(2)));
        assert_eq!(table.admit(at(11), B, false).unwrap().evicted, Some(new.id));
        table.end_request(new.id, at(12)); // It is gone, and its late request changes nothing.
        assert_eq!((table.idle_since(busy.id), table.idle_since(new.id)), (None, None));
    }

    #[test]
    fn an_address_at_its_limit_replaces_its_own_connections_unless_it_is_trusted() {
        let mut table = table(10, 2);
        let other = table.admit(at(0), B, false).unwrap();
        let first = table.admit(at(1), A, false).unwrap();
        table.admit(at(2), A, false).unwrap();
        assert_eq!(table.admit(at(5), A, false).unwrap().evicted, Some(first.id));
        assert_eq!(table.admit(at(5), A, true).unwrap().evicted, None);
        table.remove(other.id);
        assert_eq!(table.len(), 3);
        let busy = table.admit(at(5), B, false).unwrap();
        table.begin_request(busy.id);
        table.admit(at(5), B, false).unwrap();
        assert_eq!(table.admit(at(5), B, false), Err(ConnectionRefusal::AddressFull(2)));
    }
}
