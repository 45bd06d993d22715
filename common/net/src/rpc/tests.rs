//! Client and server against each other over TCP, and the server against hostile peers.

mod memory;
mod shares;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proptest::test_runner::{Config, TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::{limits::ByteBudget, transport::Acceptor};

const SOON: Duration = Duration::from_secs(10);

/// `echo` returns its argument, `wait` returns it once `gate` has a permit, `feed` sends n notifications before it
/// answers.
struct FakeService {
    begun: AtomicUsize,
    gate: Semaphore,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl RpcService for FakeService {
    async fn call(&self, peer: &RpcPeer, method: String, mut params: Vec<Value>) -> Result<Value, Value> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let argument = params.pop().unwrap_or(Value::Nil);
        match method.as_str() {
            "echo" => Ok(argument),
            "fail" => Err(argument),
            "panic" => panic!("asked to"),
            "large" => Ok(Value::Binary(vec![0; 1 << 20])),
            "wait" => {
                self.most_running.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                self.gate.acquire().await.unwrap().forget();
                self.running.fetch_sub(1, Ordering::SeqCst);
                Ok(argument)
            }
            "feed" => {
                let count = argument.as_u64().ok_or("feed: the argument is a number")?;
                Ok((0..count).all(|n| peer.notify("fed", vec![n.into()])).into())
            }
            _ => Err(format!("unknown call {method}").into()),
        }
    }
}

struct Served {
    address: SocketAddr,
    fake: Arc<FakeService>,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

async fn served(limits: RpcLimits) -> Served {
    served_within(limits, ByteBudget::default()).await
}

async fn served_within(limits: RpcLimits, budget: ByteBudget) -> Served {
    served_by(Acceptor::default(), limits, budget).await
}

async fn served_by(acceptor: Acceptor, limits: RpcLimits, budget: ByteBudget) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Arc::new(FakeService {
        begun: AtomicUsize::new(0),
        gate: Semaphore::new(0),
        running: AtomicUsize::new(0),
        most_running: AtomicUsize::new(0),
    });
    let shutdown = CancellationToken::new();
    let done = tokio::spawn(serve_within(listener, acceptor, fake.clone(), limits, budget, shutdown.clone()));
    Served { address, fake, shutdown: shutdown.clone(), done, _stop: shutdown.drop_guard() }
}

fn small() -> RpcLimits {
    RpcLimits { max_frame_bytes: 64 << 10, frame_deadline: Duration::from_millis(200), ..RpcLimits::default() }
}

impl Served {
    async fn client(&self) -> RpcClient {
        RpcClient::connect(self.address, SOON, None).await.unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn assert_serving(&self) {
        let answer = self.client().await.call("echo", vec!["still".into()], SOON).await;
        assert_eq!(answer.unwrap(), "still".into());
    }
}

/// Reads everything that the peer sends until it closes the connection.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the server left the connection open");
    let _ = read; // A reset is a way of closing, too.
    bytes
}

async fn read_value(stream: &mut TcpStream) -> Value {
    let mut bytes = Vec::new();
    loop {
        bytes.push(timeout(SOON, stream.read_u8()).await.expect("no answer").expect("connection closed"));
        if let Ok(value) = rmpv::decode::read_value(&mut &bytes[..]) {
            return value;
        }
    }
}

fn frame(parts: Vec<Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &Value::Array(parts)).unwrap();
    bytes
}

fn request(id: u32, method: &str, argument: impl Into<Value>) -> Vec<u8> {
    frame(vec![0.into(), id.into(), method.into(), Value::Array(vec![argument.into()])])
}

