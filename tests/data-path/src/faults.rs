//! What may go wrong in a simulation.
//!
//! Each kind of fault that has found a defect has a knob. With [`Faults::default`] all are on but one, which is a
//! stated limit; off, the simulation does not make the fault, or does not check what it breaks. `mutations.sh` takes
//! the cures out one by one and shows which seed finds that.
//!
//! One cure has no mutation, and unit tests alone check it: a mount remembers to which state it sent a commit. Retired
//! versions make it harmless when it does not.

/// One knob for each kind of fault; `true` means that the runs provoke it and check for it.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Nameless files are purged as soon as every session has answered that it does not need them. Off: long
    /// after the sessions' lease.
    pub purge_early: bool,
    /// What replaces fsynced chunks must be on disk when it is committed; nodes lose what they have not synced.
    pub power_cuts: bool,
    /// A commit replaces what another mount has fsynced so shortly before that the feed has not reported it, with
    /// chunks that are on no disk.
    pub unheard_fsync: bool,
    /// A link is down for longer than an operation waits, so that answers to commits never come.
    pub long_outages: bool,
    /// A mount that has no answer to a commit takes a hole for the hole that was there before, although another mount
    /// has cut the chunk off since.
    pub lost_answers_and_truncation: bool,
    /// What the feed has reported must be seen by reads, also when the report came during an open.
    pub feed_is_binding: bool,
    /// Programs truncate to nothing.
    pub truncate_to_nothing: bool,
    /// A read while a truncation to nothing is under way finds what was committed before, without this mount's own
    /// later writes.
    pub reads_while_emptying: bool,
    /// Programs set times and sizes of files that are being written.
    pub attributes_while_writing: bool,
    /// No task of a mount runs while it sleeps, perhaps for longer than its session lives; then all that is due runs at
    /// once.
    pub stopped_mounts: bool,
    /// Nodes collect chunks that have been in no file for long.
    pub orphan_scrub: bool,
}

impl Faults {
    pub const ALL: Self = Self::every(true);
    pub const NONE: Self = Self::every(false);

    const fn every(on: bool) -> Self {
        Self {
            purge_early: on,
            power_cuts: on,
            unheard_fsync: on,
            long_outages: on,
            lost_answers_and_truncation: on,
            feed_is_binding: on,
            truncate_to_nothing: on,
            reads_while_emptying: on,
            attributes_while_writing: on,
            stopped_mounts: on,
            orphan_scrub: on,
        }
    }

    /// Turns the knob of this name on.
    pub fn with(mut self, name: &str) -> Self {
        let knob = match name {
            "purge_early" => &mut self.purge_early,
            "power_cuts" => &mut self.power_cuts,
            "unheard_fsync" => &mut self.unheard_fsync,
            "long_outages" => &mut self.long_outages,
            "lost_answers_and_truncation" => &mut self.lost_answers_and_truncation,
            "feed_is_binding" => &mut self.feed_is_binding,
            "truncate_to_nothing" => &mut self.truncate_to_nothing,
            "reads_while_emptying" => &mut self.reads_while_emptying,
            "attributes_while_writing" => &mut self.attributes_while_writing,
            "stopped_mounts" => &mut self.stopped_mounts,
            "orphan_scrub" => &mut self.orphan_scrub,
            other => panic!("there is no knob {other}"),
        };
        *knob = true;
        self
    }
}

impl Default for Faults {
    /// What the checks run with: everything but a stated limit of mounts that write one chunk at the same time.
    fn default() -> Self {
        Self { unheard_fsync: false, ..Self::ALL }
    }
}
