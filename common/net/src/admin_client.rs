//! A typed client of a node's administration API (port 5059): the status of nodes and of the ring, drains, scrubs.
//!
//! Every call is sent to one node, once, and ends within the client's deadline. The caller decides whether to retry an
//! unresponsive node, to fail, or to print it as a line of a table.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use chordfs_types::{
    admin::{
        DrainStatus, NodeHistory, NodeStatus, PoolDecided, PoolStatus, PoolTarget, RingStatus, ScalerDecision,
        ScrubStatus, SessionStatus,
    },
    operator::OperatorToken,
    rate_limit::RateLimit,
    ring_id::NodeAddress,
};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use crate::http_pool::{HttpClientError, HttpPool};

#[derive(Clone, Debug, Error)]
pub enum AdminError {
    #[error("no node answers at {node}: {error}")]
    Unreachable { node: NodeAddress, error: HttpClientError },
    /// The node answered with a status other than success; `text` gives the reason.
    #[error("{node} answered {status} to {path}: {text}")]
    Refused { node: NodeAddress, path: String, status: StatusCode, text: String },
    #[error("the answer of {node} to {path} cannot be read: {reason}")]
    Unreadable { node: NodeAddress, path: String, reason: String },
}

impl AdminError {
    /// Whether no connection could be made. False after a timeout: the node may only be slow.
    pub fn is_connect(&self) -> bool {
        matches!(self.connect_kind(), Some(kind) if kind != io::ErrorKind::TimedOut)
    }

    /// Whether the host is up, and no process listens at the port.
    pub fn is_connection_refused(&self) -> bool {
        self.connect_kind() == Some(io::ErrorKind::ConnectionRefused)
    }

    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    fn connect_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Unreachable { error: HttpClientError::Connect { kind, .. }, .. } => Some(*kind),
            _ => None,
        }
    }
}

/// An operator's options for a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// Drain even if fewer than three nodes remain.
    pub allow_fewer_copies: bool,
    /// `None` keeps the rate of the drain under way, or else uses the node's configured one.
    pub rate: Option<RateLimit>,
}

/// What an operator asks of the size of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolRequest {
    /// One more node.
    Grow,
    /// One node less.
    Shrink,
    /// Each pool follows its own settings again.
    Release,
}

impl PoolRequest {
    fn path(self) -> &'static str {
        match self {
            Self::Grow => "/pool/grow",
            Self::Shrink => "/pool/shrink",
            Self::Release => "/pool/release",
        }
    }
}

/// The answer to `POST /scrub`: the pass is done once the status's `asked_done` has reached `pass`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ScrubPass {
    pub pass: u64,
}

#[derive(Clone)]
pub struct AdminClient {
    pool: Arc<HttpPool>,
    deadline: Duration,
    /// Goes with every call that changes something.
    token: Option<OperatorToken>,
}

impl AdminClient {
    pub fn new(pool: Arc<HttpPool>, deadline: Duration) -> Self {
        Self { pool, deadline, token: None }
    }

    /// Sends an operator's token with every call that changes something.
    pub fn with_token(self, token: Option<OperatorToken>) -> Self {
        Self { token, ..self }
    }

    pub async fn status(&self, node: NodeAddress) -> Result<NodeStatus, AdminError> {
        self.get(node, "/status").await
    }

    /// The JSON of [`status`](Self::status), including fields that this version does not know.
    pub async fn status_json(&self, node: NodeAddress) -> Result<String, AdminError> {
        self.text(node, "/status").await
    }

    /// The status of the whole ring, as the node sees it.
    pub async fn ring(&self, node: NodeAddress) -> Result<RingStatus, AdminError> {
        self.get(node, "/ring").await
    }

    /// The JSON of [`ring`](Self::ring), including fields that this version does not know.
    pub async fn ring_json(&self, node: NodeAddress) -> Result<String, AdminError> {
        self.text(node, "/ring").await
    }

    /// The chunks that the node stores, one per line: `NAME_chunk_I BYTES VERSION`.
    pub async fn chunks(&self, node: NodeAddress) -> Result<String, AdminError> {
        self.text(node, "/chunks").await
    }

    /// Succeeds if the node is in a ring and its namespace answers.
    pub async fn ready(&self, node: NodeAddress) -> Result<(), AdminError> {
        self.text(node, "/readyz").await.map(drop)
    }

    /// The drain under way, or the last one attempted.
    pub async fn drain(&self, node: NodeAddress) -> Result<Option<DrainStatus>, AdminError> {
        self.get(node, "/drain").await
    }

