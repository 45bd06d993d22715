//! What may go wrong in a simulation.
//!
//! Each kind of fault that has found a defect has a knob. With [`Faults::default`] all are on but one, which is a
//! stated limit; off, the simulation does not make the fault, or does not check what it breaks. "DS n" are the findings
//! of a review of the data path. This is what the runs find after a cure has been taken out:
//!
//! | finding | taken out: a patch in `mutations/` | first seed | message |
//! |---|---|---|---|
//! | DS 1 | `answers-of-sessions` (the model of it here) | 3 | inode was purged while a mount has it open |
//! | DS 1 | `receipts-of-the-feed` | 78 | the same |
//! | - | `own-change-receipts` | 248 | the same |
//! | DS 3 | `sync-when-stale` | 3 | it replaces what was fsynced and is on 0 disks |
//! | DS 3 | `newer-chunks` | none of 500 | 174 before operations were answered late |
//! | DS 4 | `retired-versions` | 18 | a chunk is committed which no node has |
//! | DS 4 | `sent-to` | none of 500 | unit test alone: `retired-versions` make it harmless |
//! | DS 5 | `change-during-open` | none of 500 | 603 before operations were answered late |
//! | - | `change-during-create` | 194 | a read shows less than the feed has reported |
//! | DS 6 | `late-truncation` | 4 | the same |
//! | DS 7 | `data-kept-by-set-attr` | 39 | a read lacks the mount's own write |
//! | DS 8 | `stored-again` | 59 | the same |
//! | DS 8 | `conflict-pause`, and the former | 14 | 150 commits in a row met a conflict |
//!
//! These are the results of `mutations.sh 500`; seeds shift when a workload changes.

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
