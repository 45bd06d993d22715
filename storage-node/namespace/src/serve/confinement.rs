//! Keeping callers apart. Only the identity that opened a session acts in it, and an identity that is bound to a folder
//! names only what lies in that folder. An identity on whose machine root has no power does nothing that root alone may
//! do. A mount could be changed to do otherwise, so the leader checks every request.
//!
//! Nodes are exempt: they act for others. What a role may do at all is said in `access.rs`.

use chordfs_identity::{Identity, Role};
use chordfs_net::transport::RemoteCaller;
use chordfs_tables::{BoundView, SquashedView, Tables, inodes_of, names_of};
use chordfs_types::{
    chunk::{ChunkId, Version},
    fs_error::FsError,
    namespace::{Answer, Change, EntryName, Ino, NamespaceOp, Query, Request, SessionId, folder_of},
};

/// The identity that has to be kept apart from others, if the caller is one.
pub(crate) fn confined(caller: &RemoteCaller) -> Option<&Identity> {
    match caller {
        RemoteCaller::Certified(owner) if owner.identity.role != Role::Node => Some(&owner.identity),
        _ => None,
    }
}

/// Whether there are names that the caller must not hear of.
pub(crate) fn is_bound(caller: &RemoteCaller) -> bool {
    confined(caller).is_some_and(|identity| identity.path.is_some() || identity.role.squashes_root())
}

/// Whether all that the answer to the query tells lies in the folder to which the identity is bound, if it is bound.
pub(crate) fn may_remember(tables: &Tables, identity: &Identity, query: &Query) -> bool {
    let Ok(Some(path)) = folder_of(identity) else { return identity.path.is_none() };
    match query {
        Query::Lookup { parent, .. } => tables.bound_view(identity.id, &path).is_some_and(|view| view.reaches(*parent)),
        Query::Resolve { .. } => false,
        _ => true,
    }
}

/// Makes the caller the owner of the sessions that it opens.
pub(crate) fn own(identity: &Identity, op: &mut NamespaceOp) {
    if let Change::OpenSession { nonce, client, holds_leases } = &mut op.change {
        let (nonce, client, holds_leases) = (*nonce, std::mem::take(client), *holds_leases);
        op.change = Change::OpenOwnedSession { nonce, client, holds_leases, owner: identity.id };
    }
}

/// Checks a request against the tables. A refusal counts only if the tables have everything that was answered before:
/// what they lack may be what makes the request a rightful one.
pub(crate) fn check(tables: &Tables, identity: &Identity, request: &Request) -> Result<(), FsError> {
    for session in sessions_of(request) {
        match tables.session_owner(session) {
            Some(owner) if owner == identity.id => {}
            _ if !tables.has_session(session) => return Err(FsError::NoSession),
            _ => return Err(refused("the session belongs to somebody else".into())),
        }
    }
    let path = folder_of(identity).map_err(FsError::Name)?;
    if identity.role.squashes_root() {
        let view = tables.squashed_view(identity.id, path.as_deref().unwrap_or_default()).ok_or(FsError::NoEntry)?;
        check_without_root(&view, request)?;
    }
    let Some(path) = path else { return Ok(()) };
    let named = Named::by(request);
    if named.is_nothing() {
        return Ok(());
    }
    let view = tables.bound_view(identity.id, &path).ok_or(FsError::NoEntry)?;
    named.check(&view, &path).map_err(|what| {
        let folder = identity.path.as_deref().unwrap_or_default();
        refused(format!("the identity {} is bound to the folder {folder}, and {what}", identity.id))
    })
}

/// A change is checked again when it is applied. A list is checked only then, because its changes may depend on each
/// other. That check goes by the session, so what changes files needs one.
fn check_without_root(view: &SquashedView, request: &Request) -> Result<(), FsError> {
    let check_session = |op: &NamespaceOp| match (op.origin, &op.change) {
        (Some(_), _) | (None, Change::OpenSession { .. } | Change::CloseSession { .. }) => Ok(()),
        (None, _) => Err(refused("a change needs a session".into())),
    };
    match request {
        Request::Apply(op) => check_session(op).and_then(|()| view.check_change(&op.change)),
        Request::ApplyList(ops) => ops.iter().try_for_each(check_session),
        Request::Query(query) => view.check_query(query),
        _ => Ok(()),
    }
}

/// Answers a query by what the caller may see, from the same tables that the check goes by.
pub(crate) fn answer(tables: &Tables, caller: &RemoteCaller, query: &Query) -> Result<Answer, FsError> {
    let Some(identity) = confined(caller).filter(|identity| identity.role.squashes_root()) else {
        return tables.query(query);
    };
    let path = folder_of(identity).map_err(FsError::Name)?.unwrap_or_default();
    let view = tables.squashed_view(identity.id, &path).ok_or(FsError::NoEntry)?;
    view.check_query(query)?;
    let mut answer = tables.query(query)?;
    view.hide(&mut answer);
    Ok(answer)
}

