//! Getting a certificate from a node of the ring.
//!
//! ```text
//! POST /identity   JSON, see [`CertificateRequest`]; answer: JSON, see [`IssuedCertificate`]
//! ```
//! The sender proves that it may have one by an operator's token, as `Authorization: Bearer TOKEN`, by the secret of an
//! invitation, or, for its next certificate, by the present one. The connection is encrypted, and the ring is known by
//! its fingerprint before anything secret is sent.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use chordfs_identity::{Credentials, IdentityError, InvitationSecret, NewKey, Role};
use chordfs_types::{operator::OperatorToken, ring_id::NodeAddress};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{
    http_pool::{HttpClientError, HttpPool},
    transport::Connector,
};

/// The path of the call on 5059.
pub const IDENTITY_PATH: &str = "/identity";

/// Bytes that are base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS #10 in DER.
    pub request: Base64,
    /// What the sender wants to be. An invitation or a certificate that says otherwise prevails.
    pub role: Role,
    /// For people, such as the name of the host.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<Base64>,
}

#[derive(Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// In DER.
    pub certificate: Base64,
    pub authority: Base64,
    /// The private key of the authority, for nodes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_key: Option<Base64>,
}

/// Why the sender may have a certificate.
#[derive(Clone, Debug)]
pub enum Proof {
    Operator(OperatorToken),
    Invitation(InvitationSecret),
    /// The one with which the sender connects: the next one is for the same identity.
    Certificate,
}

/// A new identity, and what else nodes get.
pub struct ObtainedIdentity {
    pub credentials: Credentials,
    pub authority_key: Option<Vec<u8>>,
}

#[derive(Debug, Error)]
pub enum ObtainError {
    #[error("no node was named that can issue a certificate")]
    NoNode,
    #[error(
        "{node} lets in only who has an identity in its ring, and this user has none: on the machine of a node run \
         `storage-node invite --role client`, and give the token that it prints in place of the address"
    )]
    NotInvited { node: SocketAddr },
    #[error(transparent)]
    Unreachable(#[from] HttpClientError),
    #[error("{node} issues no certificate: {text}")]
    Refused { node: SocketAddr, status: StatusCode, text: String },
    #[error("{node} sent a certificate that cannot be used: {reason}")]
    Unusable { node: SocketAddr, reason: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl ObtainError {
    /// Whether the ring may be starting, or another node may know better.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoNode | Self::Unreachable(_) => true,
            Self::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::NotInvited { .. } | Self::Unusable { .. } | Self::Identity(_) => false,
        }
    }
}

/// Obtains a certificate from the first of the nodes that can be reached. `nodes` are ring addresses; `connector`
/// accepts the right ring only, because a proof is sent. Use the same key for all attempts: an invitation is used up by
/// the first that arrives, even if its answer is lost. A node that has just started may refuse what another allows, so
/// all are asked; of several errors, the one that may pass counts.
pub async fn obtain(
    connector: &Connector,
    nodes: &[SocketAddr],
    key: &NewKey,
    proof: &Proof,
    role: Role,
    name: &str,
    deadline: Duration,
) -> Result<ObtainedIdentity, ObtainError> {
    let pool = HttpPool::over(connector.clone());
    let (mut passing, mut refusal) = (None, None);
    for node in nodes {
        match obtain_at(&pool, NodeAddress(*node).admin(), key, proof, role, name, deadline).await {
            Err(error) if error.may_pass() => passing = Some(error),
            Err(error) => refusal = refusal.or(Some(error)),
            Ok(obtained) => return Ok(obtained),
        }
    }
    Err(passing.or(refusal).unwrap_or(ObtainError::NoNode))
}

async fn obtain_at(
    pool: &HttpPool,
    node: SocketAddr,
    key: &NewKey,
    proof: &Proof,
    role: Role,
    name: &str,
    deadline: Duration,
) -> Result<ObtainedIdentity, ObtainError> {
    let invitation = match proof {
        Proof::Operator(_) | Proof::Certificate => None,
        Proof::Invitation(secret) => Some(Base64(secret.reveal().to_vec())),
    };
    let request = CertificateRequest { request: Base64(key.request()?), role, name: name.to_owned(), invitation };
    let body = serde_json::to_vec(&request).expect("it has only text");
    let answer = pool.request(node, Method::POST, IDENTITY_PATH, headers(proof), vec![body.into()], deadline).await?;
    if answer.status != StatusCode::OK {
        return Err(ObtainError::Refused { node, status: answer.status, text: answer.text() });
    }
    let unusable = |reason: String| ObtainError::Unusable { node, reason };
    let issued: IssuedCertificate =
        serde_json::from_slice(&answer.body).map_err(|error| unusable(error.to_string()))?;
    let credentials = key.certified(&issued.certificate.0, &issued.authority.0);
    let credentials = credentials.map_err(|error| unusable(error.to_string()))?;
    Ok(ObtainedIdentity { credentials, authority_key: issued.authority_key.map(|key| key.0) })
}

fn headers(proof: &Proof) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    if let Proof::Operator(token) = proof {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
        let mut value = value.expect("a token has only letters, digits and hyphens");
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}