fn success(id: u32, result: impl Into<Value>) -> Value {
    Value::Array(vec![1.into(), id.into(), Value::Nil, result.into()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_returns_its_result_or_its_error() {
    let served = served(RpcLimits::default()).await;
    let client = served.client().await;
    let blob = Value::Binary(vec![7; 5 << 20]);
    assert_eq!(client.call("echo", vec![blob.clone()], SOON).await.unwrap(), blob);
    for (method, expected) in [("fail", "no"), ("nonsense", "unknown call nonsense"), ("panic", "internal error")] {
        match client.call(method, vec!["no".into()], SOON).await {
            Err(RpcError::Remote { error, .. }) => assert_eq!(error, expected.into()),
            other => panic!("{method}: {other:?}"),
        }
    }
    assert!(!client.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_connection() {
    let served = served(RpcLimits { max_calls_in_flight: 7, ..RpcLimits::default() }).await;
    let client = served.client().await;
    let calls = (0..5000u32).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { (n, client.call("echo", vec![n.into()], SOON).await.unwrap()) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (n, answer) = call.await.unwrap();
        assert_eq!(answer, n.into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_bound_wait_unread() {
    let served = served(RpcLimits { max_calls_in_flight: 3, ..RpcLimits::default() }).await;
    let client = served.client().await;
    let calls: Vec<_> = (0..20u32)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call("wait", vec![n.into()], SOON).await.unwrap() })
        })
        .collect();
    while served.fake.running.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    served.fake.gate.add_permits(20);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), (n as u32).into());
    }
    assert_eq!(served.fake.most_running.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_and_the_connection_stays() {
    let served = served(RpcLimits::default()).await;
    let mut stream = served.raw().await;
    stream.write_all(&[request(1, "wait", 1), request(2, "echo", 2)].concat()).await.unwrap();
    assert_eq!(read_value(&mut stream).await, success(2, 2), "a slow call does not hold up the next");
    served.fake.gate.add_permits(1);
    assert_eq!(read_value(&mut stream).await, success(1, 1));
    stream.write_all(&request(3, "echo", 3)).await.unwrap();
    assert_eq!(read_value(&mut stream).await, success(3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_peer_can_send_and_receive_raw_strings() {
    let served = served(RpcLimits::default()).await;
    let mut stream = served.raw().await;
    let method_as_bin = [&[0x94, 0, 1, 0xc4, 4][..], b"echo", &[0x91, 0xc4, 2, 0xff, 0xfe]].concat();
    stream.write_all(&method_as_bin).await.unwrap();
    assert_eq!(read_value(&mut stream).await, success(1, Value::Binary(vec![0xff, 0xfe])));
    stream.write_all(&request(2, "unheard_of", Value::Nil)).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x94, 1, 2, 0xa0 | 23], "an error is a raw string");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_after_the_peer_has_closed_its_side() {
    let served = served(RpcLimits::default()).await;
    let mut stream = served.raw().await;
    stream.write_all(&request(1, "wait", 5)).await.unwrap();
    stream.shutdown().await.unwrap();
    served.fake.gate.add_permits(1);
    assert_eq!(until_closed(&mut stream).await, frame(vec![1.into(), 1.into(), Value::Nil, 5.into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_violation_closes_only_its_connection() {
    let served = served(small()).await;
    let bystander = served.client().await;
    let hostile: [&[u8]; 6] = [
        &[0x93, 0x01, 0x00, 0xc0],
        &[0x91; 100],
        &[0x94, 0x00, 0x01, 0xa4, b'e', b'c', b'h', b'o', 0x91, 0xc6, 0x80, 0, 0, 0],
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xc1],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in hostile {
        let mut stream = served.raw().await;
        stream.write_all(bytes).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty(), "{bytes:x?}");
    }
    assert_eq!(bystander.call("echo", vec![1.into()], SOON).await.unwrap(), 1.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_inside_a_frame_times_out_but_an_idle_one_is_kept() {
    let served = served(small()).await;
    let mut idle = served.raw().await;
    idle.write_all(&request(1, "echo", 1)).await.unwrap();
    assert_eq!(read_value(&mut idle).await, success(1, 1));
    let mut torn = served.raw().await;
    torn.write_all(&request(1, "echo", 1)[..4]).await.unwrap();
    assert!(until_closed(&mut torn).await.is_empty());
    idle.write_all(&request(2, "echo", 2)).await.unwrap();
    assert_eq!(read_value(&mut idle).await, success(2, 2), "idle for longer than the frame deadline");
}

/// A byte now and then must not keep a frame open without limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_trickles_in_times_out() {
    let served = served(small()).await;
    let mut stream = served.raw().await;
    stream.write_all(&[0x94, 0, 1, 0xdb, 0, 0, 0xff, 0]).await.unwrap();
    let trickle = async {
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, trickle).await.expect("the connection was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_the_limit_is_closed() {
    let served = served(RpcLimits { max_connections: 2, ..RpcLimits::default() }).await;
    let (first, second) = (served.client().await, served.client().await);
    first.call("echo", vec![], SOON).await.unwrap();
    second.call("echo", vec![], SOON).await.unwrap();
    assert!(until_closed(&mut served.raw().await).await.is_empty());
    drop(second);
    let regained = async {
        while served.client().await.call("echo", vec![], SOON).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, regained).await.expect("a closed connection releases its permit");
}

/// 1024 idle connections locked every newcomer out, without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_takes_the_place_of_an_idle_connection_and_of_no_busy_one() {
    let served = served(RpcLimits { max_connections: 3, ..RpcLimits::default() }).await;
    let busy = served.client().await;
    let waiting = tokio::spawn(async move { busy.call("wait", vec![7.into()], 2 * SOON).await });
    let (mut first, mut second) = (served.raw().await, served.raw().await);
    while served.fake.begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    served.assert_serving().await;
    assert!(until_closed(&mut first).await.is_empty());
    second.write_all(&request(1, "echo", 1)).await.unwrap();
    assert_eq!(read_value(&mut second).await, success(1, 1));
    served.fake.gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), 7.into());
}

#[tokio::test]
async fn a_connection_that_is_idle_for_long_is_closed() {
    let served = served(RpcLimits { idle_timeout: Duration::from_millis(300), ..RpcLimits::default() }).await;
    let client = served.client().await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.call("echo", vec![], SOON).await.unwrap();
    }
    timeout(SOON, client.closed()).await.expect("an idle connection is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_too_large_to_send_is_an_error() {
    let served = served(small()).await;
    let result = served.client().await.call("large", vec![], SOON).await;
    assert!(matches!(&result, Err(RpcError::Remote { error, .. }) if error.as_str().unwrap().contains("65536")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_come_before_the_answer_that_follows_them() {
    let served = served(RpcLimits::default()).await;
    let (sender, mut receiver) = mpsc::channel(1000);
    let client = RpcClient::connect(served.address, SOON, Some(sender)).await.unwrap();
    assert_eq!(client.call("feed", vec![1000.into()], SOON).await.unwrap(), true.into());
    for n in 0..1000u32 {
        let expected = Notification { method: "fed".to_owned(), params: vec![n.into()] };
        assert_eq!(receiver.try_recv(), Ok(expected), "not there when the answer was");
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let handler = move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let client = RpcClient::connect_with_handler(served.address, SOON, handler).await.unwrap();
    client.call("feed", vec![10.into()], SOON).await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_is_disconnected() {
    let served = served(RpcLimits::default()).await;
    let mut stream = served.raw().await;
    stream.write_all(&request(1, "feed", 10_000_000)).await.unwrap();
    timeout(SOON, async {
        let mut sink = vec![0; 1 << 16];
        tokio::time::sleep(Duration::from_millis(300)).await;
        while !matches!(stream.read(&mut sink).await, Ok(0) | Err(_)) {}
    })
    .await
    .expect("the connection was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_do_not_accumulate() {
    let served = served(RpcLimits { max_calls_in_flight: 4, ..RpcLimits::default() }).await;
    let mut stream = served.raw().await;
    let requests: Vec<u8> = (0..200).flat_map(|id| request(id, "large", Value::Nil)).collect();
    stream.write_all(&requests).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = served.fake.begun.load(Ordering::SeqCst);
    assert!(begun < 60, "{begun} answers of 1 MiB, where sockets hold a few");
    stream.shutdown().await.unwrap();
    assert!(until_closed(&mut stream).await.len() > 200 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_and_a_late_answer_is_dropped() {
    let served = served(RpcLimits::default()).await;
    let client = served.client().await;
    let late = client.call("wait", vec!["late".into()], Duration::from_millis(50)).await;
    assert!(matches!(late, Err(RpcError::Deadline { .. })), "{late:?}");
    served.fake.gate.add_permits(1);
    assert_eq!(client.call("echo", vec![1.into()], SOON).await.unwrap(), 1.into());
    assert_eq!(client.call("echo", vec![2.into()], SOON).await.unwrap(), 2.into());
    assert!(!client.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_waits_for_calls_under_way_and_then_closes() {
    let served = served(RpcLimits::default()).await;
    let client = served.client().await;
    let call = |argument: u32| {
        let client = client.clone();
        tokio::spawn(async move { client.call("wait", vec![argument.into()], Duration::from_secs(60)).await })
    };
    let calls = [call(1), call(1)];
    while served.fake.running.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    served.shutdown.cancel();
    served.fake.gate.add_permits(1);
    timeout(SOON, client.closed()).await.unwrap();
    timeout(SOON, served.done).await.unwrap().unwrap();
    let mut answered = 0;
    for call in calls {
        match timeout(SOON, call).await.unwrap().unwrap() {
            Ok(_) => answered += 1,
            Err(RpcError::Closed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(answered, 1);
    let after = client.call("echo", vec![], SOON).await;
    assert!(client.is_closed() && matches!(after, Err(RpcError::Closed { .. })), "{after:?}");
    let refused = RpcClient::connect(served.address, SOON, None).await.err();
    assert!(matches!(refused, Some(RpcError::Connect { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_clone_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = RpcClient::connect(listener.local_addr().unwrap(), SOON, None).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(client.clone());
    assert!(!client.is_closed());
    drop(client);
    assert!(until_closed(&mut stream).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_closes_a_connection_to_a_server_that_violates_the_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = RpcClient::connect(listener.local_addr().unwrap(), SOON, None).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&[0x93, 0x01, 0x00, 0xc0]).await.unwrap();
    let result = client.call("echo", vec![], SOON).await;
    assert!(matches!(result, Err(RpcError::Closed { .. })), "{result:?}");
}

/// Sends random bytes and damaged requests on many connections: the server keeps running, and no connection hangs.
#[test]
fn hostile_bytes_neither_stop_nor_hang_the_server() {
    use proptest::prelude::*;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(served(small()));
    let valid = [request(1, "echo", "text"), request(2, "nonsense", 5), request(3, "feed", 3)].concat();
    let mutation = (any::<prop::sample::Index>(), any::<u8>());
    let damaged = proptest::collection::vec(mutation, 1..5).prop_map(move |mutations| {
        let mut bytes = valid.clone();
        mutations.iter().for_each(|(at, with)| bytes[at.index(valid.len())] = *with);
        bytes
    });
    let any_bytes = prop_oneof![damaged, proptest::collection::vec(any::<u8>(), 0..200)];
    let mut runner = TestRunner::new(Config::with_cases(500));
    runner
        .run(&any_bytes, |bytes| {
            runtime.block_on(async {
                let mut stream = served.raw().await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                until_closed(&mut stream).await;
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(served.assert_serving());
}
