//! What a read may return: for each cell the mount's own newest write, or a committed value that is no older than what
//! the mount must know of.

use std::collections::BTreeSet;

use chordfs_types::namespace::Ino;

use super::{
    CELL_BYTES, Oracle,
    file::{FileModel, newest},
    log::cell_value,
};
use crate::plane::Plane;

/// A read under way.
pub(crate) struct ReadTicket {
    mount: usize,
    ino: Ino,
    begun: u64,
    must_show: u64,
}

impl Oracle {
    pub(crate) fn begin_read(&self, mount: usize, ino: Ino) -> ReadTicket {
        let mut state = self.state.lock();
        let begun = state.next_moment();
        let binding = self.world.faults.feed_is_binding;
        let must_show = state.mounts.entry(mount).or_default().must_show(ino, binding);
        ReadTicket { mount, ino, begun, must_show }
    }

    /// The read began at `first` and returned `bytes`, `cells` cells of them if the file is long enough.
    pub(crate) fn end_read(&self, ticket: &ReadTicket, first: usize, cells: usize, bytes: &[u8]) {
        for step in 0..cells {
            let start = bytes.len().min(step * CELL_BYTES as usize);
            let end = bytes.len().min(start + CELL_BYTES as usize);
            let cell = first + step;
            let Some(value) = cell_value(&bytes[start..end]) else {
                let ReadTicket { mount, ino, .. } = ticket;
                return self.world.fail(format!("mount {mount} reads a torn cell {cell} of inode {}", ino.0));
            };
            self.check_cell(ticket, cell, value);
        }
    }

    /// Nothing is under way any more: what a mount reads is what the namespace has.
    pub(crate) fn check_same(&self, mount: usize, ino: Ino, bytes: &[u8], plane: &Plane) {
        let state = self.state.lock();
        let is_checked = |file: &&FileModel| !file.has_replaced_chunk && !file.is_damaged(plane);
        let Some(file) = state.files.get(&ino).filter(is_checked) else { return };
        let read: Vec<Option<u64>> = bytes.chunks(CELL_BYTES as usize).map(cell_value).collect();
        let wrong = |(at, value): (usize, &Option<u64>)| *value != Some(file.cells[at].current());
        if let Some(cell) = read.iter().enumerate().position(wrong) {
            let value = read[cell];
            self.world.fail(format!("in the end mount {mount} reads {value:?} in cell {cell} of {}", file.describe()));
        }
    }

    fn check_cell(&self, ticket: &ReadTicket, cell: usize, value: u64) {
        let mut state = self.state.lock();
        let Some(file) = state.files.get_mut(&ticket.ino) else { return };
        let own = file.own(ticket.mount).cells[cell].clone();
        let committed = &file.cells[cell];
        let mut allowed: BTreeSet<u64> = BTreeSet::new();
        let mut before: Vec<_> = newest(&own, ticket.begun).collect();
        for value in &before {
            if value.is_doubtful {
                allowed.extend(own.iter().map(|own| own.value));
                allowed.extend(committed.since(ticket.must_show));
            } else if let Some(index) = value.committed {
                allowed.extend(committed.since(index.max(ticket.must_show)));
                allowed.extend((!value.was_settled_by(ticket.begun)).then_some(value.value));
            } else {
                allowed.insert(value.value);
            }
        }
        if before.is_empty() {
            allowed.extend(committed.since(ticket.must_show));
        }
        if !self.world.faults.reads_while_emptying
            && own.iter().any(|own| own.value == 0 && !own.was_done_by(ticket.begun))
        {
            return;
        }
        // Written while the read was under way.
        for own in own.iter().filter(|own| !own.was_done_by(ticket.begun)) {
            allowed.insert(own.value);
            // Others may have replaced it since it was applied.
            allowed.extend(own.committed.into_iter().flat_map(|index| committed.since(index.max(ticket.must_show))));
        }
        if !allowed.contains(&value) {
            before.sort_by_key(|own| own.begun);
            let ReadTicket { mount, ino, must_show, .. } = ticket;
            self.world.fail(format!(
                "mount {mount} reads {value} in cell {cell} of inode {}; it may read {allowed:?}, having heard of the log \
                 up to {must_show}; its own newest: {before:?}",
                ino.0
            ));
        }
    }
}
