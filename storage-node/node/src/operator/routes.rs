//! The operators' tokens, without the tokens.
//!
//! | request | answer |
//! |---|---|
//! | `GET /tokens` | JSON: for each node that has a token its `node_uid` (16 hexadecimal digits), `node`, `since` (seconds since 1970) and `revoked` |
//! | `DELETE /tokens/NODE_UID` | 204 once the token is revoked: within seconds no node accepts it. A node that runs makes another |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get},
};
use chordfs_net::clients::NamespaceClient;
use chordfs_types::namespace::{AcceptedToken, Change};
use serde_json::{Value, json};

use super::accepted::list;
use crate::http::error::HttpError;

/// The router has no fallback.
pub(crate) fn routes(namespace: Arc<dyn NamespaceClient>) -> Router {
    Router::new().route("/tokens", get(show)).route("/tokens/{node_uid}", delete(revoke)).with_state(namespace)
}

async fn show(State(namespace): State<Arc<dyn NamespaceClient>>) -> Result<Json<Value>, HttpError> {
    let tokens = list(&*namespace).await?;
    Ok(Json(tokens.iter().map(to_json).collect()))
}

fn to_json(token: &AcceptedToken) -> Value {
    let AcceptedToken { node_uid, node, since, revoked, .. } = token;
    json!({"node_uid": format!("{node_uid:016x}"), "node": node, "since": since.secs, "revoked": revoked})
}

async fn revoke(
    State(namespace): State<Arc<dyn NamespaceClient>>,
    Path(node_uid): Path<String>,
) -> Result<StatusCode, HttpError> {
    let parsed = u64::from_str_radix(&node_uid, 16).ok().filter(|_| node_uid.len() == 16);
    let Some(node_uid) = parsed else {
        return Err(HttpError::bad_request("a node's uid has 16 hexadecimal digits, as /tokens lists it"));
    };
    if !list(&*namespace).await?.iter().any(|token| token.node_uid == node_uid) {
        return Err(HttpError::new(StatusCode::NOT_FOUND, "no node with this uid has a token; /tokens lists them"));
    }
    _ = namespace.apply(Change::RevokeOperatorToken { node_uid, forget: false }).await?;
    Ok(StatusCode::NO_CONTENT)
}
