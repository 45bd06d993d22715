//! Handshakes in memory: who is let in as whom.

use std::time::{Duration, SystemTime};

use chordfs_types::identity::Role;
use rustls::{ClientConnection, Error, HandshakeKind, ProtocolVersion, ServerConnection, pki_types::ServerName};

use super::*;
use crate::{
    authority::{CertificateAuthority, Validity},
    credentials::NewKey,
    identity::new_identity,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Ring(CertificateAuthority);

impl Ring {
    fn new() -> Self {
        Self(CertificateAuthority::create(SystemTime::now()).unwrap())
    }

    fn credentials(&self, role: Role, validity: Validity) -> Credentials {
        let (key, identity) = (NewKey::generate().unwrap(), new_identity(role, "somebody", None).unwrap());
        let certificate = self.0.issue(&key.request().unwrap(), &identity, validity).unwrap();
        key.certified(&certificate, self.0.certificate()).unwrap()
    }

    fn tls(&self, role: Role) -> Tls {
        Tls::new(&self.credentials(role, Validity::starting(SystemTime::now(), HOUR))).unwrap()
    }
}

/// Carries bytes between the two until both have nothing to send. Returns the first error, the server's before the
/// client's.
fn shake_hands(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    while client.wants_write() || server.wants_write() {
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        server.read_tls(&mut sent.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut answered = Vec::new();
        server.write_tls(&mut answered).unwrap();
        client.read_tls(&mut answered.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

#[test]
fn every_role_is_recognized_by_a_node_and_the_connection_is_tls_1_3() {
    let ring = Ring::new();
    let node = ring.tls(Role::Node);
    for role in Role::ALL {
        let (client, server) = shake_hands(&ring.tls(role).client(), &node.server()).unwrap();
        assert_eq!(peer_identity(&server).unwrap().unwrap().identity.role, role);
        assert_eq!(peer_identity(&client).unwrap().unwrap().identity.role, Role::Node);
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.negotiated_cipher_suite(), Some(cipher_suite::TLS13_AES_128_GCM_SHA256));
    }
}

#[test]
fn nobody_but_a_node_passes_for_a_node() {
    let ring = Ring::new();
    let client = ring.tls(Role::Client);
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Node) {
        assert!(shake_hands(&client.client(), &ring.tls(role).server()).is_err(), "{role}");
    }
}

#[test]
fn the_certificates_of_another_ring_are_refused_on_both_sides() {
    let (ring, other) = (Ring::new(), Ring::new());
    let error = shake_hands(&other.tls(Role::Client).client(), &ring.tls(Role::Node).server()).err().unwrap();
    assert!(matches!(error, Error::InvalidCertificate(_)), "the client refuses the server first: {error:?}");
    let (key, certificate) = (other.credentials(Role::Node, Validity::starting(SystemTime::now(), HOUR)), &ring.0);
    // A client that trusts this ring, and shows the certificate of another.
    let forged = Credentials { authority: certificate.certificate().clone(), ..key };
    let error = shake_hands(&Tls::new(&forged).unwrap().client(), &ring.tls(Role::Node).server()).err().unwrap();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

/// A laptop that had slept for weeks could not renew its certificate.
#[test]
fn an_expired_certificate_passes_for_a_client_only_and_the_server_knows_it() {
    let ring = Ring::new();
    let now = SystemTime::now();
    let expired = Validity { begins: now - 2 * HOUR, expires: now - HOUR };
    let (node, client) = (ring.tls(Role::Node), ring.tls(Role::Client));
    let with = |role| Tls::new(&ring.credentials(role, expired)).unwrap();
    let error = shake_hands(&client.client(), &with(Role::Node).server()).err().unwrap();
    assert!(error.to_string().contains("expired"), "{error}");
    let (_, server) = shake_hands(&with(Role::Client).client(), &node.server()).unwrap();
    let owner = peer_identity(&server).unwrap().unwrap();
    assert!(owner.expires < now, "{owner:?}");
    // One of another ring is refused, expired or not.
    let other = Ring::new().credentials(Role::Client, expired);
    let forged = Tls::new(&Credentials { authority: ring.0.certificate().clone(), ..other }).unwrap();
    let error = shake_hands(&forged.client(), &node.server()).err().unwrap();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

#[test]
fn a_renewed_certificate_is_used_by_later_handshakes() {
    let ring = Ring::new();
    let (node, client) = (ring.tls(Role::Node), ring.tls(Role::Client));
    let renewed = ring.credentials(Role::Client, Validity::starting(SystemTime::now(), 2 * HOUR));
    shake_hands(&client.client(), &node.server()).unwrap();
    client.renew(&renewed).unwrap();
    // A session from before would have been resumed under the former certificate.
    let (_, server) = shake_hands(&client.client(), &node.server()).unwrap();
    assert_eq!(peer_identity(&server).unwrap().as_ref(), Some(renewed.owner()));
}

#[test]
fn a_newcomer_recognizes_the_ring_by_its_fingerprint_and_is_nobody() {
    let (ring, other) = (Ring::new(), Ring::new());
    let newcomer = Arc::new(pinned_client(ring.0.fingerprint()).unwrap());
    let (_, server) = shake_hands(&newcomer, &ring.tls(Role::Node).server()).unwrap();
    assert_eq!(peer_identity(&server).unwrap(), None);
    assert!(shake_hands(&newcomer, &other.tls(Role::Node).server()).is_err());
    assert!(shake_hands(&newcomer, &ring.tls(Role::Client).server()).is_err(), "a client is no node");
}

/// The ring's certificate is public, and is not enough to pass for the ring.
#[test]
fn a_chain_with_the_right_authority_and_another_leaf_is_refused() {
    let (ring, other) = (Ring::new(), Ring::new());
    let leaf = other.credentials(Role::Node, Validity::starting(SystemTime::now(), HOUR));
    let forged = Tls::new(&Credentials { authority: ring.0.certificate().clone(), ..leaf }).unwrap();
    let newcomer = Arc::new(pinned_client(ring.0.fingerprint()).unwrap());
    assert!(shake_hands(&newcomer, &forged.server()).is_err());
}

#[test]
fn a_second_connection_resumes_the_session_and_the_client_keeps_its_identity() {
    let ring = Ring::new();
    let (node, client) = (ring.tls(Role::Node), ring.tls(Role::ReadOnlyClient));
    shake_hands(&client.client(), &node.server()).unwrap();
    let (_, server) = shake_hands(&client.client(), &node.server()).unwrap();
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(peer_identity(&server).unwrap().unwrap().identity.role, Role::ReadOnlyClient);
}
