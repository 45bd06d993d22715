//! The sessions' leases: the leader closes sessions that have sent nothing for too long. After a pause of this process
//! all leases begin anew, because requests that arrived meanwhile were not read.

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
            self.close_expired().await;
        }
    }

    async fn close_expired(&self) {
        let sessions = self.raft.state().sessions();
        for session in self.feed.expired(&sessions, Instant::now(), self.raft.settings().session_lease) {
            match self.raft.propose(Change::CloseSession { session }, Time::now()).await {
                Ok(_) => info_limited!(session = session.0, "closed a session whose lease has expired"),
                Err(reason) => tracing::debug!(session = session.0, reason, "could not close an expired session"),
            }
        }
    }
}
