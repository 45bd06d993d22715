//! The node's own session with the namespace: opened in the background and kept open, and used by the parts of the node
//! that work on files.

use std::{net::SocketAddr, time::Duration};

use chordfs_net::{
    chunk_client::ChunkReferences,
    clients::NamespaceClient,
    session::{Session, SessionOptions},
};
use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    namespace::{Answer, Change, Extent, Query, Reply},
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

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
}

/// Opens the session, and retries until the namespace answers: a node may start long before its peers.
pub async fn keep_open(own: SocketAddr, opened: watch::Sender<Option<Session>>, stop: CancellationToken) {
    loop {
        let options = SessionOptions::new(vec![own], format!("storage-node {own}"));
        let session = tokio::select! { session = Session::open(options) => session, () = stop.cancelled() => return };
        match session {
            Ok((session, mut feed)) => {
                opened.send_replace(Some(session.clone()));
                // The node caches nothing and has no file open, so the events of the feed are discarded.
                while let Some(event) = stop.run_until_cancelled(feed.recv()).await {
                    match event {
                        Some(_) => drop(session.event_receipt()),
                        None => break,
                    }
                }
                if stop.is_cancelled() {
                    return;
                }
            }
            Err(error) => info!(%error, "the namespace does not answer yet"),
        }
    }
}
