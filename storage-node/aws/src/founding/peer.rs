//! Asks one other member whether it has a ring or is about to found one.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use chordfs_net::http_pool::HttpPool;
use hyper::{HeaderMap, Method};
use tokio::{net::TcpStream, time::timeout};

use super::{FoundingStatus, Introduction};

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A node checks its namespace before it reports ready, hence the length.
const DEADLINE: Duration = Duration::from_secs(6);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PeerReply {
    /// The member is in a ring and can admit nodes.
    Ready,
    Status(FoundingStatus),
    /// The host refuses connections to the port.
    Refused,
    NoAnswer,
}

/// Introduces this node to the member at `admin` and returns its reply.
pub(super) async fn ask(pool: &HttpPool, admin: SocketAddr, introduction: &Introduction) -> PeerReply {
    // A separate connection distinguishes a host without a node from an absent host.
    match timeout(CONNECT_DEADLINE, TcpStream::connect(admin)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return PeerReply::Refused,
        _ => return PeerReply::NoAnswer,
    }
    // The brackets of an IPv6 address must be escaped in a query.
    let address = introduction.address.to_string().replace('[', "%5B").replace(']', "%5D");
    let query =
        format!("launched_secs={}&instance={}&address={address}", introduction.launched_secs, introduction.instance);
    let Some(text) = get(pool, admin, &format!("/aws/founding?{query}")).await else {
        // A node that was not started with --aws does not know the call.
        return if get(pool, admin, "/readyz").await.is_some() { PeerReply::Ready } else { PeerReply::NoAnswer };
    };
    match serde_json::from_slice(&text) {
        Ok(FoundingStatus { ring: true, .. }) if get(pool, admin, "/readyz").await.is_some() => PeerReply::Ready,
        Ok(status) => PeerReply::Status(status),
        Err(_) => PeerReply::NoAnswer,
    }
}

/// Returns the body of a successful answer.
async fn get(pool: &HttpPool, admin: SocketAddr, path: &str) -> Option<bytes::Bytes> {
    let answer = pool.request(admin, Method::GET, path, HeaderMap::new(), Vec::new(), DEADLINE).await.ok()?;
    answer.status.is_success().then_some(answer.body)
}
