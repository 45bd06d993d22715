//! Where the console takes what it shows from.

use std::net::SocketAddr;

use chordfs_console::RingView;
use chordfs_types::admin::{NodeLine, PoolNodes, RingNodeState};
use futures_util::future::BoxFuture;

use super::forms::RingMembers;
use crate::{
    config::ConfigFollower, history::RingHistories, pool_size::PoolEditor, sessions::SessionList, status::RingSurvey,
};

pub trait ConsoleSource: Send + Sync + 'static {
    /// All that is known of the ring now. Every wait in it has a deadline.
    fn view(&self) -> BoxFuture<'_, RingView>;
}

/// The ring as this node sees it.
pub(crate) struct RingSource {
    pub survey: RingSurvey,
    pub histories: RingHistories,
    pub sessions: SessionList,
    pub pool: PoolEditor,
    pub config: ConfigFollower,
}

impl ConsoleSource for RingSource {
    fn view(&self) -> BoxFuture<'_, RingView> {
        Box::pin(async move {
            let status = self.survey.gather().await;
            let leader = status.namespace.leader;
            let pool = async { self.pool.status_of(PoolNodes::of(&status)).await.map_err(|error| error.text) };
            let (history, sessions, pool) =
                tokio::join!(self.histories.gather(&status), self.sessions.of_leader(leader), pool);
            RingView { status, history, sessions, pool, config: self.config.current() }
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
