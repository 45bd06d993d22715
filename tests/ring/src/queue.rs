//! What is going to happen, in the order of its time; at one time, in the order it was put in.
//!
//! A wheel of buckets a millisecond wide with a small heap for the bucket that is open: with millions of messages on
//! their way one heap over all of them spends its time waiting for memory. What is moved about is the order alone; the
//! messages stay where they were put.

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
    open: BinaryHeap<Entry>,
    /// The buckets after it, the next first.
    wheel: VecDeque<Vec<Entry>>,
    /// Emptied buckets, origin memory is used again at once: kept on the wheel it would be all buckets' largest size.
    spare: Vec<Vec<Entry>>,
    /// What lies beyond the wheel.
    far: BinaryHeap<Entry>,
    on_wheel: usize,
    next_number: u64,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Entry {
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
    pub fn push(&mut self, at: Duration, what: T) {
        self.next_number += 1;
        let slot = self.store(what);
        self.put(Entry { at: at.as_micros() as u64, number: self.next_number, slot });
    }

    pub fn pop(&mut self) -> Option<(Duration, T)> {
        while self.open.is_empty() {
            if self.on_wheel == 0 && self.far.is_empty() {
                return None;
            }
            self.turn();
        }
        let Entry { at, slot, .. } = self.open.pop()?;
        self.free.push(slot);
        self.slots[slot as usize].take().map(|what| (Duration::from_micros(at), what))
    }

    pub fn len(&self) -> usize {
        self.open.len() + self.on_wheel + self.far.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that is on its way, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    fn store(&mut self, what: T) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(what);
        slot
    }

    fn put(&mut self, entry: Entry) {
        match (entry.at / BUCKET_MICROS).checked_sub(self.place + 1) {
            None => self.open.push(entry),
            Some(ahead) if ahead < BUCKETS => {
                let bucket = &mut self.wheel[ahead as usize];
                if bucket.capacity() == 0 {
                    *bucket = self.spare.pop().unwrap_or_default();
                }
                bucket.push(entry);
                self.on_wheel += 1;
            }
            Some(_) => self.far.push(entry),
        }
    }

    fn turn(&mut self) {
        self.place += 1;
        let mut bucket = self.wheel.pop_front().unwrap_or_default();
        self.on_wheel -= bucket.len();
        self.open.extend(bucket.drain(..));
        self.wheel.push_back(Vec::new());
        if bucket.capacity() > 0 {
            self.spare.push(bucket);
        }
        while self.far.peek().is_some_and(|entry| entry.at / BUCKET_MICROS <= self.place + BUCKETS) {
            if let Some(entry) = self.far.pop() {
                self.put(entry);
            }
        }
    }
}

/// The earliest is the greatest, as a `BinaryHeap` gives the greatest first.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
