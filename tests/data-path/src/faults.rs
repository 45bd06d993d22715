//! What may go wrong in a simulation.
//!
//! Each kind of fault that has found a defect has a knob. With [`Faults::default`] all are on but one, which is a
//! stated limit; off, the simulation does not make the fault, or does not check what it breaks. "DS n" are the findings
//! of a review of the data path. `mutations.sh` takes their cures out one by one, and found these on a given day; the
//! seeds shift when a workload changes:
//!
//! | finding | taken out | first seed | message |
//! |---|---|---|---|
//! | DS 1 | the namespace waits for the answers of all sessions (the model of it here) | 3 | inode was purged while a mount has it open |
//! | DS 1 | a mount's receipts of the feed | 78 | the same |
//! | - | a mount's receipts of its own removals | 248 | the same |
//! | DS 3 | a stale state brings chunks to disk before a commit | 3 | it replaces what was fsynced and is on 1 disks |
//! | DS 3 | what is stored since the commit began stays out of it | 609 | the same |
//! | DS 4 | retired versions (`tables`) | 18 | a chunk which was replaced before is committed |
//! | DS 5 | a change reported during an open makes the file stale | 16 | a read shows less than the feed has reported |
//! | DS 5 | the same during a creation | 194 | the same |
//! | DS 6 | a late answer to a truncation to zero is recognized | 4 | the same |
//! | DS 7 | a failed change of attributes keeps the data | 39 | a read lacks the mount's own write |
//! | DS 8 | the refused chunk is stored again | 59 | close began while nothing was wrong, and failed |
//! | DS 8 | the same, and the pause after a conflict | 14 | 150 commits in a row met a conflict |
//!
//! Not found, and checked by unit tests alone: the state to which a commit was sent (DS 4, in 500 seeds), which retired
//! versions make harmless.

/// One knob for each kind of fault; `true` means that the runs provoke it and check for it.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// DS 1: nameless files are purged as soon as every session has answered that it does not need them. Off: long
    /// after the sessions' lease.
    pub purge_early: bool,
    /// DS 3: what replaces fsynced chunks must be on disk when it is committed; nodes lose what they have not synced.
    pub power_cuts: bool,
    /// A commit replaces what another mount has fsynced so shortly before that the feed has not reported it, with
    /// chunks that are on no disk.
    pub unheard_fsync: bool,
    /// DS 4: a link is down for longer than an operation waits, so that answers to commits never come.
    pub long_outages: bool,
    /// A mount that has no answer to a commit takes a hole for the hole that was there before, although another mount
    /// has cut the chunk off since.
    pub lost_answers_and_truncation: bool,
    /// DS 5: what the feed has reported must be seen by reads, also when the report came during an open.
    pub feed_is_binding: bool,
    /// DS 6: programs truncate to nothing.
    pub truncate_to_nothing: bool,
    /// A read while a truncation to nothing is under way finds what was committed before, without this mount's own
    /// later writes.
    pub reads_while_emptying: bool,
    /// DS 7: programs set times and sizes of files that are being written.
    pub attributes_while_writing: bool,
    /// No task of a mount runs while it sleeps, perhaps for longer than its session lives; then all that is due runs at
    /// once.
    pub stopped_mounts: bool,
    /// DS 8: nodes collect chunks that have been in no file for long.
    pub orphan_scrub: bool,
}

impl Faults {
    pub const ALL: Self = Self {
        purge_early: true,
        power_cuts: true,
        unheard_fsync: true,
        long_outages: true,
        lost_answers_and_truncation: true,
        feed_is_binding: true,
        truncate_to_nothing: true,
        reads_while_emptying: true,
        attributes_while_writing: true,
        stopped_mounts: true,
        orphan_scrub: true,
    };
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

    pub const NONE: Self = Self {
        purge_early: false,
        power_cuts: false,
        unheard_fsync: false,
        long_outages: false,
        lost_answers_and_truncation: false,
        feed_is_binding: false,
        truncate_to_nothing: false,
        reads_while_emptying: false,
        attributes_while_writing: false,
        stopped_mounts: false,
        orphan_scrub: false,
    };
}

impl Default for Faults {
    /// What the checks run with: everything but a stated limit of mounts that write one chunk at the same time.
    fn default() -> Self {
        Self { unheard_fsync: false, ..Self::ALL }
    }
}
