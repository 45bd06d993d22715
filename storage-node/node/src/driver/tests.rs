//! The driver on real sockets: rings on 127.0.0.1, each node with its own server and folder.

use std::{collections::BTreeSet, sync::Mutex};

use chordfs_net::rpc::{RpcClient, RpcError, RpcLimits, RpcPeer, RpcService, Value, serve};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{storage_nodes::LOOK_EVERY, *};

const TEST_DEADLINE: Duration = Duration::from_secs(20);

struct OnlyRing(RingHandle);

impl RpcService for OnlyRing {
    async fn call(&self, _peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        ring_call(&self.0, &method, &params).await.unwrap_or_else(|| Err(format!("unknown call {method}").into()))
    }
}

struct TestNode {
    handle: RingHandle,
    address: SocketAddr,
    folder: Arc<TempDir>,
    life: CancellationToken,
    server: JoinHandle<()>,
}

fn settings(folder: &TempDir) -> DriverSettings {
    DriverSettings {
        stabilize_every: Duration::from_millis(100),
        call_deadline: Duration::from_millis(500),
        ..DriverSettings::new(folder.path().to_owned())
    }
}

async fn start_at(listener: TcpListener, settings: DriverSettings, folder: Arc<TempDir>) -> TestNode {
    let address = listener.local_addr().expect("a bound socket has an address");
    let life = CancellationToken::new();
    let handle = start(settings, address, life.clone()).await.expect("the driver starts");
    let service = Arc::new(OnlyRing(handle.clone()));
    let server = tokio::spawn(serve(listener, service, RpcLimits::default(), life.clone()));
    TestNode { handle, address, folder, life, server }
}

async fn start_new() -> TestNode {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    start_at(listener, settings(&folder), folder).await
}

impl TestNode {
    async fn stop(self) -> (SocketAddr, Arc<TempDir>) {
        self.life.cancel();
        tokio::time::timeout(TEST_DEADLINE, self.server).await.expect("the server stops").expect("it does not panic");
        (self.address, self.folder)
    }

    async fn start_again((address, folder): (SocketAddr, Arc<TempDir>)) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free again");
        start_at(listener, settings(&folder), folder).await
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> Result<Value, RpcError> {
        let client = RpcClient::connect(self.address, TEST_DEADLINE, None).await.expect("the node listens");
        client.call(method, params, TEST_DEADLINE).await
    }
}

/// Waits until every node has the neighbours that it has in a ring of exactly these nodes.
async fn wait_for_ring(nodes: &[TestNode]) {
    let mut order: Vec<NodeRef> = nodes.iter().map(|node| node.handle.me()).collect();
    order.sort_by_key(|node| node.id.0);
    let len = order.len();
    for node in nodes {
        let place = order.iter().position(|other| other.ring_address() == node.address).expect("it is one of them");
        let successors: Vec<NodeRef> = (1..len).map(|step| order[(place + step) % len]).collect();
        let predecessor = (len > 1).then(|| order[(place + len - 1) % len]);
        let mut view = node.handle.watch();
        let right = view.wait_for(|view| view.successors == successors && view.predecessor == predecessor);
        let outcome = tokio::time::timeout(TEST_DEADLINE, right).await.map(|seen| seen.is_ok());
        assert!(
            outcome == Ok(true),
            "{} sees {:?}, and not {successors:?}",
            node.handle.me(),
            node.handle.neighbours()
        );
    }
}

async fn ring_of(count: usize) -> Vec<TestNode> {
    let mut nodes = vec![start_new().await];
    nodes[0].handle.join_ring(&[]).await.expect("founding needs no other node");
    for _ in 1..count {
        nodes.push(start_new().await);
    }
    let seed = nodes[0].address;
    let joining = nodes[1..].iter().map(|node| node.handle.join_ring(std::slice::from_ref(&seed)));
    for joined in futures_util::future::join_all(joining).await {
        joined.expect("the node joins");
    }
    wait_for_ring_of_members(&nodes).await;
    nodes
}

