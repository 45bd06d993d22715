//! What may go wrong in a simulation, and which of it today's code is known not to survive.
//!
//! A known defect is kept out of the runs by a knob: off, the simulation behaves as if the defect were cured, or does
//! not make what triggers it. Whoever cures one turns its knob on in [`Faults::default`]; the runs then show that the
//! cure holds. "DS n" are the findings of the data safety review.

/// One knob for each known defect; `true` means that the runs provoke it and check for it.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// DS 1: nameless files are purged as soon as every session has answered that it does not need them. Off: long
    /// after the sessions' lease.
    pub purge_early: bool,
    /// DS 3: what replaces fsynced chunks must be on disk when it is committed; nodes lose what they have not synced.
    pub power_cuts: bool,
    /// New: a commit replaces what another mount has fsynced so shortly before that the feed has not reported it, with
    /// chunks that are on no disk.
    pub unheard_fsync: bool,
    /// DS 4: a link is down for longer than an operation waits, so that answers to commits never come.
    pub long_outages: bool,
    /// New, beside DS 4: a mount that has no answer to a commit takes a hole for the hole that was there before, although
    /// another mount has cut the chunk off since.
    pub lost_answers_and_truncation: bool,
    /// DS 5: what the feed has reported must be seen by reads, also when the report came during an open.
    pub feed_is_binding: bool,
    /// DS 6: programs truncate to nothing.
    pub truncate_to_nothing: bool,
    /// New: a read while a truncation to nothing is under way finds what was committed before, without this mount's
    /// own later writes.
    pub reads_while_emptying: bool,
    /// DS 7: programs set times and sizes of files that are being written.
    pub attributes_while_writing: bool,
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
        orphan_scrub: false,
    };
}

impl Default for Faults {
    /// What the checks run with.
    fn default() -> Self {
        Self {
            purge_early: true,
            power_cuts: true,
            long_outages: true,
            lost_answers_and_truncation: true,
            feed_is_binding: true,
            orphan_scrub: true,
            truncate_to_nothing: true,
            reads_while_emptying: true,
            attributes_while_writing: true,
            ..Self::NONE
        }
    }
}
