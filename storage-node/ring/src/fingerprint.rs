//! A digest of a ring's state: two rings with the same digest react alike to every further event. It lets an exhaustive
//! search recognize states that it has visited.
//!
//! Call ids, lookup numbers and the time are left out: they grow with every event and do not affect behaviour. A call
//! counts by its target and purpose, a quarantine by whether it still lasts.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{CallId, CallUnderWay, Purpose, Ring};

impl Ring {
    pub fn digest_into(&self, hasher: &mut impl Hasher) {
        (self.me, self.predecessor, &self.successors, &self.fingers, &self.known, self.left).hash(hasher);
        for avoided in [&self.dead, &self.unresponsive, &self.foreign] {
            let lasting = avoided.iter().filter(|(_, until)| self.now < **until).map(|entry| entry.0);
            lasting.collect::<Vec<_>>().hash(hasher);
        }
        let mut calls: Vec<u64> = self.calls.values().map(|call| self.digest_of(call)).collect();
        calls.sort_unstable();
        calls.hash(hasher);
    }

    /// A digest that stands for the id of a pending call in the messages that carry it.
    pub fn call_digest(&self, call: CallId) -> Option<u64> {
        self.calls.get(&call).map(|call| self.digest_of(call))
    }

    /// A lookup waits for exactly one call, so its state is part of that call's digest.
    fn digest_of(&self, call: &CallUnderWay) -> u64 {
        let mut hasher = DefaultHasher::new();
        (call.to, call.attempts_left).hash(&mut hasher);
        match call.purpose {
            Purpose::Hop { lookup } | Purpose::Owner { lookup } => self.lookups.get(&lookup).hash(&mut hasher),
            purpose => purpose.hash(&mut hasher),
        }
        hasher.finish()
    }
}