    /// Begins a drain, or changes the rate of the drain under way.
    pub async fn begin_drain(
        &self,
        node: NodeAddress,
        request: DrainRequest,
    ) -> Result<Option<DrainStatus>, AdminError> {
        let rate = request.rate.map_or(String::new(), |rate| format!("&rate={rate}"));
        let path = format!("/drain?allow_fewer_copies={}{rate}", request.allow_fewer_copies);
        self.call(node, Method::POST, &path, Vec::new()).await
    }

    /// Cancels the drain. Returns once the node serves as before.
    pub async fn cancel_drain(&self, node: NodeAddress) -> Result<Option<DrainStatus>, AdminError> {
        self.call(node, Method::DELETE, "/drain", Vec::new()).await
    }

    /// Announces another node's drain, or its end; the answer is the peer's own state.
    pub async fn announce_drain<A: DeserializeOwned>(
        &self,
        node: NodeAddress,
        announcement: &impl Serialize,
    ) -> Result<A, AdminError> {
        let body = serde_json::to_vec(announcement).expect("plain data always encodes");
        self.call(node, Method::POST, "/drain/peer", vec![body.into()]).await
    }

    /// The ring's configuration, in the form of [`chordfs_types::ring_config::RingConfig::to_json`].
    pub async fn config(&self, node: NodeAddress) -> Result<Value, AdminError> {
        self.get(node, "/config").await
    }

    /// Changes the settings in `settings`, all or none; returns the new configuration.
    pub async fn set_config(&self, node: NodeAddress, settings: &Value) -> Result<Value, AdminError> {
        self.call(node, Method::PUT, "/config", vec![settings.to_string().into()]).await
    }

    /// Empties the caches of all nodes; returns the configuration.
    pub async fn clear_cache(&self, node: NodeAddress) -> Result<Value, AdminError> {
        self.call(node, Method::POST, "/cache/clear", Vec::new()).await
    }

    /// The JSON of [`PoolStatus`](chordfs_types::admin::PoolStatus), including fields that this version does not know.
    pub async fn pool_json(&self, node: NodeAddress) -> Result<String, AdminError> {
        self.text(node, "/pool").await
    }

    /// All that is known of the pool. The node asks all others.
    pub async fn pool(&self, node: NodeAddress) -> Result<PoolStatus, AdminError> {
        self.get(node, "/pool").await
    }

    /// The size that the pool shall have. No other node is asked for it but the namespace's leader.
    pub async fn pool_target(&self, node: NodeAddress) -> Result<PoolTarget, AdminError> {
        self.get(node, "/pool/wanted").await
    }

    /// Changes the size of the pool for an operator.
    pub async fn resize_pool(&self, node: NodeAddress, request: PoolRequest) -> Result<PoolDecided, AdminError> {
        self.call(node, Method::POST, request.path(), Vec::new()).await
    }

    /// Changes the size of the pool for a scaler. It is refused with 409 if another decision came first.
    pub async fn decide_pool_size(
        &self,
        node: NodeAddress,
        decision: &ScalerDecision,
    ) -> Result<PoolDecided, AdminError> {
        let body = serde_json::to_vec(decision).expect("plain data always encodes");
        self.call(node, Method::POST, "/pool/decision", vec![body.into()]).await
    }

    /// The operators' tokens that the ring lists: objects as `GET /tokens` describes them.
    pub async fn tokens(&self, node: NodeAddress) -> Result<Vec<Value>, AdminError> {
        self.get(node, "/tokens").await
    }

    /// Revokes the token of the node with this uid.
    pub async fn revoke_token(&self, node: NodeAddress, node_uid: &str) -> Result<(), AdminError> {
        self.send(node, Method::DELETE, &format!("/tokens/{node_uid}"), Vec::new()).await.map(drop)
    }

    /// Lets somebody come in once. `body` and the answer are described at `POST /invitations`.
    pub async fn invite(&self, node: NodeAddress, body: &Value) -> Result<Value, AdminError> {
        self.call(node, Method::POST, "/invitations", vec![body.to_string().into()]).await
    }

    /// The open invitations, and the identities that the ring has let in, as `GET /identities` describes them.
    pub async fn identities(&self, node: NodeAddress) -> Result<Value, AdminError> {
        self.get(node, "/identities").await
    }

    /// Keeps the identity with this number out, or withdraws the invitation.
    pub async fn revoke_identity(&self, node: NodeAddress, id: &str) -> Result<(), AdminError> {
        self.send(node, Method::DELETE, &format!("/identities/{id}"), Vec::new()).await.map(drop)
    }

    /// The node's points after `after`, in seconds since 1970; all without it.
    pub async fn history(&self, node: NodeAddress, after: Option<u64>) -> Result<NodeHistory, AdminError> {
        let query = after.map_or(String::new(), |after| format!("?after={after}"));
        self.get(node, &format!("/history{query}")).await
    }

