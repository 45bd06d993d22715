//! Asks one other member whether it has a ring or is about to found one.

use std::{io::ErrorKind, time::Duration};

use chordfs_net::admin_client::{AdminClient, AdminError};
use chordfs_types::ring_id::NodeAddress;
use tokio::{net::TcpStream, time::timeout};

use super::{FoundingStatus, Introduction};

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A node checks its namespace before it reports ready, hence the length.
pub(super) const DEADLINE: Duration = Duration::from_secs(6);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PeerReply {
    /// The member is in a ring and can admit nodes.
    Ready,
    Status(FoundingStatus),
    /// The host refuses connections to the port.
    Refused,
    NoAnswer,
}

/// Introduces this node to the member and returns its reply.
pub(super) async fn ask(client: &AdminClient, member: NodeAddress, introduction: &Introduction) -> PeerReply {
    // A separate connection distinguishes a host without a node from an absent host.
    match timeout(CONNECT_DEADLINE, TcpStream::connect(member.admin())).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return PeerReply::Refused,
        _ => return PeerReply::NoAnswer,
    }
    // The brackets of an IPv6 address must be escaped in a query.
    let address = introduction.address.to_string().replace('[', "%5B").replace(']', "%5D");
    let query =
        format!("launched_secs={}&instance={}&address={address}", introduction.launched_secs, introduction.instance);
    match client.founding::<FoundingStatus>(member, &query).await {
        Ok(FoundingStatus { ring: true, .. }) if client.ready(member).await.is_ok() => PeerReply::Ready,
        Ok(status) => PeerReply::Status(status),
        Err(AdminError::Unreadable { .. }) => PeerReply::NoAnswer,
        // A node that was not started with --aws does not know the call.
        Err(_) if client.ready(member).await.is_ok() => PeerReply::Ready,
        Err(_) => PeerReply::NoAnswer,
    }
}
