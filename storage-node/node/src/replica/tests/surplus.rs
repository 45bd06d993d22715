//! Copies beyond the third are dropped only when three sound copies are on disks.

use std::os::unix::fs::FileExt;

use chordfs_types::{admin::TransferProgress, route_table::Route};

use super::*;
use crate::replica::repair::RepairError;

async fn holders() -> [TestNode; 3] {
    [TestNode::start(20).await, TestNode::start(30).await, TestNode::start(40).await]
}

fn route(holders: &[TestNode; 3]) -> Route {
    Route { arc: whole(), holders: holders.iter().map(|holder| holder.node).collect() }
}

/// Flips the bits of one data byte in every record of a node.
fn damage(node: &TestNode) {
    for entry in std::fs::read_dir(node.dir.path().join("chunks")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "seg") {
            let bytes = std::fs::read(&path).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let record = batch(&chunks([1])).bytes.len();
            for at in (record - 1..bytes.len()).step_by(record) {
                file.write_all_at(&[!bytes[at]], at as u64).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn surplus_is_handed_on_to_the_holders_and_dropped() {
    let (old, holders) = (TestNode::start(9).await, holders().await);
    old.put(&chunks(1..=3000));
    holders[1].put(&chunks(1..=2000));
    let all = old.all();
    old.repair().hand_on(&old.view(RingId(9)), &route(&holders)).await.unwrap();
    assert!(holders.iter().all(|holder| holder.all() == all));
    assert_eq!(old.all(), []);
    assert_eq!(holders[1].traffic.status().incoming.chunks_moved, 1000);
}

/// After the last join of a ring all five nodes reported "filling" for another minute: each had been offered chunks
/// that it already had.
#[tokio::test]
async fn a_node_expects_no_chunks_that_it_already_has() {
    let (old, holders) = (TestNode::start(9).await, holders().await);
    for node in [&old, &holders[0], &holders[1], &holders[2]] {
        node.put(&chunks(1..=3000));
    }
    old.repair().hand_on(&old.view(RingId(9)), &route(&holders)).await.unwrap();
    assert_eq!(old.all(), []);
    for node in &holders {
        assert_eq!(node.traffic.status().incoming, TransferProgress::default());
    }
}

/// The surplus copy used to be dropped when a holder's index listed the chunk, whatever was on the disk.
#[tokio::test]
async fn a_damaged_copy_does_not_count_as_a_copy() {
    let (old, holders) = (TestNode::start(9).await, holders().await);
    old.put(&chunks(1..=9));
    holders[2].put(&chunks(1..=9));
    damage(&holders[2]);
    let (repair, view, route) = (old.repair(), old.view(RingId(9)), route(&holders));
    let error = repair.hand_on(&view, &route).await.unwrap_err();
    assert!(matches!(error, RepairError::Unconfirmed { count: 9 }), "{error}");
    assert_eq!(old.all().len(), 9);
    // The holder has noticed the damage, and now stores sound copies.
    repair.hand_on(&view, &route).await.unwrap();
    assert_eq!((old.all().len(), holders[2].all().len()), (0, 9));
    assert_eq!(holders[2].store.confirm(&holders[2].all()).unwrap(), [true; 9]);
}

#[tokio::test]
async fn no_copy_is_dropped_while_a_holder_is_dead() {
    let (old, [a, b, c]) = (TestNode::start(9).await, holders().await);
    old.put(&chunks(1..=9));
    let gone = c.node;
    drop(c);
    let route = Route { arc: whole(), holders: vec![a.node, b.node, gone] };
    old.repair().hand_on(&old.view(RingId(9)), &route).await.unwrap_err();
    assert_eq!(old.all().len(), 9);
}
