//! The owner of a new namespace's root directory. A tree that belongs to the superuser is useless to an ordinary user
//! with a ring of his own, and only the superuser could change that.
//!
//! Every node runs this task, and only the leader acts. It ends as soon as the root has been changed.

use std::{sync::Arc, time::Duration};

use chordfs_types::namespace::{Change, Time};

use crate::{membership::guard::NamespaceGuard, raft::handle::RaftHandle};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs until the root has its chosen owner.
pub(crate) async fn give_root(raft: Arc<RaftHandle>, guard: Arc<NamespaceGuard>) {
    let owner = raft.settings().root_owner;
    while raft.state().tables().is_root_new() {
        // Beside another namespace, this one may be about to give way.
        if guard.no_rival() && raft.has_lease() {
            let change = Change::FoundRoot { uid: owner.uid, gid: owner.gid };
            match raft.propose(change, Time::now()).await {
                Ok(_) => tracing::info!(uid = owner.uid, gid = owner.gid, "the root directory has its owner"),
                Err(reason) => tracing::debug!(reason, "could not set the owner of the root directory; trying again"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