/// A member that records the calls that it receives, and knows one other member.
struct RecordingMember {
    me: NodeRef,
    successor: NodeRef,
    /// The call that it does not know.
    refuses: Option<&'static str>,
    received: Mutex<Vec<String>>,
}

impl RpcService for RecordingMember {
    async fn call(&self, _peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        if method == own::NEIGHBOURS {
            let successors = vec![self.successor];
            return Ok(wire::neighbours_value(&Neighbours { predecessor: None, node: self.me, successors }));
        }
        if self.refuses == Some(method.as_str()) {
            return Err("no such method".into());
        }
        let about = params.first().and_then(|node| wire::node(node).ok()).map(|node| format!(" {}", node.id));
        self.received.lock().expect("no test panics with it").push(method + &about.unwrap_or_default());
        Ok(Value::Nil)
    }
}

/// Starts a member that is `steps` positions before `node`.
async fn member_before(node: &TestNode, steps: u32, refuses: Option<&'static str>) -> Arc<RecordingMember> {
    let (node, life) = (node.handle.me(), &node.life);
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = socket.local_addr().expect("a bound socket has an address");
    let me = NodeRef { ip: at.ip(), port: at.port(), id: RingId(node.id.0.wrapping_sub(steps)) };
    let member = Arc::new(RecordingMember { me, successor: node, refuses, received: Mutex::default() });
    tokio::spawn(serve(socket, member.clone(), RpcLimits::default(), life.clone()));
    member
}

/// A newcomer used to own nothing until its predecessor stabilized: no node confirmed its arc, and writers waited.
#[tokio::test]
async fn the_former_predecessor_learns_of_a_newcomer_at_once() {
    let node = start_new().await;
    node.handle.join_ring(&[]).await.expect("founding needs no other node");
    let former = member_before(&node, 1000, None).await;
    let newcomer = member_before(&node, 500, None).await;
    join_in_turn(&node, [&former, &newcomer]).await;
    wait_for_call(&former, &format!("{} {}", own::FOLLOWED, newcomer.me.id)).await;
}

#[tokio::test]
async fn a_former_predecessor_that_does_not_know_the_call_is_asked_to_stabilize() {
    let node = start_new().await;
    node.handle.join_ring(&[]).await.expect("founding needs no other node");
    let former = member_before(&node, 1000, Some(own::FOLLOWED)).await;
    let newcomer = member_before(&node, 500, None).await;
    join_in_turn(&node, [&former, &newcomer]).await;
    wait_for_call(&former, "stabilize").await;
}

async fn join_in_turn(node: &TestNode, newcomers: [&RecordingMember; 2]) {
    for before in newcomers.map(|newcomer| newcomer.me) {
        node.handle.notify(before).await.expect("the ring runs");
        let mut view = node.handle.watch();
        let adopted = view.wait_for(|view| view.predecessor == Some(before));
        tokio::time::timeout(TEST_DEADLINE, adopted).await.expect("it is adopted").expect("the ring runs");
    }
}

