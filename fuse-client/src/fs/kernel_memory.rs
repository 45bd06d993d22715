//! What the kernel may answer on its own, and for how long: never longer than this mount itself may answer from memory.
//!
//! The kernel keeps attributes under any lease, because telling it that they changed takes no lock. It keeps names only
//! of directories that no other session uses. To make it forget a name takes the directory's lock, which a change by
//! this mount holds until it is answered; if two mounts had to do that for each other, neither change would end.

use std::time::{Duration, Instant};

use chordfs_net::{session::EventAcknowledgement, tasks};
use chordfs_types::namespace::{EntryName, Ino};

use super::FileSystem;
use crate::options::KernelTimeouts;

impl FileSystem {
    /// How long the kernel may keep the attributes of `ino`, and the name that leads to it, if one is given; at most as
    /// long as in `limits`. To be called just before the kernel is told.
    ///
    /// What the kernel may know is noted before it is decided: an event that comes in between then finds it noted, and
    /// one that came before is seen by the decision.
    pub fn kernel_times(&self, name: Option<(Ino, &EntryName)>, ino: Ino, limits: KernelTimeouts) -> KernelTimeouts {
        self.namespace.note_kernel(limits.attr.max(limits.entry));
        let name = name.filter(|(parent, _)| self.namespace.is_sole(*parent));
        if let Some((parent, name)) = name {
            self.kernel_names.note(parent, name, Instant::now() + limits.entry);
        }
        let keeps_name = |(parent, name)| self.namespace.is_sole(parent) && self.cache.remembers_name(parent, name);
        let (keeps_attr, keeps_name) = (self.cache.remembers(ino), name.is_some_and(keeps_name));
        let usable = self.namespace.memory_usable_for();
        let at_most = |keeps: bool, limit: Duration| if keeps { limit.min(usable) } else { Duration::ZERO };
        KernelTimeouts { attr: at_most(keeps_attr, limits.attr), entry: at_most(keeps_name, limits.entry) }
    }

    /// Makes the kernel forget a name, if it may know it.
    pub(super) fn forget_in_kernel(&self, parent: Ino, name: EntryName, done: &EventAcknowledgement) {
        if self.kernel_names.contains(parent, &name) {
            self.notices.entry(parent, name, done.clone());
        }
    }

    /// Keeps `done` until the kernel has forgotten all names of a directory. It is not told of them, because a notice
    /// would take an unchanged directory from under a program that works in it: getcwd(2) would fail.
    pub(super) fn await_kernel_names(&self, parent: Ino, done: &EventAcknowledgement) {
        let Some(until) = self.kernel_names.known_until(parent) else { return };
        let done = done.clone();
        tasks::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            drop(done);
        });
    }
}
