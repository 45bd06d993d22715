//! The verdict on a ring, for people.

use chordfs_types::admin::Health;

/// The verdict in one line, and a line for each reason.
pub(crate) fn verdict(health: &Health) -> String {
    let reasons = health.reasons.iter().map(|reason| format!("  {reason}\n"));
    std::iter::once(format!("health            {}\n", health.level)).chain(reasons).collect()
}
