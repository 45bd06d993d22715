//! A session that has answered changes before they are logged, and others that want what it holds alone.

use std::time::{Duration, Instant};

use chordfs_types::{fs_error::FsError, namespace::*};

use super::harness::*;
use crate::NamespaceSettings;

/// A session that is attached to a node.
struct Mount {
    id: SessionId,
    peer: Peer,
}

impl Mount {
    async fn attach(node: &Node, id: SessionId, claims: &[Ino]) -> Self {
        let mount = Self { id, peer: Peer::new() };
        let attached = eventually("it is attached", || async {
            let response = node.ask(&mount.peer, Request::Attach { session: id, claims: claims.to_vec() }).await;
            (response == Response::Attached).then_some(())
        });
        attached.await;
        mount
    }

    /// Returns the inodes that it may change before that is logged.
    async fn look_up(&self, node: &Node, file: &str) -> Vec<Ino> {
        match node.ask(&self.peer, Request::Query(lookup(file))).await {
            Response::Answered(_, Granted { sole, .. }) => sole,
            other => panic!("{other:?}"),
        }
    }

    /// Logs what it has answered.
    async fn log(&self, node: &Node, ops: &[NamespaceOp]) -> Vec<Result<Reply, FsError>> {
        match node.ask(&self.peer, Request::ApplyList(ops.to_vec())).await {
            Response::AppliedList(results, _) => results,
            other => panic!("{other:?}"),
        }
    }

    async fn await_event(&self, event: FeedEvent) {
        eventually("it is told", || async { self.peer.received.lock().contains(&event).then_some(()) }).await;
    }

    async fn await_recall(&self, ino: Ino) {
        self.await_event(FeedEvent::Recalled { ino }).await;
    }

    async fn acknowledge(&self, node: &Node) {
        for notice in self.peer.take_notices() {
            node.ask(&self.peer, Request::Acknowledge { notice, keeps: true }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_answered_comes_before_the_changes_and_answers_of_others() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let (id, other) = (open_session_that(true, &nodes, 1).await, open_session(&nodes, 2).await);
    let mount = Mount::attach(&nodes[0], id, &[]).await;
    assert_eq!(mount.look_up(&nodes[0], "f").await, [Ino::ROOT]);
    let last = || nodes[0].namespace.services().raft.state().applied_index();
    let before = last();
    let (peer, reader) = (Peer::new(), Peer::new());
    let change = nodes[0].ask(&peer, Request::Apply(make(other, 1, "f")));
    let read = nodes[0].ask(&reader, Request::Query(lookup("f")));
    let holder = async {
        mount.await_recall(Ino::ROOT).await;
        mount.await_event(FeedEvent::Wanted { ino: Ino::ROOT }).await;
        assert_eq!(last(), before, "nothing is logged before the session has let go");
        let results = mount.log(&nodes[0], &[make(mount.id, 1, "f"), make(mount.id, 2, "g")]).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        mount.acknowledge(&nodes[0]).await;
    };
    let (changed, read, ()) = tokio::join!(change, read, holder);
    assert!(matches!(changed, Response::Applied(Err(FsError::Exists), _)), "{changed:?}");
    assert!(matches!(read, Response::Answered(Ok(Answer::Attr(_)), _)), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_logs_nothing_delays_others_until_its_lease_has_run_out() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let (id, other) = (open_session_that(true, &nodes, 1).await, open_session(&nodes, 2).await);
    let mount = Mount::attach(&nodes[0], id, &[]).await;
    mount.look_up(&nodes[0], "f").await;
    let (began, peer) = (Instant::now(), Peer::new());
    let changed = nodes[0].ask(&peer, Request::Apply(make(other, 1, "f"))).await;
    assert!(matches!(changed, Response::Applied(Ok(_), _)), "{changed:?}");
    assert!(began.elapsed() >= LEASE - Duration::from_millis(500), "after {:?}", began.elapsed());
    let late = Mount::attach(&nodes[0], id, &[Ino::ROOT]).await;
    let revoked = FeedEvent::Revoked { ino: Ino::ROOT };
    assert!(late.peer.received.lock().contains(&revoked), "what it claims was taken by another");
    let results = late.log(&nodes[0], &[make(id, 1, "f"), make(id, 2, "g")]).await;
    assert!(matches!(results[..], [Err(FsError::Exists), Ok(_)]), "only what conflicts is refused: {results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_waits_for_what_a_session_has_answered_under_the_old_one() {
    let mut nodes = cluster(3, NamespaceSettings::default()).await;
    let (id, other) = (open_session_that(true, &nodes, 1).await, open_session(&nodes, 2).await);
    let at = leader_at(&nodes).unwrap();
    let mount = Mount::attach(&nodes[at], id, &[]).await;
    assert_eq!(mount.look_up(&nodes[at], "f").await, [Ino::ROOT]);
    nodes.remove(at).stop().await;
    let at = eventually("another leads", || async { leader_at(&nodes) }).await;
    let (leader, peer) = (&nodes[at], Peer::new());
    let change = async {
        eventually("the change is answered", || async {
            match leader.ask(&peer, Request::Apply(make(other, 1, "f"))).await {
                Response::Applied(reply, _) => Some(reply),
                _ => None,
            }
        })
        .await
    };
    let holder = async {
        let mount = Mount::attach(leader, id, &[Ino::ROOT]).await;
        mount.await_recall(Ino::ROOT).await;
        let results = mount.log(leader, &[make(id, 1, "f")]).await;
        assert!(matches!(results[..], [Ok(_)]), "{results:?}");
        mount.acknowledge(leader).await;
    };
    let (changed, ()) = tokio::join!(change, holder);
    assert_eq!(changed, Err(FsError::Exists));
}

/// The session has answered the creation of a file, and changes of it, before the creation is logged.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_alone_with_a_file_whose_creation_it_has_logged() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let id = open_session_that(true, &nodes, 1).await;
    let mount = Mount::attach(&nodes[0], id, &[]).await;
    let Ok(Reply::Inos(block)) = apply(&nodes, &by(id, 1, Change::AllocateInos { count: 4 })).await else { panic!() };
    let Change::Make { node, .. } = make(id, 0, "f").change else { unreachable!("it makes") };
    let file = chordfs_types::chunk::FileName::new("chosen").unwrap();
    let change = Change::MakeNumbered { ino: block.first, file, parent: Ino::ROOT, name: name("f"), node };
    let granted = match nodes[0].ask(&mount.peer, Request::ApplyList(vec![by(id, 2, change)])).await {
        Response::AppliedList(_, granted) => granted,
        other => panic!("{other:?}"),
    };
    assert!(granted.remember && granted.sole.contains(&block.first), "{granted:?}");
    let reader = Peer::new();
    let read = nodes[0].ask(&reader, Request::Query(Query::GetAttr { ino: block.first }));
    let holder = async {
        mount.await_event(FeedEvent::Wanted { ino: block.first }).await;
        mount.acknowledge(&nodes[0]).await;
    };
    let (read, ()) = tokio::join!(read, holder);
    assert!(matches!(read, Response::Answered(Ok(_), _)), "{read:?}");
}
