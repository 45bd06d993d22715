//! Where the console takes what it shows from.

use std::net::SocketAddr;

use chordfs_console::RingView;
use chordfs_types::admin::{NodeLine, RingNodeState};
use futures_util::future::BoxFuture;

use super::forms::RingMembers;
use crate::{history::RingHistories, sessions::SessionList, status::RingSurvey};

pub trait ConsoleSource: Send + Sync + 'static {
    /// All that is known of the ring now. Every wait in it has a deadline.
    fn view(&self) -> BoxFuture<'_, RingView>;
}

/// The ring as this node sees it.
pub struct RingSource {
    pub survey: RingSurvey,
    pub histories: RingHistories,
    pub sessions: SessionList,
}

impl ConsoleSource for RingSource {
    fn view(&self) -> BoxFuture<'_, RingView> {
        Box::pin(async move {
            let status = self.survey.gather().await;
            let leader = status.namespace.leader;
            let (history, sessions) = tokio::join!(self.histories.gather(&status), self.sessions.of_leader(leader));
            RingView { status, history, sessions }
        })
    }
}

impl RingMembers for RingSurvey {
    fn members(&self) -> BoxFuture<'_, Vec<SocketAddr>> {
        Box::pin(async move {
            let answering =
                |line: &&NodeLine| !matches!(line.state, RingNodeState::Foreign | RingNodeState::Unreachable);
            self.gather().await.nodes.iter().filter(answering).map(|line| line.address).collect()
        })
    }
}
