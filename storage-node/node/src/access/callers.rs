//! Kinds of callers, as sets.

use std::time::SystemTime;

use chordfs_identity::Role;
use chordfs_net::transport::RemoteCaller;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallerSet(u16);

impl CallerSet {
    pub(super) const NOBODY: Self = Self(0);
    pub(super) const NODE: Self = Self(1);
    pub(super) const OPERATOR: Self = Self(2);
    pub(super) const CLIENT: Self = Self(4);
    pub(super) const READ_ONLY_CLIENT: Self = Self(8);
    pub(super) const METRICS: Self = Self(16);
    /// A plain connection from a network that the operator allows: old scripts, foreign nodes, browsers.
    pub(super) const PLAIN: Self = Self(32);
    /// An encrypted connection of somebody without a valid certificate.
    pub(super) const UNKNOWN: Self = Self(64);
    /// Clients on whose machines root has no power.
    pub(super) const SQUASHED_CLIENT: Self = Self(128);
    pub(super) const SQUASHED_READ_ONLY_CLIENT: Self = Self(256);

    /// Nodes and those who look after them.
    pub(super) const INSIDE: Self = Self(Self::NODE.0 | Self::OPERATOR.0);
    /// Everybody who may read files by their names, with a node's own rights.
    pub(super) const READERS: Self = Self(Self::INSIDE.0 | Self::CLIENT.0 | Self::READ_ONLY_CLIENT.0);
    /// Everybody who may change files by their names.
    pub(super) const WRITERS: Self = Self(Self::INSIDE.0 | Self::CLIENT.0);
    /// Everybody who may read files by a mount: the calls that a mount makes are checked for each file.
    pub(super) const MOUNTS: Self = Self(Self::READERS.0 | Self::SQUASHED_CLIENT.0 | Self::SQUASHED_READ_ONLY_CLIENT.0);
    /// Everybody who may change files by a mount.
    pub(super) const WRITING_MOUNTS: Self = Self(Self::WRITERS.0 | Self::SQUASHED_CLIENT.0);
    pub(super) const CERTIFIED: Self = Self(Self::MOUNTS.0 | Self::METRICS.0);
    pub(super) const ANYONE: Self = Self(Self::CERTIFIED.0 | Self::PLAIN.0 | Self::UNKNOWN.0);

    /// What a caller is at `now`.
    pub(super) fn of(caller: &RemoteCaller, now: SystemTime) -> Self {
        match (caller, caller.role(now)) {
            (RemoteCaller::Unchecked, _) => Self::ANYONE,
            (RemoteCaller::Plain, _) => Self::PLAIN,
            (_, None) => Self::UNKNOWN,
            (_, Some(role)) => Self::of_role(role),
        }
    }

    /// What the owner of a valid certificate is.
    pub(super) const fn of_role(role: Role) -> Self {
        match role {
            Role::Node => Self::NODE,
            Role::Operator => Self::OPERATOR,
            Role::Client => Self::CLIENT,
            Role::ReadOnlyClient => Self::READ_ONLY_CLIENT,
            Role::Metrics => Self::METRICS,
            Role::SquashedClient => Self::SQUASHED_CLIENT,
            Role::SquashedReadOnlyClient => Self::SQUASHED_READ_ONLY_CLIENT,
        }
    }

    /// The union of two sets.
    pub(super) const fn either(one: Self, other: Self) -> Self {
        Self(one.0 | other.0)
    }

    pub(super) const fn intersect(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn names(self) -> String {
        let all = [
            (Self::NODE, "nodes"),
            (Self::OPERATOR, "operators"),
            (Self::CLIENT, "clients"),
            (Self::READ_ONLY_CLIENT, "read-only clients"),
            (Self::SQUASHED_CLIENT, "squashed clients"),
            (Self::SQUASHED_READ_ONLY_CLIENT, "squashed read-only clients"),
            (Self::METRICS, "metrics"),
            (Self::PLAIN, "plain connections"),
            (Self::UNKNOWN, "callers without a valid certificate"),
        ];
        let named: Vec<&str> = all.iter().filter(|(set, _)| self.intersect(*set)).map(|(_, name)| *name).collect();
        named.join(", ")
    }
}