fn sessions_of(request: &Request) -> Vec<SessionId> {
    let of_op = |op: &NamespaceOp| {
        let named = match op.change {
            Change::CloseSession { session } => Some(session),
            _ => None,
        };
        op.origin.map(|id| id.session).into_iter().chain(named)
    };
    match request {
        Request::Attach { session, .. } => vec![*session],
        Request::Apply(op) => of_op(op).collect(),
        Request::ApplyList(ops) => {
            let mut sessions: Vec<SessionId> = ops.iter().flat_map(of_op).collect();
            sessions.dedup();
            sessions
        }
        _ => Vec::new(),
    }
}

/// What a request names, and what its answer would tell.
#[derive(Default)]
struct Named<'a> {
    inos: Vec<Ino>,
    /// Inodes that were read, and may be gone since.
    touched: Vec<Ino>,
    versions: Vec<Version>,
    /// Chunks to be read.
    chunks: Vec<ChunkId>,
    /// A name that is looked up, perhaps on the way to the folder.
    look_up: Option<(Ino, &'a EntryName)>,
    /// A path from the root.
    path: Option<&'a [EntryName]>,
    /// The query tells of all files.
    everything: bool,
}

impl<'a> Named<'a> {
    fn by(request: &'a Request) -> Self {
        let mut named = Self::default();
        match request {
            Request::Attach { claims, .. } => named.inos.extend(claims),
            Request::Apply(op) => named.add_change(&op.change),
            Request::ApplyList(ops) => ops.iter().for_each(|op| named.add_change(&op.change)),
            Request::Query(query) => named.add_query(query),
            _ => {}
        }
        named
    }

    fn add_change(&mut self, change: &Change) {
        self.inos.extend(names_of(change).into_iter().map(|(parent, _)| parent));
        self.inos.extend(inodes_of(change));
        match change {
            Change::Hold { ino } => self.inos.push(*ino),
            Change::HoldOrphans { inos } => self.inos.extend(inos),
            Change::Touch { atimes } => self.touched.extend(atimes.iter().map(|(ino, _)| ino)),
            _ => {}
        }
        if let Some((_, commit)) = change.as_commit() {
            self.versions.extend(commit.runs().map(|run| run.version));
        }
    }

    fn add_query(&mut self, query: &'a Query) {
        match query {
            Query::Lookup { parent, name } => self.look_up = Some((*parent, name)),
            Query::GetAttr { ino }
            | Query::Open { ino }
            | Query::Extents { ino, .. }
            | Query::ReadDir { ino, .. }
            | Query::OpenEntries { ino, .. }
            | Query::Xattrs { ino }
            | Query::Locks { ino }
            | Query::ReadLink { ino } => self.inos.push(*ino),
            Query::Resolve { path } => self.path = Some(path),
            Query::Unreferenced { runs } => self.versions.extend(runs.iter().map(|run| run.version)),
            Query::LoggedChunks { ids } => self.chunks.extend(ids),
            Query::Clones { versions } => self.versions.extend(versions),
            Query::StatFs | Query::RingConfig => {}
            Query::Dead { .. }
            | Query::Contents { .. }
            | Query::OperatorTokens
            | Query::PoolSize
            | Query::Identities
            | Query::RevokedIdentities
            | Query::Reachable { .. }
            | Query::ReachableWithoutRoot { .. }
            | Query::ReachableByClone { .. } => self.everything = true,
        }
    }

    fn is_nothing(&self) -> bool {
        let Self { inos, touched, versions, chunks, look_up, path, everything } = self;
        inos.is_empty()
            && touched.is_empty()
            && versions.is_empty()
            && chunks.is_empty()
            && look_up.is_none()
            && path.is_none()
            && !everything
    }

    /// The error says what lies outside of the folder.
    fn check(&self, view: &BoundView, folder: &[EntryName]) -> Result<(), String> {
        if self.everything {
            return Err("the query is about more than that".into());
        }
        let left = self.touched.iter().filter(|ino| !view.is_gone(**ino));
        if let Some(Ino(ino)) = self.inos.iter().chain(left).find(|ino| !view.reaches(**ino)) {
            return Err(format!("inode {ino} is not in it"));
        }
        if let Some(Version(version)) = self.versions.iter().find(|version| !view.reaches_version(**version)) {
            return Err(format!("no file in it has version {version}"));
        }
        let reads = |id: &ChunkId| view.reaches_version(id.version) || view.reaches_by_clone(*id);
        if let Some(ChunkId { version: Version(version), .. }) = self.chunks.iter().find(|id| !reads(id)) {
            return Err(format!("no file in it has this chunk of version {version}"));
        }
        let is_inside = |path: &[EntryName]| path.starts_with(folder) || folder.starts_with(path);
        if self.path.is_some_and(|path| !is_inside(path)) {
            return Err("the path leads elsewhere".into());
        }
        match self.look_up {
            Some((parent, name)) if !view.reaches(parent) && !view.is_on_the_way(parent, name) => {
                Err(format!("directory {} is not in it", parent.0))
            }
            _ => Ok(()),
        }
    }
}

fn refused(reason: String) -> FsError {
    FsError::NotPermitted { reason }
}
