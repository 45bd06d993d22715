//! The work beside the calls of readers and writers.
//!
//! | file | its idea |
//! |---|---|
//! | `recovery` | the open: what the files say, and which of them are trusted |
//! | `compaction_policy`, `compaction` | which segments are worth rewriting, and when; rewriting them |
//! | `scrub` | reading every record, to find damage |
//! | `orphan_candidates` | chunks that have been here long enough to be orphans |

pub(crate) mod compaction;
pub(crate) mod compaction_policy;
pub(crate) mod orphan_candidates;
pub(crate) mod recovery;
pub(crate) mod scrub;
