//! `GET /sessions`: the open sessions of mounts and nodes. Only the leader of the namespace knows them, so any other
//! node asks the leader; with `?own=true` it does not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use chordfs_namespace::Namespace;
use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_types::admin::SessionStatus;
use serde::Deserialize;

use crate::http::error::HttpError;

/// The leader answers from memory.
const DEADLINE: Duration = Duration::from_millis(1200);

/// Where the sessions are found.
#[derive(Clone)]
pub struct SessionList {
    namespace: Namespace,
    client: AdminClient,
}

#[derive(Deserialize)]
struct SessionsQuery {
    #[serde(default)]
    own: bool,
}

/// The router has no fallback.
pub fn routes(sessions: SessionList) -> Router {
    Router::new().route("/sessions", get(list)).with_state(sessions)
}

async fn list(
    State(sessions): State<SessionList>,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<Vec<SessionStatus>>, HttpError> {
    let found = if query.own { sessions.own() } else { sessions.of_leader(sessions.namespace.leader()).await };
    found.map(Json).map_err(|text| HttpError::new(StatusCode::SERVICE_UNAVAILABLE, text))
}

impl SessionList {
    pub fn new(namespace: Namespace, pool: Arc<HttpPool>) -> Self {
        Self { namespace, client: AdminClient::new(pool, DEADLINE) }
    }

    /// The sessions as `leader` reports them, or this node if it leads. The error is for people.
    pub async fn of_leader(&self, leader: Option<SocketAddr>) -> Result<Vec<SessionStatus>, String> {
        if let Some(own) = self.namespace.sessions() {
            return Ok(own);
        }
        let leader = leader.ok_or("no leader of the namespace is known; its sessions are shown when there is one")?;
        self.client.own_sessions(leader.into()).await.map_err(|error| error.to_string())
    }

    fn own(&self) -> Result<Vec<SessionStatus>, String> {
        self.namespace.sessions().ok_or_else(|| "this node does not lead the namespace".into())
    }
}
