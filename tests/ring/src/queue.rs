//! The queue of future events, ordered by time; events of equal time in order of insertion.
//!
//! A timing wheel with buckets of about a millisecond and a small heap for the open bucket: with millions of messages
//! in flight, one heap over all of them is bound by cache misses. Only the keys are moved; the messages stay in their
//! slots.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

const BUCKET_MICROS: u64 = 1024;
const BUCKETS: u64 = 1 << 12;

#[derive(Clone)]
pub struct Queue<T> {
    /// The bucket that `open` holds.
    place: u64,
    open: BinaryHeap<QueueKey>,
    /// The buckets after it, the next first.
    wheel: VecDeque<Vec<QueueKey>>,
    /// Emptied buckets, reused at once: left on the wheel, every bucket would keep its largest size.
    spare: Vec<Vec<QueueKey>>,
    /// Events beyond the wheel.
    far: BinaryHeap<QueueKey>,
    on_wheel: usize,
    next_number: u64,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy)]
struct QueueKey {
    at: u64,
    number: u64,
    slot: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            place: 0,
            open: BinaryHeap::new(),
            wheel: (0..BUCKETS).map(|_| Vec::new()).collect(),
            spare: Vec::new(),
            far: BinaryHeap::new(),
            on_wheel: 0,
            next_number: 0,
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Queue<T> {
    pub fn push(&mut self, at: Duration, event: T) {
        self.next_number += 1;
        let slot = self.store(event);
        self.put(QueueKey { at: at.as_micros() as u64, number: self.next_number, slot });
    }

    pub fn pop(&mut self) -> Option<(Duration, T)> {
        while self.open.is_empty() {
            if self.on_wheel == 0 && self.far.is_empty() {
                return None;
            }
            self.advance_wheel();
        }
        let QueueKey { at, slot, .. } = self.open.pop()?;
        self.free.push(slot);
        self.slots[slot as usize].take().map(|event| (Duration::from_micros(at), event))
    }

    pub fn len(&self) -> usize {
        self.open.len() + self.on_wheel + self.far.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All queued events, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    fn store(&mut self, event: T) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(event);
        slot
    }

    fn put(&mut self, key: QueueKey) {
        match (key.at / BUCKET_MICROS).checked_sub(self.place + 1) {
            None => self.open.push(key),
            Some(ahead) if ahead < BUCKETS => {
                let bucket = &mut self.wheel[ahead as usize];
                if bucket.capacity() == 0 {
                    *bucket = self.spare.pop().unwrap_or_default();
                }
                bucket.push(key);
                self.on_wheel += 1;
            }
            Some(_) => self.far.push(key),
        }
    }

    fn advance_wheel(&mut self) {
        self.place += 1;
        let mut bucket = self.wheel.pop_front().unwrap_or_default();
        self.on_wheel -= bucket.len();
        self.open.extend(bucket.drain(..));
        self.wheel.push_back(Vec::new());
        if bucket.capacity() > 0 {
            self.spare.push(bucket);
        }
        while self.far.peek().is_some_and(|key| key.at / BUCKET_MICROS <= self.place + BUCKETS) {
            if let Some(key) = self.far.pop() {
                self.put(key);
            }
        }
    }
}

/// Reversed, because a `BinaryHeap` returns the greatest first.
impl Ord for QueueKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for QueueKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for QueueKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for QueueKey {}
