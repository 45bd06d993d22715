//! One peer with an identity takes all that it gets, over several real connections; another one is served meanwhile.

use std::time::SystemTime;

use chordfs_identity::{CertificateAuthority, NewKey, Role, Tls, Validity, new_identity};
use tokio::task::JoinSet;

use super::*;
use crate::{
    limits::ByteClass,
    transport::{Connector, PlainNetworks},
};

const CONNECTIONS: usize = 3;
const CALLS_OF_EACH: usize = 8;

fn tls_of_somebody(authority: &CertificateAuthority, role: Role) -> Tls {
    let (key, identity) = (NewKey::generate().unwrap(), new_identity(role, "somebody", None).unwrap());
    let validity = Validity::starting(SystemTime::now(), Duration::from_secs(3600));
    let certificate = authority.issue(&key.request().unwrap(), &identity, validity).unwrap();
    Tls::new(&key.certified(&certificate, authority.certificate()).unwrap()).unwrap()
}

/// A server that knows its callers, and the connectors of two clients.
async fn served_to_two(limits: RpcLimits, budget: ByteBudget) -> (Served, [Connector; 2]) {
    let authority = CertificateAuthority::create(SystemTime::now()).unwrap();
    let acceptor = Acceptor::over(&tls_of_somebody(&authority, Role::Node), PlainNetworks::default());
    let connector = || Connector::over(&tls_of_somebody(&authority, Role::Client));
    (served_by(acceptor, limits, budget).await, [connector(), connector()])
}

/// Sends so many calls that wait, each with so many bytes, on each of several connections. They end when their results
/// have arrived.
async fn send_waiting_calls(served: &Served, connector: &Connector, bytes: usize) -> JoinSet<()> {
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = RpcClient::dial(connector, served.address, SOON).await.unwrap();
        for _ in 0..CALLS_OF_EACH {
            let client = client.clone();
            let argument = Value::Binary(vec![7; bytes]);
            calls.spawn(async move {
                let answer = client.call("wait", vec![argument.clone()], 6 * SOON).await;
                assert_eq!(answer.unwrap(), argument);
            });
        }
    }
    calls
}

/// Waits until so many calls have begun, and makes sure that no more begin before a further peer is served.
async fn expect_begun(served: &Served, other: &Connector, count: usize, bytes: usize) {
    let begun = || served.fake.begun.load(Ordering::SeqCst);
    let all = async {
        while begun() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, all).await.unwrap_or_else(|_| panic!("only {} calls begin", begun()));
    let client = RpcClient::dial(other, served.address, SOON).await.unwrap();
    for round in 1..=20 {
        let argument = Value::Binary(vec![8; bytes]);
        let answer = client.call("echo", vec![argument.clone()], SOON).await.expect("another peer is served");
        assert_eq!(answer, argument);
        assert_eq!(begun(), count + round, "no further call of the first peer has begun");
    }
}

async fn finish(served: &Served, mut calls: JoinSet<()>) {
    served.fake.gate.add_permits(CONNECTIONS * CALLS_OF_EACH);
    while let Some(call) = timeout(6 * SOON, calls.join_next()).await.expect("the other calls follow") {
        call.expect("each call is answered");
    }
}

#[tokio::test]
async fn the_calls_of_one_peer_wait_for_each_other_and_not_those_of_another() {
    let limits = RpcLimits { max_calls_of_peer: 5, ..RpcLimits::default() };
    let (served, [greedy, other]) = served_to_two(limits, ByteBudget::default()).await;
    let calls = send_waiting_calls(&served, &greedy, 10).await;
    expect_begun(&served, &other, 5, 10).await;
    finish(&served, calls).await;
    assert_eq!(served.fake.most_running.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn the_bytes_of_one_peer_leave_room_for_those_of_another() {
    const ARGUMENT: usize = 300 << 10;
    // Room is counted in KiB, and a frame is a little longer than its argument.
    const FRAME: usize = ARGUMENT + 1024;
    let budget = ByteBudget::new(16 << 20);
    let share = budget.share_bytes(ByteClass::Call);
    let limits = RpcLimits { frame_deadline: 6 * SOON, ..RpcLimits::default() };
    let (served, [greedy, other]) = served_to_two(limits, budget).await;
    let fitting = share / FRAME;
    assert!((1..CONNECTIONS * CALLS_OF_EACH).contains(&fitting), "{fitting} calls fit into {share} bytes");
    let calls = send_waiting_calls(&served, &greedy, ARGUMENT).await;
    expect_begun(&served, &other, fitting, ARGUMENT).await;
    finish(&served, calls).await;
}
