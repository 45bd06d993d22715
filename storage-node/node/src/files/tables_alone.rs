//! A namespace of tables alone, for tests of what it keeps beside files: no session, no log, and the time of day.

use chordfs_net::clients::NamespaceClient;
use chordfs_tables::Tables;
use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    namespace::{Answer, Change, NamespaceOp, Query, Reply, Time},
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct TablesAlone(Mutex<Tables>);

impl NamespaceClient for TablesAlone {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        let now = Time::now();
        let reply = self.0.lock().apply(1, now, &NamespaceOp { origin: None, now, change }).reply;
        Box::pin(std::future::ready(reply))
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        let answer = self.0.lock().query(&query);
        Box::pin(std::future::ready(answer))
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        unreachable!("no file is written")
    }
}
