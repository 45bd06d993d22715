//! Late copies: those that are still under way when their writer has its answer.

use super::*;
use crate::replica::copy_traffic::ReplicaWrite;

/// A node that accepts connections and never answers.
async fn unresponsive_node(id: u32) -> (NodeRef, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (NodeRef { ip: address.ip(), port: address.port() - 1, id: RingId(id) }, listener)
}

/// The writer of a node that owns every key but one.
fn writer(owner: &TestNode, successors: Vec<NodeRef>) -> Writer {
    let predecessor = NodeRef { id: RingId(owner.node.id.0 + 1), ..owner.node };
    let neighbours = Neighbours { predecessor: Some(predecessor), node: owner.node, successors };
    Writer {
        store: owner.store.clone(),
        peers: peers(),
        neighbours: watch::channel(neighbours).1,
        floor: Arc::new(|| 1),
        repair: Arc::new(Notify::new()),
        traffic: owner.traffic.clone(),
        deadline: DEADLINE,
        departure: Arc::default(),
        small_puts: Default::default(),
    }
}

/// Begins as many late copies as may be under way to `node`.
fn fill(traffic: &Arc<CopyTraffic>, node: &NodeRef) -> Vec<ReplicaWrite> {
    let replica_writes = std::iter::repeat_with(|| traffic.begin_write(node, batch(&chunks([99]))));
    replica_writes.take_while(ReplicaWrite::continue_late).collect()
}

/// Every write used to keep a copy for an unresponsive peer in memory until the deadline, without any bound.
#[tokio::test]
async fn an_unresponsive_holder_costs_bounded_memory_and_fails_no_write() {
    let (owner, fast) = (TestNode::start(9).await, TestNode::start(20).await);
    let (silent, _listener) = unresponsive_node(30).await;
    let writer = writer(&owner, vec![fast.node, silent]);
    let given_up = async |index: u32| {
        assert_eq!(
            writer.put(batch(&chunks([index])), chordfs_types::chunk_api::Durability::Memory).await.unwrap(),
            [owner.node, fast.node]
        );
        let chunk: Vec<ChunkAt> = owner.all().into_iter().filter(|chunk| chunk.id.index == index).collect();
        owner.traffic.without_replica_writes(&silent, &chunk) == chunk
    };
    assert!(!given_up(1).await);
    let late = fill(&owner.traffic, &silent);
    assert!(given_up(2).await);
    tokio::time::timeout(DEADLINE, writer.repair.notified()).await.expect("repair is woken");
    let _late_to_fast = fill(&owner.traffic, &fast.node);
    assert!(given_up(3).await, "only the copy beyond the quorum is dropped");
    drop(late);
    assert!(!given_up(4).await, "there is space again");
}
