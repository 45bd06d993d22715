//! The node's own session with the namespace: opened in the background and kept open, and used by the parts of the node
//! that work on files.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chordfs_log::info_limited;
use chordfs_net::{
    chunk_client::ChunkReferences,
    clients::NamespaceClient,
    rpc::Dialer,
    session::{Session, SessionEvent, SessionOptions},
};
use chordfs_types::{
    chunk::{ChunkId, Version},
    fs_error::FsError,
    namespace::{Answer, Change, ClonedRun, Extent, FeedEvent, Ino, LoggedChunk, Query, Reply},
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::files::FilesRead;

/// Waits for the session, up to a deadline: a node serves chunks even before the namespace answers.
#[derive(Clone)]
pub struct OwnSession {
    receiver: watch::Receiver<Option<Session>>,
    deadline: Duration,
}

impl OwnSession {
    pub fn new(receiver: watch::Receiver<Option<Session>>, deadline: Duration) -> Self {
        Self { receiver, deadline }
    }

    async fn get(&self) -> Result<Session, FsError> {
        let mut receiver = self.receiver.clone();
        let opened = tokio::time::timeout(self.deadline, receiver.wait_for(Option::is_some)).await;
        let missing = || FsError::NoQuorum { detail: "this node has not reached the namespace yet".into() };
        opened.ok().and_then(Result::ok).and_then(|session| session.clone()).ok_or_else(missing)
    }
}

impl NamespaceClient for OwnSession {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move { self.get().await?.apply(change).await })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move { self.get().await?.query(query).await })
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move { self.get().await?.next_version().await })
    }
}

impl ChunkReferences for OwnSession {
    fn unreferenced(&self, runs: Vec<Extent>) -> BoxFuture<'_, Result<Vec<Extent>, FsError>> {
        Box::pin(async move { self.get().await?.unreferenced(runs).await })
    }

    fn logged(&self, ids: Vec<ChunkId>) -> BoxFuture<'_, Result<Vec<LoggedChunk>, FsError>> {
        Box::pin(async move { self.get().await?.logged(ids).await })
    }

    fn clones(&self, versions: Vec<Version>) -> BoxFuture<'_, Result<Vec<ClonedRun>, FsError>> {
        Box::pin(async move { self.get().await?.clones(versions).await })
    }
}

/// The node caches nothing, so of the feed it needs only the removal of files that it is reading.
fn handle_event(session: &Session, read: &Arc<FilesRead>, event: SessionEvent) {
    let receipt = session.event_receipt();
    let orphaned = |event: &FeedEvent| match event {
        FeedEvent::Orphaned { ino } if read.contains(*ino) => Some(*ino),
        _ => None,
    };
    let inos: Option<Vec<Ino>> = match event {
        SessionEvent::Feed(events, _) => Some(events.iter().filter_map(orphaned).collect()),
        SessionEvent::Reset => None,
    };
    if inos.as_ref().is_some_and(Vec::is_empty) || read.is_empty() {
        return;
    }
    let (session, read) = (session.clone(), read.clone());
    tokio::spawn(async move {
        match inos {
            Some(inos) => read.hold_some(&session, inos).await,
            None => read.hold_all(&session).await,
        }
        drop(receipt);
    });
}

/// Opens the session, and retries until the namespace answers: a node may start long before its peers.
/// Files that lose their names while this node sends them are held.
pub async fn keep_open(
    dialer: Arc<dyn Dialer>,
    own: SocketAddr,
    opened: watch::Sender<Option<Session>>,
    read: Arc<FilesRead>,
    stop: CancellationToken,
) {
    loop {
        // Scripts and browsers are answered by the namespace, never from a lease.
        let options =
            SessionOptions { holds_leases: false, ..SessionOptions::new(vec![own], format!("storage-node {own}")) };
        let opening = Session::open_over(dialer.clone(), options);
        let Some(session) = stop.run_until_cancelled(opening).await else { return };
        match session {
            Ok((session, mut feed)) => {
                let files = read.clone();
                session.report_nothing_open(move || files.is_empty());
                opened.send_replace(Some(session.clone()));
                while let Some(event) = stop.run_until_cancelled(feed.recv()).await {
                    match event {
                        Some(event) => handle_event(&session, &read, event),
                        None => break,
                    }
                }
                if stop.is_cancelled() {
                    return;
                }
            }
            Err(error) => info_limited!(%error, "the namespace does not answer yet"),
        }
    }
}
