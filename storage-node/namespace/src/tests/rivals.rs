//! Two namespaces in one ring.

use std::{net::SocketAddr, time::Duration};

use chordfs_types::namespace::*;

use super::harness::*;
use crate::NamespaceSettings;

/// A ring's first node lost its disk and was started as before, without `--join`. It founded a namespace, and its
/// peers, which remember its address, took it into the ring. It must not serve its empty tree, and must not delete the
/// others' chunks.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_node_that_lost_its_disk_gives_way_to_the_ring_that_it_founded() {
    let mut nodes = cluster(4, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();
    let empty = nodes.remove(0).stop().await.restart_as_first_node(999).await;
    let reason = tokio::time::timeout(LONG, empty.namespace.failed()).await.unwrap();
    assert!(reason.contains("--join") && reason.contains("namespace"), "{reason}");
    assert!(!empty.namespace.is_leader());
    assert_eq!(empty.namespace.status().voters.len(), 1, "it has added no voter");
    let answer = empty.ask(&Peer::new(), Request::Query(lookup("file"))).await;
    assert!(matches!(answer, Response::NotLeader { .. }), "{answer:?}");

    eventually("the ring's namespace has its voters again", || async {
        let voters = nodes[leader_at(&nodes)?].namespace.status().voters;
        assert!(!voters.contains_key(&999), "it belongs to another namespace");
        (voters.len() == 3).then_some(())
    })
    .await;
    assert!(query(&nodes, lookup("file")).await.is_ok());
    assert!(empty.deleted.lock().is_empty());
}

/// A node was started without `--join` by mistake, and then with it: its folder still has the log of the namespace that
/// it founded.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_founded_a_namespace_by_mistake_gives_way_before_it_leads_again() {
    let first = Node::start(1, true, NamespaceSettings::default()).await;
    let second = Node::start(2, true, NamespaceSettings::default()).await;
    eventually("both lead", || async { (first.namespace.is_leader() && second.namespace.is_leader()).then_some(()) })
        .await;
    let nodes = [first];
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();

    // The ring's node does not answer at first.
    let unreachable = SocketAddr::from(([127, 0, 0, 1], 1));
    let second = second.stop().await.restart_in_ring(unreachable).await;
    let term = eventually("Raft has started", || async {
        let status = second.namespace.status();
        (status.voters.len() == 1).then_some(status.term)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!second.namespace.status().leads, "no neighbour has answered yet");
    connect(&[&nodes[0], &second]);
    let reason = tokio::time::timeout(LONG, second.namespace.failed()).await.unwrap();
    assert!(reason.contains("--join"), "{reason}");
    let status = second.namespace.status();
    assert_eq!((status.leads, status.term, status.voters.len()), (false, term, 1));
    assert_eq!(status.failed, Some(reason));

    let other = second.stop().await.restart_without_disk(3).await;
    eventually("without its folder it becomes a voter", || async {
        (nodes[0].namespace.status().voters.contains_key(&3) && other.namespace.is_voter()).then_some(())
    })
    .await;
    assert!(query(&nodes, lookup("file")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_without_neighbours_leads_its_namespace_again() {
    let mut nodes = vec![Node::start(1, true, NamespaceSettings::default()).await];
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();
    let again = nodes.remove(0).stop().await.restart().await;
    nodes.push(again);
    assert!(query(&nodes, lookup("file")).await.is_ok());
}
