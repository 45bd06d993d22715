//! Which chunks a caller may read and store that is bound to a folder, or on whose machine root has no power.
//!
//! A node knows chunks, and neither folders nor permissions, so it asks the namespace which versions the caller
//! reaches. What it may reach is remembered for a few seconds, because a file's chunks are asked for one after the
//! other; what it may not is asked again, since a version is allocated shortly before its first chunk is stored.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_net::{clients::NamespaceClient, transport::RemoteCaller};
use chordfs_types::{
    chunk::{ChunkId, Version},
    fs_error::FsError,
    identity::IdentityId,
    namespace::{Answer, PAGE_ITEMS, Query, folder_of},
};
use lru::LruCache;
use parking_lot::Mutex;

/// A file that was moved out of the folder, or is no longer for others, stays readable for as long.
const REMEMBERED_FOR: Duration = Duration::from_secs(5);
const REMEMBERED_VERSIONS: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("it is not 0");

pub(crate) struct Confinement {
    namespace: Arc<dyn NamespaceClient>,
    reached: Mutex<LruCache<(IdentityId, Version, ChunkUse), Instant>>,
}

/// What a caller wants to do with chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChunkUse {
    Read,
    Store,
}

/// What a caller may read or store.
#[derive(Debug, PartialEq)]
pub(crate) enum Reach {
    /// The caller is bound to no folder, and may do what root may do.
    Everything,
    These(Reached),
}

/// Versions of which a caller may read or store all chunks, and chunks of others that it may read because they were
/// cloned into a file of its.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reached {
    versions: HashSet<Version>,
    cloned: HashSet<ChunkId>,
}

impl Reach {
    pub(crate) fn contains(&self, version: Version) -> bool {
        match self {
            Self::Everything => true,
            Self::These(reached) => reached.versions.contains(&version),
        }
    }

    pub(crate) fn contains_chunk(&self, id: ChunkId) -> bool {
        match self {
            Self::Everything => true,
            Self::These(reached) => reached.versions.contains(&id.version) || reached.cloned.contains(&id),
        }
    }
}

impl Confinement {
    pub(crate) fn new(namespace: Arc<dyn NamespaceClient>) -> Self {
        Self { namespace, reached: Mutex::new(LruCache::new(REMEMBERED_VERSIONS)) }
    }

    /// Returns those of the versions that the caller reaches.
    pub(crate) async fn reach(
        &self,
        caller: Option<&RemoteCaller>,
        versions: impl Iterator<Item = Version>,
        chunk_use: ChunkUse,
    ) -> Result<Reach, FsError> {
        let Some(RemoteCaller::Certified(owner)) = caller else { return Ok(Reach::Everything) };
        let (path, id) = (folder_of(&owner.identity).map_err(FsError::Name)?, owner.identity.id);
        let is_squashed = owner.identity.role.squashes_root();
        if path.is_none() && !is_squashed {
            return Ok(Reach::Everything);
        }
        let (mut versions_reached, unknown) = self.split_remembered(id, versions, chunk_use);
        if !unknown.is_empty() {
            let (path, versions, stores) = (path.unwrap_or_default(), unknown.clone(), chunk_use == ChunkUse::Store);
            let query = if is_squashed {
                Query::ReachableWithoutRoot { owner: id, path, versions, stores }
            } else {
                Query::Reachable { owner: id, path, versions }
            };
            let answers = self.ask(query, unknown.len()).await?;
            let newly = unknown.into_iter().zip(answers).filter(|(_, reached)| *reached).map(|(version, _)| version);
            let (newly, until) = (newly.collect::<Vec<_>>(), Instant::now() + REMEMBERED_FOR);
            let mut remembered = self.reached.lock();
            for version in newly {
                remembered.put((id, version, chunk_use), until);
                versions_reached.insert(version);
            }
        }
        Ok(Reach::These(Reached { versions: versions_reached, ..Reached::default() }))
    }

    /// Returns what the caller may read of these chunks.
    pub(crate) async fn reach_chunks(
        &self,
        caller: Option<&RemoteCaller>,
        ids: impl Iterator<Item = ChunkId> + Clone,
    ) -> Result<Reach, FsError> {
        let mut reach = self.reach(caller, ids.clone().map(|id| id.version), ChunkUse::Read).await?;
        if let (Reach::These(reached), Some(RemoteCaller::Certified(owner))) = (&mut reach, caller) {
            let others: Vec<ChunkId> = ids.filter(|id| !reached.versions.contains(&id.version)).collect();
            let path = folder_of(&owner.identity).map_err(FsError::Name)?.unwrap_or_default();
            let (owner, without_root) = (owner.identity.id, owner.identity.role.squashes_root());
            for page in others.chunks(PAGE_ITEMS as usize) {
                let query = Query::ReachableByClone { owner, path: path.clone(), without_root, ids: page.to_vec() };
                let answers = self.ask(query, page.len()).await?;
                reached.cloned.extend(page.iter().zip(answers).filter(|(_, is_reached)| *is_reached).map(|(id, _)| id));
            }
        }
        Ok(reach)
    }

