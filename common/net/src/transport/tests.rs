use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chordfs_identity::{CertificateAuthority, NewKey, Role, Tls, Validity, new_identity};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    http_pool::HttpPool,
    limits::ByteBudget,
    rpc::{RpcClient, RpcLimits, RpcPeer, RpcService, Value, serve_within},
};

const SOON: Duration = Duration::from_secs(10);

fn tls(authority: &CertificateAuthority, role: Role) -> Tls {
    tls_for(authority, role, Duration::from_secs(3600))
}

fn tls_for(authority: &CertificateAuthority, role: Role, lifetime: Duration) -> Tls {
    let (key, identity) = (NewKey::generate().unwrap(), new_identity(role, "somebody", None).unwrap());
    let validity = Validity::starting(SystemTime::now(), lifetime);
    let certificate = authority.issue(&key.request().unwrap(), &identity, validity).unwrap();
    Tls::new(&key.certified(&certificate, authority.certificate()).unwrap()).unwrap()
}

/// Takes one connection, and returns who made it after it has sent `ping`, which is answered by `pong`.
async fn serve_one(listener: TcpListener, acceptor: Acceptor) -> std::io::Result<RemoteCaller> {
    let (stream, peer) = listener.accept().await?;
    let (connection, caller) = acceptor.accept(stream, peer.ip()).await?;
    let (mut read, mut write) = connection.into_halves();
    let mut ping = [0; 4];
    read.read_exact(&mut ping).await?;
    assert_eq!(&ping, b"ping");
    write.write_all(b"pong").await?;
    write.flush().await?;
    Ok(caller)
}

async fn ping(connector: &Connector, address: SocketAddr) -> std::io::Result<()> {
    let mut connection = connector.connect(address).await?;
    connection.write_all(b"ping").await?;
    connection.flush().await?;
    let mut pong = [0; 4];
    connection.read_exact(&mut pong).await?;
    assert_eq!(&pong, b"pong");
    Ok(())
}

/// The result of both sides.
async fn exchange(connector: &Connector, acceptor: &Acceptor) -> (std::io::Result<()>, std::io::Result<RemoteCaller>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let both = async { tokio::join!(ping(connector, address), serve_one(listener, acceptor.clone())) };
    timeout(SOON, both).await.expect("both ends come to an end")
}

#[tokio::test]
async fn the_first_byte_tells_tls_from_plain_and_each_caller_is_known_for_what_it_is() {
    let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
    let node = Acceptor::over(&tls(&authority, Role::Node), PlainNetworks::loopback());
    let client = tls(&authority, Role::Client);
    let (sent, caller) = exchange(&Connector::over(&client), &node).await;
    sent.unwrap();
    let caller = caller.unwrap();
    assert_eq!(caller.role(SystemTime::now()), Some(Role::Client));
    let expired = SystemTime::now() + Duration::from_secs(7200);
    assert_eq!(caller.role(expired), None, "the certificate has expired since the connection began");
    let newcomer = Connector::pinned(authority.fingerprint()).unwrap();
    assert!(matches!(exchange(&newcomer, &node).await, (Ok(()), Ok(RemoteCaller::Unknown))));
    assert!(matches!(exchange(&Connector::Plain, &node).await, (Ok(()), Ok(RemoteCaller::Plain))));
    assert!(matches!(exchange(&Connector::Plain, &Acceptor::default()).await, (Ok(()), Ok(RemoteCaller::Unchecked))));
}

#[tokio::test]
async fn plain_connections_are_refused_from_networks_that_are_not_listed() {
    let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
    let node = Acceptor::over(&tls(&authority, Role::Node), "10.0.0.0/8".parse().unwrap());
    let (sent, caller) = exchange(&Connector::Plain, &node).await;
    let error = caller.unwrap_err();
    assert!(sent.is_err() && error.to_string().contains("--legacy"), "{error}");
}

