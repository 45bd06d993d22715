//! Beginning anew after the other members have removed this node. What it has promised as a voter no longer counts, and
//! what it has logged is known to a majority, so it stops its Raft, deletes its log and starts as a node that has never
//! been a member, under a new id. That gives the memory of its tables back, and the leader may choose it again.
//!
//! The node itself goes on meanwhile; its other parts see the [`Namespace`] only.

use std::{io, sync::Arc};

use crate::{
    Namespace, NamespaceConfig, NamespaceServices, membership::removal::RemovalWatch, start, storage::set_aside,
};

/// Runs until the node stops or a renewal fails.
pub(crate) async fn begin_anew_when_removed(namespace: Namespace) {
    let stop = namespace.shared.stop.clone();
    loop {
        let former = namespace.services();
        if stop.run_until_cancelled(watch(&former).removed()).await.is_none() {
            return;
        }
        if let Err(reason) = begin_anew(&namespace, &former).await {
            return former.raft.fail(reason);
        }
    }
}

fn watch(services: &NamespaceServices) -> RemovalWatch {
    let NamespaceServices { raft, leader, resignation, log, .. } = services;
    RemovalWatch { raft: raft.clone(), leader: leader.clone(), resignation: resignation.clone(), log: log.clone() }
}

async fn begin_anew(namespace: &Namespace, former: &NamespaceServices) -> Result<(), String> {
    let shared = &namespace.shared;
    let _renewal = shared.renewal.lock().await;
    if shared.stop.is_cancelled() || former.resignation.declines() {
        return Ok(());
    }
    former.stop().await;
    let uid = forget_membership(&shared.config).await;
    let uid = uid.map_err(|error| format!("cannot begin anew after the others removed this node: {error}"))?;
    tracing::info!(
        former = format!("{:016x}", former.raft.uid()),
        now = format!("{uid:016x}"),
        "the namespace's members have removed this node: it deleted its log and continues without a vote under a new id"
    );
    // It belongs to the ring of its neighbours, so it never founds a namespace.
    let config = NamespaceConfig { uid, create: false, ..shared.config.clone() };
    let services = start::start(config, shared.meters.clone()).await.map_err(|error| error.to_string())?;
    *shared.services.write() = Arc::new(services);
    Ok(())
}

/// Deletes the log, and returns the id that replaces the one to which it belonged. After a crash in between the node
/// finds no log and renews its id when it starts.
async fn forget_membership(config: &NamespaceConfig) -> io::Result<u64> {
    let (data, renew_uid) = (config.dir.clone(), config.renew_uid.clone());
    let forgetting = move || {
        set_aside::delete_log(&data)?;
        renew_uid()
    };
    tokio::task::spawn_blocking(forgetting).await.map_err(io::Error::other)?
}