    async fn ask(&self, query: Query, asked: usize) -> Result<Vec<bool>, FsError> {
        match self.namespace.query(query).await? {
            Answer::Reachable(answers) if answers.len() == asked => Ok(answers),
            other => Err(FsError::Internal { detail: format!("asked what is reachable, got {other:?}") }),
        }
    }

    /// The versions that the caller is known to reach, and those that it may not reach.
    fn split_remembered(
        &self,
        caller: IdentityId,
        versions: impl Iterator<Item = Version>,
        chunk_use: ChunkUse,
    ) -> (HashSet<Version>, Vec<Version>) {
        let (mut remembered, now) = (self.reached.lock(), Instant::now());
        let is_reached =
            |version: &Version| remembered.get(&(caller, *version, chunk_use)).is_some_and(|until| now < *until);
        let all: HashSet<Version> = versions.collect();
        let (reached, unknown): (Vec<Version>, Vec<Version>) = all.into_iter().partition(is_reached);
        (reached.into_iter().collect(), unknown)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::SystemTime,
    };

    use chordfs_identity::{CertifiedIdentity, Role, new_identity};
    use chordfs_types::namespace::{Change, Reply};
    use futures_util::future::BoxFuture;

    use super::*;

    /// A namespace in which even versions are reached.
    #[derive(Default)]
    struct EvenVersions {
        asked: AtomicUsize,
    }

    impl NamespaceClient for EvenVersions {
        fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
            unreachable!("{change:?}")
        }

        fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
            self.asked.fetch_add(1, Relaxed);
            let reached = match query {
                Query::Reachable { path, versions, .. } if path.len() == 1 => versions,
                Query::ReachableWithoutRoot { path, versions, stores: false, .. } if path.is_empty() => versions,
                Query::ReachableWithoutRoot { versions, stores: true, .. } => vec![Version(1); versions.len()],
                other => unreachable!("{other:?}"),
            };
            let answer = Answer::Reachable(reached.iter().map(|version| version.0 % 2 == 0).collect());
            Box::pin(std::future::ready(Ok(answer)))
        }

        fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
            unreachable!("nothing is written")
        }
    }

    fn reached<const N: usize>(versions: [u64; N]) -> Reach {
        Reach::These(Reached { versions: versions.map(Version).into(), ..Reached::default() })
    }

    fn client(path: Option<&str>) -> RemoteCaller {
        of_role(Role::Client, path)
    }

    fn of_role(role: Role, path: Option<&str>) -> RemoteCaller {
        let identity = new_identity(role, "a", path).unwrap();
        let (begins, expires) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(60));
        RemoteCaller::Certified(Arc::new(CertifiedIdentity { identity, begins, expires }))
    }

    #[tokio::test]
    async fn a_caller_that_is_bound_to_a_folder_reaches_what_the_namespace_says_and_others_everything() {
        let namespace = Arc::new(EvenVersions::default());
        let confinement = Confinement::new(namespace.clone());
        let versions = || [1, 2, 4].map(Version).into_iter();
        for caller in [None, Some(&RemoteCaller::Unchecked), Some(&client(None))] {
            assert_eq!(confinement.reach(caller, versions(), ChunkUse::Read).await.unwrap(), Reach::Everything);
        }
        let bound = client(Some("/projects"));
        for asked in [1, 2] {
            let reach = confinement.reach(Some(&bound), versions(), ChunkUse::Read).await.unwrap();
            assert_eq!(reach, reached([2, 4]));
            assert_eq!(namespace.asked.load(Relaxed), asked, "what is not reached is asked again");
        }
        confinement.reach(Some(&bound), [Version(2)].into_iter(), ChunkUse::Read).await.unwrap();
        assert_eq!(namespace.asked.load(Relaxed), 2, "what is reached is remembered");
        confinement.reach(Some(&client(Some("/other"))), [Version(2)].into_iter(), ChunkUse::Read).await.unwrap();
        assert_eq!(namespace.asked.load(Relaxed), 3, "for each identity by itself");
    }

    #[tokio::test]
    async fn where_root_has_no_power_the_namespace_says_what_is_read_and_what_is_stored() {
        let namespace = Arc::new(EvenVersions::default());
        let confinement = Confinement::new(namespace.clone());
        let squashed = of_role(Role::SquashedClient, None);
        let reach = |chunk_use| confinement.reach(Some(&squashed), [1, 2].map(Version).into_iter(), chunk_use);
        assert_eq!(reach(ChunkUse::Read).await.unwrap(), reached([2]));
        assert_eq!(reach(ChunkUse::Store).await.unwrap(), reached([]), "what may be read is another question");
    }
}
