//! Two namespaces that meet in one ring.

use std::time::Duration;

use chordfs_types::namespace::*;

use super::harness::*;
use crate::NamespaceSettings;

/// It lost its disk and was started as before, without `--join`: it began a namespace, and its peers, who remember it,
/// took it into the ring. Its empty tree must not be served, and it must not delete what the others hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_node_that_begins_anew_gives_way_to_the_ring_it_once_began() {
    let mut nodes = cluster(4, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();
    let anew = nodes.remove(0).stop().await.begin_anew(999).await;
    let reason = tokio::time::timeout(LONG, anew.namespace.failed()).await.unwrap();
    assert!(reason.contains("--join") && reason.contains("namespace"), "{reason}");
    assert!(!anew.namespace.is_leader());
    assert_eq!(anew.namespace.status().voters.len(), 1, "it took nobody in");
    let answer = anew.ask(&Peer::new(), Request::Query(lookup("file"))).await;
    assert!(matches!(answer, Response::NotLeader { .. }), "{answer:?}");

    eventually("the ring's namespace has its voters again", || async {
        let voters = nodes[leader_at(&nodes)?].namespace.status().voters;
        assert!(!voters.contains_key(&999), "it belongs to another namespace");
        (voters.len() == 3).then_some(())
    })
    .await;
    assert!(query(&nodes, lookup("file")).await.is_ok());
    assert!(anew.deleted.lock().is_empty());
}

/// It was started without `--join` by mistake, then with it: it still has the log of the namespace it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_began_alone_by_mistake_gives_way_before_it_leads_again() {
    let first = Node::start(1, true, NamespaceSettings::default()).await;
    let second = Node::start(2, true, NamespaceSettings::default()).await;
    eventually("both lead", || async { (first.namespace.is_leader() && second.namespace.is_leader()).then_some(()) })
        .await;
    let nodes = [first];
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();

    let second = second.stop().await.restart().await;
    let term = eventually("Raft has begun", || async {
        let status = second.namespace.status();
        (status.voters.len() == 1).then_some(status.term)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!second.namespace.status().leads, "it has nobody's word yet");
    connect(&[&nodes[0], &second]);
    let reason = tokio::time::timeout(LONG, second.namespace.failed()).await.unwrap();
    assert!(reason.contains("--join"), "{reason}");
    let status = second.namespace.status();
    assert_eq!((status.leads, status.term, status.voters.len()), (false, term, 1));
    assert_eq!(status.failed, Some(reason));

    let other = second.stop().await.restart_without_disk(3).await;
    eventually("without its folder it takes part", || async {
        (nodes[0].namespace.status().voters.contains_key(&3) && other.namespace.is_voter()).then_some(())
    })
    .await;
    assert!(query(&nodes, lookup("file")).await.is_ok());
}

/// A node that should join and finds nobody is a ring of its own once more, as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_leads_again_when_nobody_answers() {
    let mut nodes = vec![Node::start(1, true, NamespaceSettings::default()).await];
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();
    let again = nodes.remove(0).stop().await.restart().await;
    nodes.push(again);
    assert!(query(&nodes, lookup("file")).await.is_ok());
}
