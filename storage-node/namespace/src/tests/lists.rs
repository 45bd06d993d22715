//! Operations of one session in one log entry.

use chordfs_types::{chunk::FileName, fs_error::FsError, namespace::*};

use super::harness::*;
use crate::NamespaceSettings;

/// Creates an entry under a number of the session.
fn make_numbered(
    session: SessionId,
    sequence: u64,
    ino: u64,
    (parent, file): (Ino, &str),
    kind: FileKind,
) -> NamespaceOp {
    let Change::Make { node, .. } = make(session, 0, file).change else { unreachable!("it makes") };
    let node = NewNode { kind, ..node };
    let file_name = FileName::new(format!("chosen/{file}")).unwrap();
    let change = Change::MakeNumbered { ino: Ino(ino), file: file_name, parent, name: name(file), node };
    by(session, sequence, change)
}

async fn allocate(nodes: &[Node], session: SessionId, sequence: u64) -> InoBlock {
    match apply(nodes, &by(session, sequence, Change::AllocateInos { count: 100 })).await {
        Ok(Reply::Inos(block)) => block,
        other => panic!("{other:?}"),
    }
}

/// Sends the list to the leader of `nodes` until it is answered.
async fn apply_list(nodes: &[Node], ops: &[NamespaceOp]) -> Vec<Result<Reply, FsError>> {
    let peer = Peer::new();
    eventually("the list is answered", || async {
        let leader = &nodes[leader_at(nodes)?];
        match leader.ask(&peer, Request::ApplyList(ops.to_vec())).await {
            Response::AppliedList(results, _) => Some(results),
            Response::Answered(refused, _) => panic!("{refused:?}"),
            _ => None,
        }
    })
    .await
}

fn created(result: &Result<Reply, FsError>) -> u64 {
    match result {
        Ok(Reply::Entry { attr, created: true }) => attr.ino.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_one_entry_with_a_result_for_each_operation() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    let first = allocate(&nodes, session, 1).await.first.0;
    let (directory, below) = (Ino(first), Ino(first + 1));
    let ops = [
        make_numbered(session, 2, first, (Ino::ROOT, "d"), FileKind::Directory),
        make_numbered(session, 3, first + 1, (directory, "f"), FileKind::File),
        by(session, 4, Change::PurgeOrphans { before: u64::MAX, limit: 9 }),
        make_numbered(session, 5, first + 2, (directory, "f"), FileKind::File),
        by(session, 6, Change::SetAttr { ino: below, set: SetAttr { mode: Some(0o600), ..SetAttr::default() } }),
        make(session, 7, "g"),
    ];
    let applied = || nodes[0].namespace.services().raft.state().applied_index();
    let before = applied();
    let results = apply_list(&nodes, &ops).await;
    assert_eq!(applied(), before + 1);
    assert_eq!((created(&results[0]), created(&results[1])), (directory.0, below.0));
    assert!(matches!(results[2], Err(FsError::Invalid { .. })), "only the namespace may do this: {:?}", results[2]);
    assert_eq!(results[3], Err(FsError::Exists), "it stops none of the others");
    assert!(matches!(&results[4], Ok(Reply::Attr(attr)) if attr.mode == 0o600), "{:?}", results[4]);
    assert!(created(&results[5]) > first + 99 && results.len() == 6);
    let unlogged = by(session, 4, Change::Hold { ino: below });
    assert_eq!(apply(&nodes, &unlogged).await, Ok(Reply::Done), "what was refused before has used no number");
}

/// Changes must rise at every step, also for a reader between two of them: there is none.
#[tokio::test(flavor = "multi_thread")]
async fn operations_of_one_entry_on_one_file_are_all_seen() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    let Ok(Reply::Entry { attr, .. }) = apply(&nodes, &make(session, 1, "f")).await else { panic!() };
    let unlink = Change::Unlink { parent: Ino::ROOT, name: name("f"), hold: true };
    let (release, hold) = (Change::Release { inos: vec![attr.ino] }, Change::Hold { ino: attr.ino });
    let set = || Change::SetAttr { ino: attr.ino, set: SetAttr { uid: Some(7), ..SetAttr::default() } };
    let changes = [set(), set(), unlink, release, hold.clone(), set()];
    let ops: Vec<NamespaceOp> = (2..).zip(changes).map(|(at, change)| by(session, at, change)).collect();
    let results = apply_list(&nodes, &ops).await;
    let changed = |at: usize| match &results[at] {
        Ok(Reply::Attr(attr) | Reply::Removed { attr: Some(attr) }) => attr.change,
        other => panic!("{other:?}"),
    };
    let counters = [attr.change, changed(0), changed(1), changed(2), changed(5)];
    assert!(counters.is_sorted_by(|a, b| a < b), "{counters:?}");
    assert!(query(&nodes, Query::GetAttr { ino: attr.ino }).await.is_ok(), "the session holds it at the end");
    let Ok(Reply::Attr(next)) = apply(&nodes, &by(session, 20, set())).await else { panic!() };
    assert!(next.change > counters[4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_sent_again_is_applied_once_by_every_leader_and_after_a_restart() {
    let mut nodes = cluster(3, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    let first = allocate(&nodes, session, 1).await.first.0;
    let numbered = |at: u64| {
        make_numbered(session, at + 2, first + at, (Ino::ROOT, &format!("file {}", at / 2 * 2)), FileKind::File)
    };
    let ops: Vec<NamespaceOp> = (0..20).map(numbered).collect();
    let results = apply_list(&nodes, &ops).await;
    let refused = results.iter().filter(|result| **result == Err(FsError::Exists)).count();
    assert_eq!((refused, created(&results[18])), (10, first + 18));
    assert_eq!(apply_list(&nodes, &ops).await, results);

    let dead = nodes.remove(leader_at(&nodes).unwrap()).stop().await;
    eventually("another leads", || async { leader_at(&nodes) }).await;
    // A part of it was sent before, and a part is new.
    let longer: Vec<NamespaceOp> = ops.iter().cloned().chain([make(session, 90, "new")]).collect();
    let again = apply_list(&nodes, &longer).await;
    assert_eq!((&again[..20], created(&again[20]) > first), (&results[..], true));

    let mut stopped = vec![dead];
    for node in nodes {
        stopped.push(node.stop().await);
    }
    let nodes = restart_all(stopped).await;
    assert_eq!(apply_list(&nodes, &longer).await, again, "the log was replayed");
    wait_for_equal_tables(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_several_sessions_of_none_and_very_long_ones_are_refused_as_a_whole() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let (one, two) = (open_session(&nodes, 1).await, open_session(&nodes, 2).await);
    let without = NamespaceOp { origin: None, ..make(one, 2, "b") };
    let long = (0..1025).map(|at| make(one, at, "c")).collect();
    let target = Change::Release { inos: vec![Ino(u64::MAX); 500_000] };
    let large = vec![make(one, 1, "d"), by(one, 2, target)];
    for ops in [vec![make(one, 1, "a"), make(two, 1, "b")], vec![make(one, 1, "a"), without], long, large] {
        let answer = nodes[0].ask(&Peer::new(), Request::ApplyList(ops)).await;
        assert!(matches!(&answer, Response::Answered(Err(FsError::Invalid { .. }), _)), "{answer:?}");
    }
    for file in ["a", "b", "c", "d"] {
        assert_eq!(query(&nodes, lookup(file)).await, Err(FsError::NoEntry), "{file}");
    }
    let empty = nodes[0].ask(&Peer::new(), Request::ApplyList(Vec::new())).await;
    assert_eq!(empty, Response::AppliedList(Vec::new(), Granted::default()));
}
