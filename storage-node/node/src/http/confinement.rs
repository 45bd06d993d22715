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
    chunk::Version,
    fs_error::FsError,
    identity::IdentityId,
    namespace::{Answer, Query, folder_of},
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

/// Versions that a caller may read or store chunks of.
#[derive(Debug, PartialEq)]
pub(crate) enum Reach {
    /// The caller is bound to no folder, and may do what root may do.
    Everything,
    These(HashSet<Version>),
}

impl Reach {
    pub(crate) fn contains(&self, version: Version) -> bool {
        match self {
            Self::Everything => true,
            Self::These(versions) => versions.contains(&version),
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
        let (mut reached, unknown) = self.split_remembered(id, versions, chunk_use);
        if !unknown.is_empty() {
            let (path, versions, stores) = (path.unwrap_or_default(), unknown.clone(), chunk_use == ChunkUse::Store);
            let query = if is_squashed {
                Query::ReachableWithoutRoot { owner: id, path, versions, stores }
            } else {
                Query::Reachable { owner: id, path, versions }
            };
            let answers = match self.namespace.query(query).await? {
                Answer::Reachable(answers) if answers.len() == unknown.len() => answers,
                other => {
                    return Err(FsError::Internal { detail: format!("asked for reachable versions, got {other:?}") });
                }
            };
            let newly = unknown.into_iter().zip(answers).filter(|(_, reached)| *reached).map(|(version, _)| version);
            let (newly, until) = (newly.collect::<Vec<_>>(), Instant::now() + REMEMBERED_FOR);
            let mut remembered = self.reached.lock();
            for version in newly {
                remembered.put((id, version, chunk_use), until);
                reached.insert(version);
            }
        }
        Ok(Reach::These(reached))
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
            assert_eq!(reach, Reach::These([2, 4].map(Version).into()));
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
        assert_eq!(reach(ChunkUse::Read).await.unwrap(), Reach::These([Version(2)].into()));
        assert_eq!(
            reach(ChunkUse::Store).await.unwrap(),
            Reach::These([].into()),
            "what may be read is another question"
        );
    }
}
