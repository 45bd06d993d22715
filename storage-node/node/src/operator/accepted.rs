//! The tokens that this node accepts: its own, at any time, and those that the namespace lists.
//!
//! The list is asked for every two seconds, for the same reasons as the ring's configuration (`config/follower`). While
//! the namespace does not answer, the last list counts.

use std::{collections::HashSet, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use chordfs_log::{info_limited, warn_limited};
use chordfs_net::{clients::NamespaceClient, operator_token::unlink_token};
use chordfs_types::{
    fs_error::FsError,
    namespace::{AcceptedToken, Answer, Change, Query},
    operator::{OperatorToken, TokenHash},
};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::token_file;

const ASK_EVERY: Duration = Duration::from_secs(2);
const FORGET_DEADLINE: Duration = Duration::from_secs(5);

/// Cheap to clone; the clones share the tokens.
#[derive(Clone)]
pub(crate) struct AcceptedTokens {
    shared: Arc<SharedTokens>,
}

struct SharedTokens {
    data: PathBuf,
    node_uid: u64,
    node: SocketAddr,
    tokens: Mutex<Tokens>,
    /// Held while the node's own entry in the list is changed, so that one that is on its way does not arrive after the
    /// node has taken it out.
    own_entry: tokio::sync::Mutex<()>,
}

struct Tokens {
    /// `None` once the node has left the ring for good.
    own: Option<TokenHash>,
    of_ring: HashSet<TokenHash>,
}

impl AcceptedTokens {
    /// Loads this node's token from its data folder, or makes it.
    pub(crate) fn start(data: PathBuf, node_uid: u64, node: SocketAddr) -> io::Result<Self> {
        let own = Some(token_file::load_or_make(&data)?.hash());
        let tokens = Mutex::new(Tokens { own, of_ring: HashSet::new() });
        Ok(Self { shared: Arc::new(SharedTokens { data, node_uid, node, tokens, own_entry: Default::default() }) })
    }

    /// Hashes are compared, so the time that this takes tells nothing about a token.
    pub(crate) fn accepts(&self, token: &OperatorToken) -> bool {
        let hash = token.hash();
        let tokens = self.shared.tokens.lock();
        tokens.own == Some(hash) || tokens.of_ring.contains(&hash)
    }

    /// Follows the namespace until the node stops.
    pub(crate) async fn run(self, namespace: Arc<dyn NamespaceClient>, stop: CancellationToken) {
        let follow = async {
            loop {
                if let Err(error) = self.follow(&*namespace).await {
                    tracing::debug!(%error, "the operators' tokens are not known at present");
                }
                sleep(ASK_EVERY).await;
            }
        };
        stop.run_until_cancelled(follow).await;
        unlink_token(&self.shared.data, self.shared.node);
    }

    /// Takes over the namespace's list, and brings this node's own token into it.
    pub(super) async fn follow(&self, namespace: &dyn NamespaceClient) -> Result<(), FsError> {
        let listed = list(namespace).await?;
        let _own_entry = self.shared.own_entry.lock().await;
        let Some(hash) = self.shared.tokens.lock().own else { return Ok(()) };
        if listed.iter().any(|token| token.hash == hash && token.revoked) {
            self.renew().await;
        } else {
            self.list_own(namespace, hash, &listed).await?;
        }
        let valid = listed.iter().filter(|token| !token.revoked).map(|token| token.hash);
        self.shared.tokens.lock().of_ring = valid.collect();
        Ok(())
    }

    /// Brings this node's own token into the list, under the node's present uid only: an entry under a former one could
    /// be revoked without effect.
    async fn list_own(
        &self,
        namespace: &dyn NamespaceClient,
        hash: TokenHash,
        listed: &[AcceptedToken],
    ) -> Result<(), FsError> {
        let SharedTokens { node_uid, node, .. } = *self.shared;
        let (own, former): (Vec<&AcceptedToken>, Vec<&AcceptedToken>) =
            listed.iter().filter(|token| token.hash == hash).partition(|token| token.node_uid == node_uid);
        if !own.iter().any(|token| token.node == node) {
            _ = namespace.apply(Change::AcceptOperatorToken { node_uid, node, hash }).await?;
        }
        for token in former {
            let forget = Change::RevokeOperatorToken { node_uid: token.node_uid, forget: true };
            _ = namespace.apply(forget).await?;
        }
        Ok(())
    }

    /// Takes this node's token out of the list, for a node that has left the ring for good: its data folder may go
    /// anywhere, and the token in it must not change the ring any more.
    pub(crate) async fn forget_own(&self, namespace: &dyn NamespaceClient) {
        self.shared.tokens.lock().own = None;
        let _own_entry = self.shared.own_entry.lock().await;
        let change = Change::RevokeOperatorToken { node_uid: self.shared.node_uid, forget: true };
        let refused = match timeout(FORGET_DEADLINE, namespace.apply(change)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the namespace does not answer".to_owned(),
        };
        let uid = format!("{:016x}", self.shared.node_uid);
        warn_limited!(
            refused,
            "this node has left, and its operator's token is still accepted: revoke the one of {uid} by `storage-node token revoke`"
        );
    }

    /// Makes a new token after the old one was revoked. The next look at the namespace adds it to the list.
    async fn renew(&self) {
        let this = self.clone();
        let made = tokio::task::spawn_blocking(move || token_file::make(&this.shared.data)).await;
        match made.map_err(io::Error::other).flatten() {
            Ok(token) => {
                self.shared.tokens.lock().own = Some(token.hash());
                info_limited!("this node's operator's token was revoked; it has made another");
            }
            Err(error) => {
                warn_limited!(%error, "this node's operator's token was revoked, but no other can be written")
            }
        }
    }
}

/// Returns the tokens that the namespace lists, revoked ones included.
pub(super) async fn list(namespace: &dyn NamespaceClient) -> Result<Vec<AcceptedToken>, FsError> {
    match namespace.query(Query::OperatorTokens).await? {
        Answer::OperatorTokens(tokens) => Ok(tokens),
        other => Err(FsError::Internal { detail: format!("an answer to another query: {other:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use chordfs_net::operator_token::{read_token, token_path};
    use chordfs_tables::Tables;
    use chordfs_types::{
        chunk::Version,
        namespace::{NamespaceOp, Reply, Time},
    };
    use futures_util::future::BoxFuture;

    use super::*;

    /// A namespace of tables alone that counts the changes.
    #[derive(Default)]
    struct CountingTables {
        tables: Mutex<Tables>,
        changes: AtomicU64,
    }

    impl NamespaceClient for CountingTables {
        fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
            let index = self.changes.fetch_add(1, Relaxed) + 1;
            let op = NamespaceOp { origin: None, now: Time::default(), change };
            let reply = self.tables.lock().apply(index, Time::default(), &op).reply;
            Box::pin(std::future::ready(reply))
        }

        fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
            let answer = self.tables.lock().query(&query);
            Box::pin(std::future::ready(answer))
        }

        fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
            unreachable!("a token has no version")
        }
    }

    fn node(uid: u64) -> (tempfile::TempDir, AcceptedTokens, OperatorToken) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = AcceptedTokens::start(dir.path().to_owned(), uid, ([10, 0, 0, uid as u8], 5057).into()).unwrap();
        let own = read_token(&token_path(dir.path())).unwrap();
        (dir, tokens, own)
    }

    #[tokio::test]
    async fn every_node_accepts_the_token_of_any_node_until_it_is_revoked() {
        let namespace = CountingTables::default();
        let (one, other) = (node(1), node(2));
        assert!(one.1.accepts(&one.2) && !one.1.accepts(&other.2), "without a namespace, only its own");
        for tokens in [&one.1, &other.1, &one.1] {
            tokens.follow(&namespace).await.unwrap();
        }
        assert!(one.1.accepts(&other.2) && other.1.accepts(&one.2));
        namespace.apply(Change::RevokeOperatorToken { node_uid: 2, forget: false }).await.unwrap();
        for tokens in [&one.1, &other.1, &other.1, &one.1] {
            tokens.follow(&namespace).await.unwrap();
        }
        assert!(!one.1.accepts(&other.2) && !other.1.accepts(&other.2), "also its own node refuses it");
        let renewed = read_token(&token_path(other.0.path())).unwrap();
        assert!(one.1.accepts(&renewed) && other.1.accepts(&renewed) && one.1.accepts(&one.2));
    }

    /// The entry under the former uid stayed, and revoking it had no effect.
    #[tokio::test]
    async fn a_node_with_a_new_uid_has_one_entry() {
        let namespace = CountingTables::default();
        let (dir, tokens, own) = node(1);
        tokens.follow(&namespace).await.unwrap();
        let renewed = AcceptedTokens::start(dir.path().to_owned(), 7, ([10, 0, 0, 1], 5057).into()).unwrap();
        renewed.follow(&namespace).await.unwrap();
        let listed = list(&namespace).await.unwrap();
        assert_eq!(listed.iter().map(|token| token.node_uid).collect::<Vec<_>>(), [7]);
        assert!(renewed.accepts(&own));
    }

    /// A drained node's token was accepted for ever: whoever got its old data folder could change the ring.
    #[tokio::test]
    async fn the_token_of_a_node_that_has_left_is_no_longer_accepted() {
        let namespace = CountingTables::default();
        let (one, other) = (node(1), node(2));
        for tokens in [&one.1, &other.1, &one.1] {
            tokens.follow(&namespace).await.unwrap();
        }
        other.1.forget_own(&namespace).await;
        for tokens in [&other.1, &one.1] {
            tokens.follow(&namespace).await.unwrap();
        }
        assert!(!one.1.accepts(&other.2) && !other.1.accepts(&other.2) && other.1.accepts(&one.2));
        assert_eq!(list(&namespace).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_list_that_stays_the_same_is_not_written_again() {
        let namespace = CountingTables::default();
        let (_dir, tokens, _) = node(1);
        tokens.follow(&namespace).await.unwrap();
        let before = list(&namespace).await.unwrap();
        tokens.follow(&namespace).await.unwrap();
        assert_eq!((list(&namespace).await.unwrap(), namespace.changes.load(Relaxed)), (before, 1));
    }
}