async fn wait_for_call(member: &RecordingMember, expected: &str) {
    let received = async {
        while !member.received.lock().expect("no test panics with it").iter().any(|call| call == expected) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let received = tokio::time::timeout(TEST_DEADLINE, received).await;
    received.unwrap_or_else(|_| panic!("no call {expected:?}, only {:?}", member.received.lock().unwrap()));
}

/// Like `wait_for_ring`, and also checks that the ids are distinct.
async fn wait_for_ring_of_members(nodes: &[TestNode]) {
    let ids: BTreeSet<u32> = nodes.iter().map(|node| node.handle.me().id.0).collect();
    assert_eq!(ids.len(), nodes.len(), "two nodes have one id");
    wait_for_ring(nodes).await;
}

#[tokio::test]
async fn nodes_that_join_at_once_form_a_ring_and_share_the_circle() {
    let nodes = ring_of(5).await;
    let mut ids: Vec<u32> = nodes.iter().map(|node| node.handle.me().id.0).collect();
    ids.sort_unstable();
    let largest = (0..5).map(|place| RingId(ids[place]).steps_to(RingId(ids[(place + 1) % 5]))).max().unwrap_or(0);
    assert!(u64::from(largest) <= (1 << 31) + (1 << 29), "positions were not spread: {ids:?}");
    for node in &nodes {
        let members = node.handle.members().await.expect("the walk ends");
        assert_eq!((members.len(), members[0]), (5, node.handle.me()));
    }
}

#[tokio::test]
async fn every_node_finds_the_same_owner() {
    let nodes = ring_of(4).await;
    for key in (0..16).map(|step| RingId(step << 28)) {
        let ids = nodes.iter().map(|node| node.handle.me());
        let owner = ids.min_by_key(|node| key.steps_to(node.id)).expect("there are nodes");
        for node in &nodes {
            assert_eq!(node.handle.find_successor(key).await.expect("it is found"), owner);
        }
    }
}

#[tokio::test]
async fn the_ring_closes_over_a_dead_node_and_takes_it_back() {
    let mut nodes = ring_of(4).await;
    let dead = nodes.remove(2);
    let id = dead.handle.me().id;
    let rest = dead.stop().await;
    wait_for_ring(&nodes).await;
    let back = TestNode::start_again(rest).await;
    assert_eq!(back.handle.me().id, id);
    nodes.push(back);
    wait_for_ring(&nodes).await;
}

#[tokio::test]
async fn nodes_that_all_stop_and_start_again_are_one_ring() {
    let mut rests = Vec::new();
    let mut ids = BTreeSet::new();
    for node in ring_of(3).await {
        ids.insert(node.handle.me().id.0);
        rests.push(node.stop().await);
    }
    let mut nodes = Vec::new();
    for rest in rests {
        nodes.push(TestNode::start_again(rest).await);
    }
    wait_for_ring(&nodes).await;
    assert_eq!(nodes.iter().map(|node| node.handle.me().id.0).collect::<BTreeSet<_>>(), ids);
}

/// A suspended process keeps its connections and answers nothing. It must be dropped within one period and one call.
#[tokio::test]
async fn an_unresponsive_node_is_dropped() {
    let mut nodes = ring_of(3).await;
    let mut gone = nodes.remove(1);
    gone.life.cancel();
    (&mut gone.server).await.expect("the server ends");
    // Its place is taken by a listener that accepts connections and sends nothing.
    let mute = TcpListener::bind(gone.address).await.expect("the port is free again");
    let holder = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = mute.accept().await {
            open.push(stream);
        }
    });
    wait_for_ring(&nodes).await;
    holder.abort();
}

#[tokio::test]
async fn a_leaving_node_is_removed_at_once() {
    let mut nodes = ring_of(3).await;
    let leaving = nodes.remove(1);
    leaving.handle.leave().await.expect("it may leave");
    wait_for_ring(&nodes).await;
    assert!(leaving.handle.neighbours().successors.is_empty());
}

#[tokio::test]
async fn joining_a_dead_member_is_an_error() {
    let node = start_new().await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it is bound");
    let error = node.handle.join_ring(&[free]).await.expect_err("no node is there").to_string();
    assert!(error.contains(&free.to_string()), "{error}");
    let dead = NodeRef { ip: free.ip(), port: free.port(), id: RingId(5) };
    let error = node.call("join", vec![wire::node_value(dead)]).await.expect_err("no node is there").to_string();
    assert!(error.contains("does not answer"), "{error}");
}

#[tokio::test]
async fn the_ten_calls_answer_as_foreign_nodes_expect() {
    let node = start_new().await;
    let me = wire::node_value(node.handle.me());
    let ok = |result: Result<Value, RpcError>| result.expect("the call succeeds");
    assert_eq!(ok(node.call("get_info", vec![]).await), me);
    assert_eq!(ok(node.call("create", vec![]).await), Value::Nil);
    assert_eq!(ok(node.call("find_successor", vec![Value::from(u64::MAX)]).await), me);
    assert_eq!(ok(node.call("get_predecessor", vec![]).await), chordfs_net::ring_wire::no_node());
    assert_eq!(ok(node.call("get_successor", vec![0.into()]).await), me);
    for index in [1_i64, 7, -1, i64::MAX] {
        assert_eq!(ok(node.call("get_successor", vec![index.into()]).await), chordfs_net::ring_wire::no_node());
    }
    assert_eq!(ok(node.call("stabilize", vec![]).await), Value::Nil);
    assert_eq!(ok(node.call("check_predecessor", vec![]).await), Value::Nil);
    assert!(node.call("kill", vec![]).await.is_err(), "nobody allowed it");
}

