//! The call by which others get certificates, `POST /identity`; its format is in [`chordfs_net::identity_client`].
//!
//! The namespace notes who gets one, so that identities can be listed and revoked, and an invitation is used once.
//! Commands of operators get a certificate for an hour, which is not noted.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use chordfs_identity::{CertificateAuthority, Identity, IdentityError, InvitationSecret, Role, Validity, new_identity};
use chordfs_log::info_limited;
use chordfs_net::{
    clients::NamespaceClient,
    identity_client::{Base64, CertificateRequest, IDENTITY_PATH, IssuedCertificate},
    transport::RemoteCaller,
};
use chordfs_types::{
    fs_error::FsError,
    identity::RENEWABLE_FOR,
    namespace::{AdmissionReason, Change, InvitationHash, KeyHash, Reply},
};

use super::folder::{LIFETIME, NodeIdentity};
use crate::{
    http::error::HttpError,
    operator::{AcceptedTokens, is_operator},
};

const MAX_BODY_BYTES: usize = 16 << 10;
/// For a command, which ends long before.
const COMMAND_LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Clone)]
struct Issuer {
    identity: Arc<NodeIdentity>,
    operators: AcceptedTokens,
    namespace: Arc<dyn NamespaceClient>,
}

/// The router has no fallback.
pub(crate) fn routes(
    identity: Arc<NodeIdentity>,
    operators: AcceptedTokens,
    namespace: Arc<dyn NamespaceClient>,
) -> Router {
    let issuer = Issuer { identity, operators, namespace };
    Router::new().route(IDENTITY_PATH, post(issue).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))).with_state(issuer)
}

async fn issue(
    State(issuer): State<Issuer>,
    Extension(caller): Extension<RemoteCaller>,
    headers: HeaderMap,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<IssuedCertificate>, HttpError> {
    let bad = |error: IdentityError| HttpError::bad_request(error.to_string());
    let key = CertificateAuthority::key_of(&request.request.0).map_err(bad)?;
    let (identity, lifetime) = match decide(&caller, has_token(&headers, &issuer.operators), &request)? {
        Decision::Command(identity) => (identity, COMMAND_LIFETIME),
        Decision::Admit(admission) => (issuer.admit(admission, KeyHash(key)).await?, LIFETIME),
    };
    let authority = issuer.identity.authority();
    let validity = Validity::starting(SystemTime::now(), lifetime);
    let certificate = authority.issue(&request.request.0, &identity, validity).map_err(bad)?;
    info_limited!(
        role = identity.role.name(),
        name = identity.name,
        id = identity.id.to_string(),
        "issued a certificate"
    );
    Ok(Json(IssuedCertificate {
        certificate: Base64(certificate.to_vec()),
        authority: Base64(authority.certificate().to_vec()),
        authority_key: (identity.role == Role::Node).then(|| Base64(authority.key().to_vec())),
    }))
}

impl Issuer {
    /// Notes who gets a certificate. Returns who it is.
    async fn admit(&self, admission: AdmissionReason, key: KeyHash) -> Result<Identity, HttpError> {
        let expires = (SystemTime::now() + LIFETIME).into();
        match self.namespace.apply(Change::Admit { admission, key, expires }).await {
            Ok(Reply::Admitted(identity)) => Ok(identity),
            Ok(other) => Err(FsError::Internal { detail: format!("admitted somebody, got {other:?}") }.into()),
            Err(FsError::NotPermitted { reason }) => Err(HttpError::new(StatusCode::FORBIDDEN, reason)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The cookie does not count: pages send it, and no page needs a certificate.
fn has_token(headers: &HeaderMap, operators: &AcceptedTokens) -> bool {
    headers.contains_key(header::AUTHORIZATION) && is_operator(headers, operators)
}

/// How a sender gets a certificate.
enum Decision {
    Admit(AdmissionReason),
    Command(Identity),
}

fn decide(caller: &RemoteCaller, is_operator: bool, request: &CertificateRequest) -> Result<Decision, HttpError> {
    let refused = |text: &str| HttpError::new(StatusCode::FORBIDDEN, text);
    let owner = match caller {
        RemoteCaller::Plain | RemoteCaller::Unchecked => {
            return Err(refused("certificates are issued over encrypted connections only"));
        }
        RemoteCaller::Unknown => None,
        RemoteCaller::Certified(owner) => Some(owner).filter(|owner| SystemTime::now() < owner.expires + RENEWABLE_FOR),
    };
    if let Some(secret) = &request.invitation {
        let secret = InvitationSecret::from_bytes(&secret.0);
        let secret = secret.ok_or_else(|| HttpError::bad_request("the secret of an invitation has 16 bytes"))?;
        return Ok(Decision::Admit(AdmissionReason::Invited(InvitationHash(secret.hash()))));
    }
    if is_operator {
        let identity = new_identity(request.role, &request.name, None);
        let identity = identity.map_err(|error| HttpError::bad_request(error.to_string()))?;
        let is_command = identity.role == Role::Operator;
        return Ok(if is_command {
            Decision::Command(identity)
        } else {
            Decision::Admit(AdmissionReason::Vouched(identity))
        });
    }
    let owner = owner.ok_or_else(|| {
        refused("nothing proves that you may have a certificate: send an operator's token or an invitation")
    })?;
    Ok(Decision::Admit(AdmissionReason::Renewed(owner.identity.id)))
}
