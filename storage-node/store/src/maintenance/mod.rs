//! What happens beside the calls of readers and writers.
//!
//! | file | its idea |
//! |---|---|
//! | `recovery` | the open: what the files say, and what of it is believed |
//! | `compaction_policy`, `compaction` | which segments are worth rewriting, and when; rewriting them |
//! | `scrub` | reading every record, to find damage |
//! | `orphan_candidates` | chunks that have been here for long |

pub mod compaction;
pub mod compaction_policy;
pub mod orphan_candidates;
pub mod recovery;
pub mod scrub;
