//! Inviting, listing and revoking, for operators.
//!
//! | request | answer |
//! |---|---|
//! | `POST /invitations` | takes JSON `{"role": ROLE, "name": TEXT, "path": PATH or null, "expires_seconds": N}`, answers with JSON `{"id": ID, "token": TOKEN}` |
//! | `GET /identities` | JSON: `invitations` and `identities`, for each its `id` (16 hexadecimal digits), `role`, `name`, `path` (`null`: everything), `expires` (seconds since 1970), and for identities `since` and `revoked` |
//! | `DELETE /identities/ID` | 204 once the invitation is withdrawn, or within seconds no node lets the identity in |

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use chordfs_identity::{Fingerprint, IdentityId, InvitationSecret, InvitationToken, Role, new_identity};
use chordfs_net::clients::NamespaceClient;
use chordfs_types::{
    fs_error::FsError,
    identity::Identity,
    namespace::{Answer, Change, Invitation, InvitationHash, KnownIdentity, Query, Time},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::folder::NodeIdentity;
use crate::{driver::RingHandle, http::error::HttpError};

/// Nodes that a token names beside the one that made it.
const OTHER_NODES: usize = 2;
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Clone)]
struct Registry {
    authority: Fingerprint,
    namespace: Arc<dyn NamespaceClient>,
    ring: RingHandle,
}

/// The router has no fallback.
pub(crate) fn operator_routes(
    identity: &NodeIdentity,
    namespace: Arc<dyn NamespaceClient>,
    ring: RingHandle,
) -> Router {
    let registry = Registry { authority: identity.authority().fingerprint(), namespace, ring };
    Router::new()
        .route("/invitations", post(invite))
        .route("/identities", get(list))
        .route("/identities/{id}", delete(revoke))
        .with_state(registry)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvitationRequest {
    role: Role,
    name: String,
    /// The folder above which the newcomer sees nothing.
    #[serde(default)]
    path: Option<String>,
    expires_seconds: u64,
}

async fn invite(State(registry): State<Registry>, body: Bytes) -> Result<Json<Value>, HttpError> {
    let bad = |text: String| HttpError::bad_request(text);
    let request: InvitationRequest = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let identity =
        new_identity(request.role, &request.name, request.path.as_deref()).map_err(|error| bad(error.to_string()))?;
    let lasts = Duration::from_secs(request.expires_seconds);
    if lasts.is_zero() || lasts > LONGEST {
        return Err(bad("an invitation lasts for at least a second and at most a year".into()));
    }
    let (id, secret) = (identity.id, InvitationSecret::random());
    let expires = Time::from(SystemTime::now() + lasts);
    let invitation = Invitation { identity, hash: InvitationHash(secret.hash()), expires };
    _ = registry.namespace.apply(Change::Invite { invitation }).await?;
    let view = registry.ring.neighbours();
    let nodes = std::iter::once(view.node).chain(view.successors.into_iter().take(OTHER_NODES));
    let nodes = nodes.map(|node| node.ring_address()).collect();
    let token = InvitationToken { secret, authority: registry.authority, nodes };
    Ok(Json(json!({"id": id.to_string(), "token": token.reveal()})))
}

async fn list(State(registry): State<Registry>) -> Result<Json<Value>, HttpError> {
    match registry.namespace.query(Query::Identities).await? {
        Answer::Identities { invitations, known } => {
            let invitations: Vec<Value> = invitations.iter().map(invitation_json).collect();
            let known: Vec<Value> = known.iter().map(identity_json).collect();
            Ok(Json(json!({"invitations": invitations, "identities": known})))
        }
        other => Err(FsError::Internal { detail: format!("asked for identities, got {other:?}") }.into()),
    }
}

fn invitation_json(invitation: &Invitation) -> Value {
    let Identity { id, role, name, path } = &invitation.identity;
    json!({"id": id.to_string(), "role": role.name(), "name": name, "path": path, "expires": invitation.expires.secs})
}

fn identity_json(known: &KnownIdentity) -> Value {
    let KnownIdentity { identity: Identity { id, role, name, path }, since, expires, revoked, .. } = known;
    json!({
        "id": id.to_string(), "role": role.name(), "name": name, "path": path,
        "since": since.secs, "expires": expires.secs, "revoked": revoked,
    })
}

async fn revoke(State(registry): State<Registry>, Path(id): Path<String>) -> Result<StatusCode, HttpError> {
    let id: IdentityId = id.parse().map_err(|expected: &str| HttpError::bad_request(expected.to_owned()))?;
    match registry.namespace.apply(Change::RevokeIdentity { id }).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(FsError::NoEntry) => Err(HttpError::new(
            StatusCode::NOT_FOUND,
            "there is neither an identity nor an invitation with this number; /identities lists them",
        )),
        Err(error) => Err(error.into()),
    }
}