#[tokio::test]
async fn kill_ends_the_process_where_it_is_allowed() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let token = CancellationToken::new();
    let node = start_at(listener, DriverSettings { kill: Some(token.clone()), ..settings(&folder) }, folder).await;
    assert_eq!(node.call("kill", vec![]).await.expect("it is allowed"), Value::Nil);
    assert!(token.is_cancelled());
}

#[tokio::test]
async fn wrong_arguments_are_refused_and_change_nothing() {
    let node = start_new().await;
    let nobody = chordfs_net::ring_wire::no_node();
    for (method, params) in [
        ("get_info", vec![1.into()]),
        ("find_successor", vec![]),
        ("find_successor", vec!["7".into()]),
        ("find_successor", vec![(-1).into()]),
        ("find_successor", vec![1.into(), 2.into()]),
        ("get_successor", vec!["0".into()]),
        ("get_successor", vec![Value::F64(0.0)]),
        ("notify", vec![]),
        ("notify", vec![nobody.clone()]),
        ("notify", vec![Value::Array(vec!["x".into()])]),
        ("join", vec![nobody]),
        ("join", vec![Value::Nil]),
        ("chordfs_route", vec![Value::Nil]),
        ("chordfs_leave", vec![Value::Nil]),
        ("chordfs_place", vec!["nowhere".into()]),
        ("chordfs_place", vec!["127.0.0.1:5057".into(), 7.into()]),
    ] {
        match node.call(method, params.clone()).await {
            Err(RpcError::Remote { error, .. }) => {
                assert!(error.as_str().is_some_and(|text| text.len() > 10), "{error}")
            }
            other => panic!("{method} {params:?} gave {other:?}"),
        }
    }
    assert_eq!(node.handle.neighbours().predecessor, None);
}

/// A node that does not exist cannot stay a predecessor only because a peer names it.
#[tokio::test]
async fn a_false_notification_does_not_last() {
    let nodes = ring_of(2).await;
    let me = nodes[0].handle.me();
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it is bound");
    let nobody = NodeRef { ip: free.ip(), port: free.port(), id: me.id.advance(u32::MAX) };
    nodes[0].call("notify", vec![wire::node_value(nobody)]).await.expect("anybody may notify");
    wait_for_ring(&nodes).await;
}

/// A foreign Chord node: it answers the ten calls, has a list of three, and answers every other call with an error.
struct Foreign {
    me: NodeRef,
    successor: Mutex<NodeRef>,
    predecessor: Mutex<Option<NodeRef>>,
}

impl RpcService for Foreign {
    async fn call(&self, _peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        let predecessor = *self.predecessor.lock().expect("no test panics with it");
        let successor = *self.successor.lock().expect("no test panics with it");
        match method.as_str() {
            "get_info" => Ok(wire::node_value(self.me)),
            "get_predecessor" => Ok(wire::optional_value(predecessor)),
            "get_successor" => Ok(match params[0].as_u64() {
                Some(0) => wire::node_value(successor),
                _ => chordfs_net::ring_wire::no_node(),
            }),
            "find_successor" => Ok(wire::node_value(successor)),
            "notify" => {
                *self.predecessor.lock().expect("no test panics with it") = wire::node(&params[0]).ok();
                *self.successor.lock().expect("no test panics with it") = wire::node(&params[0])?;
                Ok(Value::Nil)
            }
            other => Err(format!("method {other} not found").into()),
        }
    }
}

