//! The identities of a ring: its certificate authority, the identities that it certifies, invitations, and the TLS
//! connections between their owners.
//!
//! | file | its idea |
//! |---|---|
//! | `identity` | what a certificate says of its owner |
//! | `authority` | the ring's own certificate authority, which issues certificates |
//! | `credentials` | a private key and its certificate, and the file that keeps them |
//! | `secret_file` | a file with a private key or an invitation, for its owner alone |
//! | `invitation` | the token that a newcomer exchanges for a certificate, once |
//! | `core_dumps` | no core dumps of a process that has keys |
//! | `tls` | TLS 1.3 between owners of certificates |
//!
//! Cryptography comes from `rustls`, `ring` and `rcgen`. Nothing here opens a connection. Which certificates are revoked
//! is for the namespace to remember.

mod authority;
mod core_dumps;
mod credentials;
mod error;
mod identity;
mod invitation;
mod secret_file;
mod tls;

pub use chordfs_types::identity::{Identity, IdentityId, MAX_NAME_BYTES, Role};

pub use self::{
    authority::{CertificateAuthority, Fingerprint, Validity},
    core_dumps::forbid_core_dumps,
    credentials::{Credentials, NewKey},
    error::IdentityError,
    identity::{CertifiedIdentity, new_identity},
    invitation::{InvitationSecret, InvitationToken},
    tls::{Tls, peer_identity, pinned_client},
};
