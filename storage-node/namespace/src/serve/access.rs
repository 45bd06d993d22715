//! Which role may send which request.
//!
//! A mount checks the permissions of files for the users of its machine; what the mount itself may do is decided here,
//! by the certificate with which it connected. So a changed mount gets no further.

use std::time::SystemTime;

use chordfs_identity::Role;
use chordfs_net::transport::RemoteCaller;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, NamespaceOp, Query, Request},
};

/// What a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangeKind {
    /// The presence of a mount, and what it holds open.
    Session,
    Files,
    /// The ring itself.
    Ring,
}

/// Checks a request of a caller at `now`.
pub(crate) fn check(caller: &RemoteCaller, request: &Request, now: SystemTime) -> Result<(), FsError> {
    if matches!(caller, RemoteCaller::Unchecked) {
        return Ok(());
    }
    let role = caller.role(now);
    let role = role.ok_or_else(|| refused("the certificate has expired, or there is none".into()))?;
    match request {
        Request::Apply(op) => check_change(role, op),
        Request::ApplyList(ops) => ops.iter().try_for_each(|op| check_change(role, op)),
        Request::Query(query) => check_query(role, query),
        Request::Leader
        | Request::Attach { .. }
        | Request::KeepAlive { .. }
        | Request::Report(_)
        | Request::Acknowledge { .. } => match role {
            Role::Metrics => Err(refused("the role metrics has no session".into())),
            _ => Ok(()),
        },
    }
}

fn check_change(role: Role, op: &NamespaceOp) -> Result<(), FsError> {
    match (role, kind(&op.change)) {
        (Role::Node, _) => Ok(()),
        (Role::Metrics, _) | (_, ChangeKind::Ring) => Err(refused(format!("the role {role} may not change this"))),
        (role, ChangeKind::Files) if role.is_read_only_client() => Err(FsError::ReadOnly),
        (_, ChangeKind::Session | ChangeKind::Files) => Ok(()),
    }
}

fn check_query(role: Role, query: &Query) -> Result<(), FsError> {
    let inside = matches!(role, Role::Node | Role::Operator);
    match query {
        Query::OperatorTokens
        | Query::Identities
        | Query::RevokedIdentities
        | Query::Dead { .. }
        | Query::Contents { .. }
        | Query::Reachable { .. }
        | Query::ReachableWithoutRoot { .. }
        | Query::ReachableByClone { .. }
            if !inside =>
        {
            Err(refused(format!("the role {role} may not ask this")))
        }
        _ if role == Role::Metrics => Err(refused("the role metrics may not ask the namespace".into())),
        _ => Ok(()),
    }
}

fn kind(change: &Change) -> ChangeKind {
    match change {
        Change::OpenSession { .. }
        | Change::CloseSession { .. }
        | Change::Hold { .. }
        | Change::Release { .. }
        | Change::HoldOrphans { .. }
        | Change::Lock { .. }
        | Change::Unlock { .. }
        | Change::CancelLock { .. }
        | Change::KeepLocks { .. } => ChangeKind::Session,
        Change::AllocateVersions { .. }
        | Change::AllocateInos { .. }
        | Change::Make { .. }
        | Change::MakeNumbered { .. }
        | Change::MakeMasked { .. }
        | Change::MakeUnnamed { .. }
        | Change::Publish { .. }
        | Change::Link { .. }
        | Change::Unlink { .. }
        | Change::Rmdir { .. }
        | Change::Rename { .. }
        | Change::SetAttr { .. }
        | Change::SetXattr { .. }
        | Change::RemoveXattr { .. }
        | Change::PunchHole { .. }
        | Change::CloneRange { .. }
        | Change::Touch { .. }
        | Change::Commit { .. }
        | Change::CommitWithData { .. }
        | Change::Discard { .. } => ChangeKind::Files,
        Change::PurgeOrphans { .. }
        | Change::ForgetDead { .. }
        | Change::ForgetLogged { .. }
        | Change::CollectOrphans { .. }
        | Change::FoundRoot { .. }
        | Change::Configure { .. }
        | Change::AcceptOperatorToken { .. }
        | Change::RevokeOperatorToken { .. }
        | Change::ResizePool { .. }
        | Change::Invite { .. }
        | Change::Admit { .. }
        | Change::RevokeIdentity { .. }
        | Change::OpenOwnedSession { .. }
        | Change::SuspendSession { .. }
        | Change::ResumeSession { .. } => ChangeKind::Ring,
    }
}

fn refused(reason: String) -> FsError {
    FsError::NotPermitted { reason }
}