#[tokio::test]
async fn a_client_does_not_talk_to_a_server_without_tls() {
    let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connector = Connector::over(&tls(&authority, Role::Client));
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (connected, ()) = timeout(SOON, async { tokio::join!(connector.connect(address), server) }).await.unwrap();
    assert!(connected.is_err());
}

struct NoCalls;

impl RpcService for NoCalls {
    async fn call(&self, _: &RpcPeer, _: String, _: Vec<Value>) -> Result<Value, Value> {
        Err("no such call".into())
    }
}

/// Otherwise an owner who renews in time would be refused by its old certificate on connections that last.
#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_it_began_with() {
    let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
    let acceptor = Acceptor::over(&tls(&authority, Role::Node), PlainNetworks::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let (limits, budget) = (RpcLimits::default(), ByteBudget::default());
    tokio::spawn(serve_within(listener, acceptor, Arc::new(NoCalls), limits, budget, stop.clone()));
    let lasting = |seconds| tls_for(&authority, Role::Client, Duration::from_secs(seconds));
    let soon = RpcClient::dial(&Connector::over(&lasting(3)), address, SOON).await.unwrap();
    let late = RpcClient::dial(&Connector::over(&lasting(3600)), address, SOON).await.unwrap();
    timeout(SOON, soon.closed()).await.expect("its certificate has expired");
    assert!(!late.is_closed(), "this one is valid");
    stop.cancel();
}

/// Answers each request on one connection with its body.
async fn echo(listener: TcpListener, acceptor: Acceptor) {
    let (stream, peer) = listener.accept().await.unwrap();
    let (connection, _) = acceptor.accept(stream, peer.ip()).await.unwrap();
    let service = service_fn(|request: hyper::Request<Incoming>| async {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Ok::<_, Infallible>(hyper::Response::new(Full::new(body)))
    });
    // The client ends the connection when the test does.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

/// Snapshots and large answers are longer than what TLS and sockets buffer.
#[tokio::test]
async fn long_bodies_pass_both_ways_plain_and_encrypted() {
    let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
    let node = tls(&authority, Role::Node);
    let encrypted = (Connector::over(&node), Acceptor::over(&node, PlainNetworks::default()));
    for (connector, acceptor) in [(Connector::Plain, Acceptor::default()), encrypted] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(echo(listener, acceptor));
        let pieces: Vec<Bytes> = (0..40_u8).map(|number| vec![number; 300_001].into()).collect();
        let whole = pieces.concat();
        let body = futures_util::stream::iter(pieces.into_iter().map(Ok));
        let answer = HttpPool::over(connector).post_stream(address, "/", body, SOON).await.unwrap();
        assert!(answer.body == whole, "{} bytes of {}", answer.body.len(), whole.len());
        server.abort();
    }
}

#[test]
fn networks_are_read_and_contain_what_they_say() {
    let networks: PlainNetworks = "127.0.0.0/8,10.1.2.3,fd00::/8".parse().unwrap();
    for (address, inside) in [
        ("127.255.0.1", true),
        ("128.0.0.1", false),
        ("10.1.2.3", true),
        ("10.1.2.4", false),
        ("::ffff:10.1.2.3", true),
        ("fd12::1", true),
        ("fe80::1", false),
        ("::1", false),
    ] {
        assert_eq!(networks.contain(address.parse().unwrap()), inside, "{address}");
    }
    assert_eq!("none".parse(), Ok(PlainNetworks::default()));
    assert!("0.0.0.0/0".parse::<PlainNetworks>().unwrap().contain("8.8.8.8".parse().unwrap()));
    assert!(!"0.0.0.0/0".parse::<PlainNetworks>().unwrap().contain("fd00::1".parse().unwrap()));
    for wrong in ["", "10.0.0.0/33", "10.0.0.1/8", "host", "10.0.0.0/8,", "fd00::/129", "10.0.0.0/-1"] {
        assert!(wrong.parse::<PlainNetworks>().is_err(), "{wrong}");
    }
}