#[tokio::test]
async fn a_foreign_node_is_a_member_like_any_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let me = NodeRef { ip: address.ip(), port: address.port(), id: RingId(1 << 31) };
    let foreign = Arc::new(Foreign { me, successor: Mutex::new(me), predecessor: Mutex::new(Some(me)) });
    let life = CancellationToken::new();
    tokio::spawn(serve(listener, foreign.clone(), RpcLimits::default(), life.clone()));
    let node = start_new().await;
    node.handle.join_ring(&[address]).await.expect("a foreign ring can be joined");
    let mut view = node.handle.watch();
    // The foreign node notifies no node here; it is known only as a successor.
    let joined = view.wait_for(|view| view.successors == [me]);
    tokio::time::timeout(TEST_DEADLINE, joined).await.expect("in time").expect("the driver runs");
    let notified = async {
        while *foreign.predecessor.lock().expect("no test panics with it") != Some(node.handle.me()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TEST_DEADLINE, notified).await.expect("the foreign node is notified");
    life.cancel();
    let alone = view.wait_for(|view| view.successors.is_empty());
    tokio::time::timeout(TEST_DEADLINE, alone).await.expect("in time").expect("the driver runs");
}

/// A Chord node that knows only the ten calls.
struct OnlyTen(RingHandle);

impl RpcService for OnlyTen {
    async fn call(&self, _peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        let foreign = || Err(Value::from("no such function"));
        if method.starts_with("chordfs_") {
            return foreign();
        }
        ring_call(&self.0, &method, &params).await.unwrap_or_else(foreign)
    }
}

async fn start_foreign() -> TestNode {
    start_foreign_at(None).await
}

async fn start_foreign_at(id: Option<RingId>) -> TestNode {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let life = CancellationToken::new();
    let settings = DriverSettings { id, ..settings(&folder) };
    let handle = start(settings, address, life.clone()).await.expect("the driver starts");
    let server = tokio::spawn(serve(listener, Arc::new(OnlyTen(handle.clone())), RpcLimits::default(), life.clone()));
    TestNode { handle, address, folder, life, server }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_placed_as_if_foreign_members_were_absent() {
    let mut nodes = vec![start_new().await];
    for foreign in [false, true, true, false] {
        let node = if foreign { start_foreign().await } else { start_new().await };
        node.handle.join_ring(&[nodes[0].address]).await.expect("it is let in");
        nodes.push(node);
    }
    wait_for_ring(&nodes).await;
    let mut ours: Vec<NodeRef> = [0, 1, 4].map(|at: usize| nodes[at].handle.me()).to_vec();
    ours.sort_by_key(|node| node.id.0);
    for at in [0, 1, 4] {
        let handle = &nodes[at].handle;
        let place = ours.iter().position(|node| *node == handle.me()).expect("it is one of them");
        let after: Vec<NodeRef> = (1..3).map(|step| ours[(place + step) % 3]).collect();
        let mut view = handle.watch_storage_nodes();
        let right = view.wait_for(|view| view.successors == after && view.predecessor == Some(after[1]));
        tokio::time::timeout(TEST_DEADLINE, right).await.expect("foreign members are known").expect("the driver runs");
        assert_eq!(handle.storage_members().await.expect("the walk ends").len(), 3);
    }
    let foreign = nodes[0]
        .handle
        .survey(Duration::from_secs(5))
        .await
        .iter()
        .filter(|seen| seen.kind == NodeKind::Foreign)
        .count();
    assert_eq!(foreign, 2);
}

/// The owner of id 0 gives the positions. While a foreign member owned it, every joining node took its address's hash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_given_although_a_foreign_member_owns_the_first_id() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let ours = start_at(listener, DriverSettings { id: Some(RingId(3 << 30)), ..settings(&folder) }, folder).await;
    let foreign = start_foreign_at(Some(RingId(5))).await;
    foreign.handle.join_ring(&[ours.address]).await.expect("it is let in");
    let nodes = [ours, foreign];
    wait_for_ring(&nodes).await;
    for zone in [None, Some(Zone::of_name("rack 7"))] {
        let params = [Value::from("127.0.0.1:9")].into_iter().chain(zone.map(|zone| zone.mark(RingId(0)).0.into()));
        let given = nodes[0].call("chordfs_place", params.collect()).await.expect("a position is given");
        let id = RingId(given.as_u64().and_then(|id| u32::try_from(id).ok()).expect("it is an id"));
        let opposite = RingId(1 << 30);
        assert!(
            id.steps_to(opposite).min(opposite.steps_to(id)) < 1 << 23,
            "{id} is not opposite the only storage node"
        );
        assert_eq!(Zone::of_id(id), zone);
    }
}