    /// The open sessions, if the node leads the namespace.
    pub async fn own_sessions(&self, node: NodeAddress) -> Result<Vec<SessionStatus>, AdminError> {
        self.get(node, "/sessions?own=true").await
    }

    /// The sessions of the namespace, as `node` learns them from its leader.
    pub async fn sessions(&self, node: NodeAddress) -> Result<Vec<SessionStatus>, AdminError> {
        self.get(node, "/sessions").await
    }

    pub async fn scrub(&self, node: NodeAddress) -> Result<ScrubStatus, AdminError> {
        self.get(node, "/scrub").await
    }

    pub async fn begin_scrub(&self, node: NodeAddress) -> Result<ScrubPass, AdminError> {
        self.call(node, Method::POST, "/scrub", Vec::new()).await
    }

    /// A node's state in founding a ring. `query` is the URL-encoded introduction of the caller.
    pub async fn founding<A: DeserializeOwned>(&self, node: NodeAddress, query: &str) -> Result<A, AdminError> {
        self.get(node, &format!("/aws/founding?{query}")).await
    }

    async fn get<A: DeserializeOwned>(&self, node: NodeAddress, path: &str) -> Result<A, AdminError> {
        self.call(node, Method::GET, path, Vec::new()).await
    }

    async fn text(&self, node: NodeAddress, path: &str) -> Result<String, AdminError> {
        let body = self.send(node, Method::GET, path, Vec::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn call<A: DeserializeOwned>(
        &self,
        node: NodeAddress,
        method: Method,
        path: &str,
        body: Vec<Bytes>,
    ) -> Result<A, AdminError> {
        let answer = self.send(node, method, path, body).await?;
        let unreadable = |reason: String| AdminError::Unreadable { node, path: without_query(path), reason };
        serde_json::from_slice(&answer).map_err(|error| unreadable(error.to_string()))
    }

    fn authorization(&self) -> HeaderMap {
        self.token.iter().map(|token| (header::AUTHORIZATION, bearer(token))).collect()
    }

    /// Returns the body of a successful answer.
    async fn send(&self, node: NodeAddress, method: Method, path: &str, body: Vec<Bytes>) -> Result<Bytes, AdminError> {
        let headers = if method == Method::GET { HeaderMap::new() } else { self.authorization() };
        let answer = self.pool.request(node.admin(), method, path, headers, body, self.deadline).await;
        let answer = answer.map_err(|error| AdminError::Unreachable { node, error })?;
        if answer.status.is_success() {
            Ok(answer.body)
        } else {
            let (path, status, text) = (without_query(path), answer.status, answer.text());
            Err(AdminError::Refused { node, path, status, text })
        }
    }
}

fn bearer(token: &OperatorToken) -> HeaderValue {
    let text = format!("Bearer {}", token.reveal());
    let mut value = HeaderValue::from_str(&text).expect("a token has only letters, digits and hyphens");
    value.set_sensitive(true);
    value
}

fn without_query(path: &str) -> String {
    path.split('?').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn client() -> AdminClient {
        AdminClient::new(Arc::new(HttpPool::new()), DEADLINE)
    }

    /// Starts an administration API that gives one answer. Returns the node's ring address.
    async fn node_that_answers(status: &'static str, body: &'static str) -> NodeAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            connection.write_all(answer.as_bytes()).await.unwrap();
        });
        NodeAddress(std::net::SocketAddr::new(admin.ip(), admin.port() - 2))
    }

    #[tokio::test]
    async fn an_answer_is_a_value_or_a_typed_error() {
        let node = node_that_answers("200 OK", "null").await;
        assert_eq!(client().drain(node).await.unwrap(), None);
        let node = node_that_answers("409 Conflict", "only 2 other nodes\n").await;
        let refused = client().begin_drain(node, DrainRequest::default()).await.unwrap_err();
        assert!(
            matches!(&refused, AdminError::Refused { status: StatusCode::CONFLICT, text, .. } if text == "only 2 other nodes")
        );
        assert!(!refused.is_connect() && !refused.is_unreachable());
        let node = node_that_answers("200 OK", "{").await;
        assert!(matches!(client().status(node).await, Err(AdminError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn a_closed_port_is_distinguished_from_an_unresponsive_node() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let node = NodeAddress(std::net::SocketAddr::new(admin.ip(), admin.port() - 2));
        let silent = AdminClient::new(Arc::new(HttpPool::new()), Duration::from_millis(50)).status(node).await;
        let silent = silent.unwrap_err();
        assert!(silent.is_unreachable() && !silent.is_connect(), "{silent}");
        drop(listener);
        let gone = client().status(node).await.unwrap_err();
        assert!(gone.is_connect() && gone.is_connection_refused(), "{gone}");
    }
}
