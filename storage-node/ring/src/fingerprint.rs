//! What a ring's future depends on, as a hash: two rings with the same digest answer every further event alike. For a
//! search through all states, which has to know when it has been somewhere before.
//!
//! Running numbers (of calls, of lookups) and the time itself are left out: they grow with every event and mean
//! nothing. A call counts as whom it asks and what for, a silence as lasting or not.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{CallId, CallUnderWay, Purpose, Ring};

impl Ring {
    pub fn digest_into(&self, hasher: &mut impl Hasher) {
        (self.me, self.predecessor, &self.successors, &self.fingers, &self.known, self.left).hash(hasher);
        for doubted in [&self.silent, &self.suspected] {
            let lasting = doubted.iter().filter(|(_, until)| self.now < **until).map(|entry| entry.0);
            lasting.collect::<Vec<_>>().hash(hasher);
        }
        let mut calls: Vec<u64> = self.calls.values().map(|call| self.digest_of(call)).collect();
        calls.sort_unstable();
        calls.hash(hasher);
    }

    /// Stands for the number of an open call, for a message that bears it.
    pub fn call_digest(&self, call: CallId) -> Option<u64> {
        self.calls.get(&call).map(|call| self.digest_of(call))
    }

    /// Every lookup waits for one call, and is part of that call's meaning.
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