/// A foreign node with one thread: while it waits for the result of a lookup that it forwarded, it answers nothing.
/// As in some implementations, a key of its own arc goes round to its predecessor.
struct SingleThreaded {
    ring: RingHandle,
    turn: tokio::sync::Mutex<()>,
}

impl SingleThreaded {
    async fn find_successor(&self, params: Vec<Value>) -> Result<Value, Value> {
        let target = RingId(params[0].as_u64().expect("an id") as u32);
        let view = self.ring.neighbours();
        let me = view.node.id;
        let head = view.successors[0];
        if RingArc::new(me, head.id).contains(target) {
            return Ok(wire::node_value(head));
        }
        let before = view.successors.iter().filter(|node| RingArc::new(me, target).strictly_contains(node.id));
        let next = before.max_by_key(|node| me.steps_to(node.id)).expect("the head lies before it");
        let client = RpcClient::connect(next.ring_address(), TEST_DEADLINE, None).await.expect("it listens");
        client.call("find_successor", params, TEST_DEADLINE).await.map_err(|error| error.to_string().into())
    }
}

impl RpcService for SingleThreaded {
    async fn call(&self, _peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        let _turn = self.turn.lock().await;
        match method.as_str() {
            "find_successor" => self.find_successor(params).await,
            own if own.starts_with("chordfs_") => Err("no such function".into()),
            method => ring_call(&self.ring, method, &params).await.expect("it is one of the ten"),
        }
    }
}

async fn start_single_threaded(id: RingId) -> TestNode {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let life = CancellationToken::new();
    let settings = DriverSettings { id: Some(id), ..settings(&folder) };
    let handle = start(settings, address, life.clone()).await.expect("the driver starts");
    let service = SingleThreaded { ring: handle.clone(), turn: tokio::sync::Mutex::default() };
    let server = tokio::spawn(serve(listener, Arc::new(service), RpcLimits::default(), life.clone()));
    TestNode { handle, address, folder, life, server }
}

/// The story: a node on the way of a lookup called the foreign owner before naming it. That node waited for this very
/// lookup, did not answer, and counted as dead: its successor was named instead, by other nodes as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_node_with_one_thread_finds_the_owner_of_every_key() {
    let mut nodes = vec![start_new().await];
    for step in 1..6u32 {
        let node = match step {
            2 | 3 | 5 => start_single_threaded(RingId(step.wrapping_mul(0x3777_7777))).await,
            _ => start_new().await,
        };
        node.handle.join_ring(&[nodes[0].address]).await.expect("it is let in");
        nodes.push(node);
        wait_for_ring(&nodes).await;
    }
    // Until each node knows the kinds of its neighbours.
    tokio::time::sleep(2 * LOOK_EVERY).await;
    let mut ids: Vec<RingId> = nodes.iter().map(|node| node.handle.me().id).collect();
    ids.sort_by_key(|id| id.0);
    let owner = |key: u32| ids.iter().find(|id| id.0 >= key).or(ids.first()).expect("some node").to_owned();
    for at in [2, 3, 5, 0] {
        for key in (0..40u32).map(|step| step.wrapping_mul(0x0666_6667)) {
            let found = nodes[at].call("find_successor", vec![key.into()]).await;
            let found = wire::node(&found.expect("an owner is found")).expect("it is a node");
            assert_eq!(found.id, owner(key), "key {key} at node {at}");
        }
    }
}
