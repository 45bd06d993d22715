//! The table of calls as data, for tests that make every call as every caller.

use chordfs_identity::Role;

use super::{
    callers::CallerSet,
    table::{self, Rule},
};

/// A call, and who may make it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The method of an HTTP call; `call` for one on the ring's port; `*`: any.
    pub method: &'static str,
    /// The path as the route has it, or the name of the call.
    pub path: &'static str,
    /// Whether a caller may make it who is bound to a folder.
    pub bound: bool,
    /// The names of the roles that may make it, and `plain`, `unknown`.
    pub callers: Vec<&'static str>,
}

/// The rows of the ring's port, of that of files, and of that of administration.
pub fn rows() -> [Vec<Row>; 3] {
    [table::RING, table::FILES, table::ADMIN].map(|rules| rules.iter().map(row).collect())
}

fn row(rule: &Rule) -> Row {
    let roles = Role::ALL.into_iter().map(|role| (role.name(), CallerSet::of_role(role)));
    let others = [("plain", CallerSet::PLAIN), ("unknown", CallerSet::UNKNOWN)];
    let may = roles.chain(others).filter(|(_, kind)| rule.callers.intersect(*kind));
    Row { method: rule.method, path: rule.path, bound: rule.bound, callers: may.map(|(name, _)| name).collect() }
}
