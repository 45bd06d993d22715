//! Giving up a seat in good order, before the node goes away for good: first the lead, then the vote.

use std::{collections::BTreeSet, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;

use super::{Inner, Leadership, raft_types::admin_address};

const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Returns when another leads and this node has no seat any more. The caller sets the deadline.
pub(super) async fn leave(inner: &Inner) -> Result<(), String> {
    loop {
        if let Some(reign) = inner.reigns() {
            hand_over(inner, reign).await?;
        } else if is_let_go(inner).await {
            // The leader tells those it leads, and this node is none of them any more: it has to know by itself.
            inner.confirm().await;
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Tells the leader that this node leaves; whether it has heard that and has no seat for it, not even one without a vote.
/// From one that was just taken in as a learner a vote is only a moment away, and who is gone then votes for ever. In this
/// order: what the leader began before it heard this shows in what it says after.
pub(super) async fn is_let_go(inner: &Inner) -> bool {
    let Some(leader) = inner.leader().filter(|leader| *leader != inner.ring) else { return false };
    if inner.reigns().is_some() {
        return false;
    }
    if let Err(reason) = inner.network.say_leaving(admin_address(leader), inner.uid, true).await {
        tracing::debug!(reason, "the leader does not let go of this node yet");
        return false;
    }
    match inner.network.identity(admin_address(leader)).await {
        Ok(leader) => leader.leads && !leader.voters.contains(&inner.ring) && !leader.members.contains(&inner.uid),
        Err(_) => false,
    }
}

/// One step out of the lead, or out of the vote; nothing where nobody else could take it.
pub(super) async fn step_back(inner: &Inner) {
    let alone = inner.voters().iter().all(|voter| *voter == inner.ring);
    if alone {
        return;
    }
    match inner.reigns() {
        Some(reign) => {
            if let Err(reason) = hand_over(inner, reign).await {
                tracing::debug!(reason, "nobody takes over the lead yet");
            }
        }
        None => decline(inner, true).await,
    }
}

/// Asks the leader not to choose this node as a voter, or that it may again. As good as the leader that hears it: the next
/// one knows nothing of it, so it has to be said again.
pub(super) async fn decline(inner: &Inner, leaving: bool) {
    let Some(leader) = inner.leader().filter(|leader| *leader != inner.ring) else { return };
    if let Err(reason) = inner.network.say_leaving(admin_address(leader), inner.uid, leaving).await {
        tracing::debug!(reason, leaving, "the leader does not hear who may vote");
    }
}

/// One step back to where this node may be chosen as a voter; whether that is done. A lead that it has begun to hand over
/// has lost its lease for good, so it goes to another first: otherwise nobody would lead.
pub(super) async fn stay(inner: &Inner) -> bool {
    if let Some(reign) = inner.reigns() {
        if *inner.handed_over.lock() != Some(reign) {
            return true;
        }
        if let Err(reason) = hand_over(inner, reign).await {
            tracing::debug!(reason, "nobody takes over the lead that this node has begun to hand over");
        }
        return false;
    }
    let Some(leader) = inner.leader().filter(|leader| *leader != inner.ring) else { return false };
    let told = inner.network.say_leaving(admin_address(leader), inner.uid, false).await;
    told.inspect_err(|reason| tracing::debug!(reason, "the leader does not hear yet that this node stays")).is_ok()
}

/// Lets the voter that has most of the log lead. It need not wait for this leader's lease, so this leader gives up the
/// lease first, and for good: a hand-over that seems to have failed may only be late.
async fn hand_over(inner: &Inner, reign: Leadership) -> Result<(), String> {
    let successor = {
        let metrics = inner.metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().filter(|uid| *uid != inner.uid).collect();
        let progress = metrics.replication.clone().unwrap_or_default();
        voters.into_iter().max_by_key(|uid| progress.get(uid).copied().flatten())
    };
    let successor = successor.ok_or("no other node holds the namespace; stopping this one stops it")?;
    *inner.handed_over.lock() = Some(reign);
    let handed = inner.raft.trigger().transfer_leader(successor).await;
    let leads = |uid: Option<u64>| uid.is_some_and(|uid| uid != inner.uid);
    let wait = inner.raft.wait(Some(inner.settings.election_timeout_max * 2));
    let changed = wait.metrics(|metrics| leads(metrics.current_leader), "another leads").await;
    handed.map_err(|error| error.to_string())?;
    if let Err(error) = changed {
        tracing::debug!(%error, "the lead was not taken over; trying again");
    }
    Ok(())
}
