//! The connections of a server: [`ConnectionTable`] behind a lock, with a clock, and with a signal to each connection
//! that has lost its place.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connection_table::{ConnectionLimits, ConnectionRefusal, ConnectionTable};

#[derive(Clone, Debug)]
pub struct ConnectionLimiter(Arc<LimiterInner>);

#[derive(Debug)]
struct LimiterInner {
    started: Instant,
    state: Mutex<LimiterState>,
}

#[derive(Debug)]
struct LimiterState {
    table: ConnectionTable,
    evictions: HashMap<u64, CancellationToken>,
}

/// The place of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    limiter: ConnectionLimiter,
    id: u64,
    evicted: CancellationToken,
    /// Whether another connection lost its place to this one.
    pub replaced_another: bool,
}

/// Marks a request under way: its connection does not lose its place.
#[derive(Debug)]
pub struct RequestMark(Arc<ConnectionPlace>);

impl ConnectionLimiter {
    pub fn new(limits: ConnectionLimits) -> Self {
        let state = LimiterState { table: ConnectionTable::new(limits), evictions: HashMap::new() };
        Self(Arc::new(LimiterInner { started: Instant::now(), state: Mutex::new(state) }))
    }

    /// Gives a new connection a place. `is_trusted` is true for members of the ring and programs of this machine.
    pub fn admit(&self, address: IpAddr, is_trusted: bool) -> Result<Arc<ConnectionPlace>, ConnectionRefusal> {
        let mut state = self.0.state.lock();
        let admitted = state.table.admit(self.now(), address, is_trusted)?;
        if let Some(evicted) = admitted.evicted.and_then(|id| state.evictions.remove(&id)) {
            evicted.cancel();
        }
        let evicted = CancellationToken::new();
        state.evictions.insert(admitted.id, evicted.clone());
        let replaced_another = admitted.evicted.is_some();
        Ok(Arc::new(ConnectionPlace { limiter: self.clone(), id: admitted.id, evicted, replaced_another }))
    }

    /// The connections open now.
    pub fn count(&self) -> usize {
        self.0.state.lock().table.len()
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }
}

impl ConnectionPlace {
    pub fn begin_request(self: &Arc<Self>) -> RequestMark {
        self.limiter.0.state.lock().table.begin_request(self.id);
        RequestMark(self.clone())
    }

    /// Resolves when the place was given to another connection, or no request was under way for `idle_timeout`.
    pub async fn lost(&self, idle_timeout: Duration) {
        tokio::select! {
            () = self.evicted.cancelled() => {}
            () = self.idle_for(idle_timeout) => {}
        }
    }

    async fn idle_for(&self, idle_timeout: Duration) {
        loop {
            let since = self.limiter.0.state.lock().table.idle_since(self.id);
            let idle = since.map_or(Duration::ZERO, |since| self.limiter.now().saturating_sub(since));
            if idle >= idle_timeout {
                return;
            }
            sleep(idle_timeout - idle).await;
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut state = self.limiter.0.state.lock();
        state.table.remove(self.id);
        state.evictions.remove(&self.id);
    }
}

impl Drop for RequestMark {
    fn drop(&mut self) {
        let limiter = &self.0.limiter;
        limiter.0.state.lock().table.end_request(self.0.id, limiter.now());
    }
}
