//! The identities that this node lets in no longer.
//!
//! The namespace is asked every two seconds, for the same reasons as for the ring's configuration (`config/follower`).
//! The list is kept in the data folder, because a node that starts lets others in before the namespace answers.
//!
//! ```text
//! DATA/identity/revoked   the numbers of identities, 16 hexadecimal digits each, one on each line
//! ```

use std::{collections::HashSet, fs, path::PathBuf, sync::Arc, time::Duration};

use chordfs_files::replace_durably;
use chordfs_identity::IdentityId;
use chordfs_log::warn_limited;
use chordfs_net::{clients::NamespaceClient, transport::RemoteCaller};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Query},
};
use parking_lot::RwLock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const ASK_EVERY: Duration = Duration::from_secs(2);

/// Cheap to clone; the clones share the list. The default is an empty list for rings without identities.
#[derive(Clone, Default)]
pub(crate) struct RevokedIdentities(Arc<SharedList>);

#[derive(Default)]
struct SharedList {
    ids: RwLock<HashSet<IdentityId>>,
    path: Option<PathBuf>,
}

impl RevokedIdentities {
    /// Loads the list of the last run.
    pub(crate) fn load(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let ids = text.lines().filter_map(|line| line.parse().ok()).collect();
        Self(Arc::new(SharedList { ids: RwLock::new(ids), path: Some(path) }))
    }

    pub(crate) fn contain(&self, caller: &RemoteCaller) -> bool {
        match caller {
            RemoteCaller::Certified(owner) => self.0.ids.read().contains(&owner.identity.id),
            RemoteCaller::Unchecked | RemoteCaller::Unknown | RemoteCaller::Plain => false,
        }
    }

    /// Follows the namespace until the node stops.
    pub(crate) async fn run(self, namespace: Arc<dyn NamespaceClient>, stop: CancellationToken) {
        let follow = async {
            loop {
                if let Err(error) = self.follow(&*namespace).await {
                    tracing::debug!(%error, "the revoked identities are not known at present");
                }
                sleep(ASK_EVERY).await;
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    async fn follow(&self, namespace: &dyn NamespaceClient) -> Result<(), FsError> {
        let ids = match namespace.query(Query::RevokedIdentities).await? {
            Answer::RevokedIdentities(ids) => ids,
            other => {
                return Err(FsError::Internal { detail: format!("asked for revoked identities, got {other:?}") });
            }
        };
        self.replace(ids.into_iter().collect()).await;
        Ok(())
    }

    async fn replace(&self, ids: HashSet<IdentityId>) {
        if *self.0.ids.read() == ids {
            return;
        }
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        *self.0.ids.write() = ids;
        let Some(path) = self.0.path.clone() else { return };
        let saved = tokio::task::spawn_blocking(move || replace_durably(&path, lines.as_bytes())).await;
        if let Err(error) = saved.map_err(std::io::Error::other).flatten() {
            warn_limited!(%error, "cannot save which identities are revoked; a restart asks for them first");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use chordfs_identity::{CertifiedIdentity, Role, new_identity};

    use super::*;

    #[tokio::test]
    async fn the_list_counts_at_once_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let identity = new_identity(Role::Client, "a", None).unwrap();
        let (id, begins) = (identity.id, SystemTime::UNIX_EPOCH);
        let caller =
            RemoteCaller::Certified(Arc::new(CertifiedIdentity { identity, begins, expires: SystemTime::now() }));
        let revoked = RevokedIdentities::load(path.clone());
        assert!(!revoked.contain(&caller));
        revoked.replace([id, IdentityId(7)].into()).await;
        assert!(revoked.contain(&caller) && RevokedIdentities::load(path.clone()).contain(&caller));
        assert!(!revoked.contain(&RemoteCaller::Plain));
        revoked.replace(HashSet::new()).await;
        assert!(!revoked.contain(&caller) && !RevokedIdentities::load(path).contain(&caller));
    }
}
