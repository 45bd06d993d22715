//! What a leader does without being asked, each in a task of its own: leases, voters, garbage. And on every node: knowing
//! who leads, keeping the log short, and stepping aside while the disk is full.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use chordfs_types::namespace::{Change, Time};

use super::{
    Inner, dead_leader,
    garbage::{self, Deleter},
    membership_task::Keeper,
    room,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) fn spawn(inner: &Arc<Inner>, deleter: Deleter) {
    start(inner, |inner| async move { inner.follow_leader().await });
    start(inner, |inner| async move { inner.watch_for_rivals().await });
    start(inner, |inner| async move { bound_log(&inner).await });
    start(inner, |inner| async move { dead_leader::replace(&inner).await });
    start(inner, |inner| async move { room::step_aside(&inner).await });
    start(inner, |inner| async move { keep_leases(&inner).await });
    start(inner, |inner| async move { keep_voters(&inner).await });
    start(inner, |inner| async move { collect_garbage(&inner, &deleter).await });
}

/// Runs until the namespace stops.
fn start<F: Future<Output = ()> + Send + 'static>(inner: &Arc<Inner>, duty: impl FnOnce(Arc<Inner>) -> F) {
    let (stop, work) = (inner.stop.clone(), duty(inner.clone()));
    inner.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}

/// Raft counts entries; large ones need a snapshot earlier, because the log since the last one is in memory.
async fn bound_log(inner: &Inner) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if inner.log.take_appended_bytes(inner.settings.snapshot_after_bytes)
            && let Err(error) = inner.raft.trigger().snapshot().await
        {
            tracing::debug!(%error, "could not begin a snapshot");
        }
    }
}

async fn keep_leases(inner: &Inner) {
    let mut reign = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(now) = inner.leadership() else { continue };
        if reign.replace(now) != Some(now) {
            inner.feed.renew_all(Instant::now());
        }
        close_expired(inner).await;
    }
}

async fn close_expired(inner: &Inner) {
    let sessions = inner.state.sessions();
    for session in inner.feed.expired(&sessions, Instant::now(), inner.settings.session_lease) {
        match inner.propose(Change::CloseSession { session }, Time::now()).await {
            Ok(_) => tracing::info!(session = session.0, "closed a session that was silent for too long"),
            Err(reason) => tracing::debug!(session = session.0, reason, "could not close a silent session"),
        }
    }
}

async fn keep_voters(inner: &Inner) {
    let mut keeper = Keeper::new(inner);
    let mut reign = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(now) = inner.leadership() else { continue };
        if reign.replace(now) != Some(now) {
            keeper.begin_leading();
        }
        std::mem::take(&mut *inner.leaving.lock()).into_iter().for_each(|(uid, leaving)| keeper.let_go(uid, leaving));
        keeper.tick().await;
    }
}

async fn collect_garbage(inner: &Inner, deleter: &Deleter) {
    let (mut more, mut tried) = (false, garbage::Tried::default());
    loop {
        if !more {
            tokio::time::sleep(garbage::LOOK_EVERY).await;
        }
        // Among strangers, what this namespace takes for garbage may be another's.
        let peaceful = inner.peaceful.load(Relaxed);
        more = peaceful && inner.leads() && garbage::collect(inner, deleter, &mut tried, Time::now()).await;
    }
}
