//! Asking one other member whether it has a ring, or is about to found one.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use chordfs_net::http_pool::HttpPool;
use hyper::{HeaderMap, Method};
use tokio::{net::TcpStream, time::timeout};

use super::{Shown, Visit};

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A node asks its namespace before it says that it is ready.
const DEADLINE: Duration = Duration::from_secs(6);

#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It is in a ring and can take others in.
    Ready,
    Shown(Shown),
    /// The host is there; nobody listens.
    Refused,
    Nothing,
}

pub async fn ask(pool: &HttpPool, admin: SocketAddr, visit: &Visit) -> Said {
    // A connection of its own tells a host without a node from one that is not there.
    match timeout(CONNECT_DEADLINE, TcpStream::connect(admin)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Said::Refused,
        _ => return Said::Nothing,
    }
    // The brackets of an IPv6 address are none of a query.
    let address = visit.address.to_string().replace('[', "%5B").replace(']', "%5D");
    let query = format!("launched_secs={}&instance={}&address={address}", visit.launched_secs, visit.instance);
    let Some(text) = get(pool, admin, &format!("/aws/founding?{query}")).await else {
        // Not one that knows the call; perhaps one that was not started with --aws.
        return if get(pool, admin, "/readyz").await.is_some() { Said::Ready } else { Said::Nothing };
    };
    match serde_json::from_slice(&text) {
        Ok(Shown { ring: true, .. }) if get(pool, admin, "/readyz").await.is_some() => Said::Ready,
        Ok(shown) => Said::Shown(shown),
        Err(_) => Said::Nothing,
    }
}

/// The body, if the answer is a success.
async fn get(pool: &HttpPool, admin: SocketAddr, path: &str) -> Option<bytes::Bytes> {
    let answer = pool.request(admin, Method::GET, path, HeaderMap::new(), Vec::new(), DEADLINE).await.ok()?;
    answer.status.is_success().then_some(answer.body)
}
