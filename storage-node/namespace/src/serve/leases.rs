//! The sessions' leases: what happens to sessions that have sent nothing for too long. After a pause of this process
//! all leases begin anew, because requests that arrived meanwhile were not read.
//!
//! A mount is suspended first: others get what it has kept from them, and no leader waits for it. Its session stays for
//! a while, because a laptop that slept may have changes which it answered, and they can be logged in no other session.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_log::info_limited;
use chordfs_net::boot_clock::since_boot;
use chordfs_types::namespace::{Change, Time};

use super::pauses::PauseDetector;
use crate::{raft::handle::RaftHandle, state::session_feed::SessionFeed};

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct SessionLeases {
    pub raft: Arc<RaftHandle>,
    pub feed: Arc<SessionFeed>,
}

impl SessionLeases {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let (mut term, mut pauses) = (None, PauseDetector::new(LOOK_EVERY));
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let paused = pauses.was_paused(since_boot());
            let Some(current) = self.raft.serving_term() else { continue };
            if term.replace(current) != Some(current) || paused {
                self.feed.renew_all(Instant::now());
            }
            self.end_expired().await;
        }
    }

    async fn end_expired(&self) {
        let (state, settings) = (self.raft.state(), self.raft.settings());
        let sessions = state.sessions();
        self.feed.keep_only(&sessions);
        for session in sessions {
            // Asked for each: the proposals before may have taken seconds.
            let silent = self.feed.silent_for(session, Instant::now());
            if silent < settings.session_lease {
                continue;
            }
            let is_gone = silent >= settings.suspended_session || !state.may_hold_leases(session);
            let (change, outcome) = if is_gone {
                (Change::CloseSession { session }, "closed a session whose lease has expired")
            } else if state.is_to_be_suspended(session) {
                (Change::SuspendSession { session }, "suspended the session of a mount that is silent")
            } else {
                continue;
            };
            match self.raft.propose(change, Time::now()).await {
                Ok(_) => info_limited!(session = session.0, "{outcome}"),
                Err(reason) => {
                    tracing::debug!(session = session.0, reason, "could not end what a silent session holds")
                }
            }
        }
    }
}
