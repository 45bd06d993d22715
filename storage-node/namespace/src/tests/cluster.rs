//! Several nodes together: forming a cluster, failures, replacement of voters, the change feed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chordfs_net::session::{Session, SessionEvent, SessionOptions};
use chordfs_power_cut::Recording;
use chordfs_types::{fs_error::FsError, namespace::*};
use tokio::sync::{RwLock, mpsc::UnboundedReceiver};

use super::harness::*;
use crate::{NamespaceSettings, SnapshotInterval, become_only_voter};

const KEEP_ALIVE: Request = Request::KeepAlive { answered: 0, nothing_open: None };

fn with_short_member_timeout() -> NamespaceSettings {
    NamespaceSettings { member_timeout: Duration::from_secs(3), ..NamespaceSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_a_cluster_and_survive_the_loss_of_their_leader_and_a_restart_of_all() {
    let mut nodes = cluster(3, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    let first = make(session, 1, "first");
    let reply = apply(&nodes, &first).await.unwrap();
    assert!(query(&nodes, lookup("first")).await.is_ok());

    let dead = nodes.remove(leader_at(&nodes).unwrap()).stop().await;
    let start = Instant::now();
    eventually("another leads", || async { leader_at(&nodes) }).await;
    println!("another leader after {:?}", start.elapsed());
    assert_eq!(apply(&nodes, &first).await, Ok(reply.clone()), "a repeated operation is not applied again");
    assert_eq!(apply(&nodes, &make(session, 2, "first")).await, Err(FsError::Exists));
    apply(&nodes, &make(session, 3, "second")).await.unwrap();

    let mut stopped = vec![dead];
    for node in nodes {
        stopped.push(node.stop().await);
    }
    let nodes = restart_all(stopped).await;
    for file in ["first", "second"] {
        assert!(query(&nodes, lookup(file)).await.is_ok(), "{file}");
    }
    assert_eq!(apply(&nodes, &first).await, Ok(reply));
    wait_for_equal_tables(&nodes).await;
}

/// Without the detector the others wait at least 25 seconds in this test: for the end of the leader's lease, and for an
/// election.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_process_has_ended_is_replaced_before_its_lease_ends() {
    let (election_timeout_min, election_timeout_max) = (Duration::from_secs(12), Duration::from_secs(13));
    let mut nodes =
        cluster(3, NamespaceSettings { election_timeout_min, election_timeout_max, ..NamespaceSettings::default() })
            .await;
    nodes.remove(leader_at(&nodes).unwrap()).stop().await;
    let start = Instant::now();
    eventually("another leads", || async { leader_at(&nodes) }).await;
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
}

/// Raft waits for its vote to be written when it stops, and the vote waited for space until the log was closed, which
/// came after: such a node never ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_vote_waits_for_space_stops() {
    let mut nodes = cluster(3, NamespaceSettings::default()).await;
    let leader = nodes.remove(leader_at(&nodes).unwrap());
    let stopped = nodes.remove(0).stop().await;
    let disk = Recording::start(stopped.dir.path());
    let node = stopped.restart().await;
    eventually("it follows the leader", || async { node.namespace.status().leader_confirmed.then_some(()) }).await;
    disk.fail(0, usize::MAX, libc::ENOSPC);
    leader.stop().await;
    let log = node.namespace.services().log.clone();
    eventually("its vote waits for space", || async { (!log.disk_space().full_for().is_zero()).then_some(()) }).await;
    tokio::time::timeout(Duration::from_secs(10), node.stop()).await.expect("it stops although there is no space");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_that_lags_far_behind_receives_a_snapshot() {
    let settings = NamespaceSettings {
        snapshots: SnapshotInterval { least_log_bytes: 10_000, most_log_bytes: 10_000 },
        keep_entries: 5,
        log_file_bytes: 2000,
        ..NamespaceSettings::default()
    };
    let nodes = [Node::start(1, true, settings.clone()).await];
    let session = open_session(&nodes, 1).await;
    for sequence in 0..200 {
        apply(&nodes, &make(session, sequence, &format!("file {sequence}"))).await.unwrap();
    }
    let [first] = nodes;
    eventually("the log is purged", || async {
        let entries = first.namespace.services().raft.look(|metrics| metrics.purged)?;
        (entries.index > 100).then_some(())
    })
    .await;
    let second = Node::start(2, false, settings).await;
    connect(&[&first, &second]);
    let nodes = [first, second];
    eventually("both vote", || async { nodes.iter().all(|node| node.namespace.is_voter()).then_some(()) }).await;
    assert!(nodes[1].namespace.status().snapshot_index.is_some(), "it has received a snapshot");
    eventually("both have the same tables", || async {
        let [a, b] = [0, 1].map(|at| nodes[at].namespace.services().raft.state().tables());
        (a == b).then_some(())
    })
    .await;

    // A restart begins with the snapshot, too.
    let [first, second] = nodes;
    let (first, second) = (first.stop().await, second.stop().await);
    let nodes = [first.restart().await, second.restart().await];
    assert!(query(&nodes, lookup("file 0")).await.is_ok() && query(&nodes, lookup("file 199")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_operations_cause_an_early_snapshot() {
    let snapshots = SnapshotInterval { least_log_bytes: 10_000, most_log_bytes: 10_000 };
    let settings = NamespaceSettings { snapshots, ..NamespaceSettings::default() };
    let nodes = [Node::start(1, true, settings).await];
    let session = open_session(&nodes, 1).await;
    for sequence in 0..150 {
        apply(&nodes, &make(session, sequence, &format!("file {sequence}"))).await.unwrap();
    }
    eventually("there is a snapshot", || async { nodes[0].namespace.status().snapshot_index }).await;
}

/// The whole namespace was written after a fixed number of operations, however large it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_larger_namespace_is_written_after_more_operations() {
    let snapshots = SnapshotInterval { least_log_bytes: 500, most_log_bytes: u64::MAX };
    let nodes = [Node::start(1, true, NamespaceSettings { snapshots, ..NamespaceSettings::default() }).await];
    let session = open_session(&nodes, 1).await;
    let file = |sequence: u64| make(session, sequence, &format!("{sequence:0>250}"));
    for sequence in 0..200 {
        apply(&nodes, &file(sequence)).await.unwrap();
    }
    let written = || nodes[0].namespace.status().snapshot_index;
    eventually("there is a snapshot", || async { written().filter(|index| *index > 50) }).await;
    let mut snapshots = BTreeSet::new();
    for round in 0..5 {
        for sequence in 0..3 {
            apply(&nodes, &file(1000 + 3 * round + sequence)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1300)).await;
        snapshots.insert(written());
    }
    assert!(snapshots.len() <= 2, "{snapshots:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_voter_is_replaced_and_nodes_without_a_vote_redirect_to_the_leader() {
    let mut nodes = cluster(4, with_short_member_timeout()).await;
    let bystander = nodes.iter().position(|node| !node.namespace.is_voter()).unwrap();
    let leader = nodes[leader_at(&nodes).unwrap()].ring;
    eventually("a node without a vote knows the leader", || async {
        (nodes[bystander].namespace.leader() == Some(leader)).then_some(())
    })
    .await;
    let answer = nodes[bystander].ask(&Peer::new(), Request::Query(lookup("x"))).await;
    assert_eq!(answer, Response::NotLeader { leader: Some(leader) });

    let bystander = nodes[bystander].uid;
    let victim = nodes.iter().position(|node| node.namespace.is_voter() && !node.namespace.is_leader()).unwrap();
    let victim = nodes.remove(victim).stop().await;
    eventually("the bystander votes in its place", || async {
        let voters = nodes[leader_at(&nodes)?].namespace.status().voters;
        (voters.contains_key(&bystander) && !voters.contains_key(&victim.uid)).then_some(())
    })
    .await;
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "after")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_votes_again_under_its_new_id() {
    let mut nodes = cluster(3, NamespaceSettings::default()).await;
    let victim = nodes.iter().position(|node| !node.namespace.is_leader()).unwrap();
    let victim = nodes.remove(victim).stop().await;
    let (old, ring) = (victim.uid, victim.ring);
    nodes.push(victim.restart_without_disk(999).await);
    eventually("the new id votes and the old one does not", || async {
        let voters = nodes[leader_at(&nodes)?].namespace.status().voters;
        (voters.get(&999) == Some(&ring) && !voters.contains_key(&old) && voters.len() == 3).then_some(())
    })
    .await;
}

/// It kept the tables of that time in its memory, and asked for votes for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_removed_while_it_was_away_begins_anew_and_can_vote_again() {
    let mut nodes = cluster(4, with_short_member_timeout()).await;
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "file")).await.unwrap();
    let away = nodes.iter().position(|node| node.namespace.is_voter() && !node.namespace.is_leader()).unwrap();
    let away = nodes.remove(away).stop().await;
    let former = away.uid;
    eventually("the fourth votes instead", || async {
        nodes.iter().all(|node| node.namespace.is_voter()).then_some(())
    })
    .await;

    let back = away.restart().await;
    eventually("it has begun anew", || async { (back.namespace.status().uid != former).then_some(()) }).await;
    let status = back.namespace.status();
    assert_eq!((status.voter, status.last_log_index, status.applied_index), (false, None, None));

    let gone = nodes.iter().position(|node| !node.namespace.is_leader()).unwrap();
    nodes.remove(gone).stop().await;
    nodes.push(back);
    eventually("it votes again", || async { nodes.iter().all(|node| node.namespace.is_voter()).then_some(()) }).await;
    wait_for_equal_tables(&nodes).await;
    let back = nodes.pop().unwrap().stop().await.restart().await;
    nodes.push(back);
    eventually("it votes after a restart", || async {
        nodes.iter().all(|node| node.namespace.is_voter()).then_some(())
    })
    .await;
    assert!(query(&nodes, lookup("file")).await.is_ok());
}

/// A node that leaves, or whose disk is full, is removed at its own request. As a new node it could be chosen again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_does_not_begin_anew() {
    let nodes = cluster(3, NamespaceSettings::default()).await;
    let leaver = nodes.iter().position(|node| !node.namespace.is_leader()).unwrap();
    nodes[leaver].namespace.leave(LONG).await.unwrap();
    // Three times as long as a node that was removed otherwise would wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = nodes[leaver].namespace.status();
    assert_eq!((status.uid, status.voter), (nodes[leaver].uid, false));
    assert!(status.applied_index.is_some(), "it keeps what it knows until it has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_hands_over_and_gives_up_its_vote() {
    let nodes = cluster(3, NamespaceSettings::default()).await;
    let leaver = leader_at(&nodes).unwrap();
    nodes[leaver].namespace.leave(LONG).await.unwrap();
    eventually("another leads two voters", || async {
        let leader = leader_at(&nodes)?;
        let voters = nodes[leader].namespace.status().voters;
        (leader != leaver && voters.len() == 2 && !voters.contains_key(&nodes[leaver].uid)).then_some(())
    })
    .await;
}

/// A drain was cancelled when the vote had been given up, or was about to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stays_after_all_votes_again() {
    let nodes = cluster(3, NamespaceSettings::default()).await;
    let leaver = leader_at(&nodes).unwrap();
    let stays = || async {
        eventually("the leader knows that it stays", || async { nodes[leaver].namespace.stay().await.then_some(()) })
            .await;
        eventually("there are three voters and a leader", || async {
            let leader = leader_at(&nodes)?;
            let voters = nodes[leader].namespace.status().voters;
            (voters.len() == 3 && voters.contains_key(&nodes[leaver].uid)).then_some(())
        })
        .await;
    };
    nodes[leaver].namespace.leave(LONG).await.unwrap();
    stays().await;
    // Cancelled while it hands leadership over, or gives up its vote.
    let leader = leader_at(&nodes).unwrap();
    for step in 0..5 {
        let left = nodes[leader].namespace.leave(Duration::from_millis(step * 20)).await;
        tracing::debug!(?left, "an error if the time was too short");
        eventually("it stays", || async { nodes[leader].namespace.stay().await.then_some(()) }).await;
    }
    stays().await;
}

/// A node drained right after it had become a voter. Its knowledge of the voters was older than that, so it left
/// without giving up its vote; when the leader died next, only one of three voters was left.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_only_just_become_a_voter_has_a_vote_to_give_up() {
    let nodes = cluster(3, NamespaceSettings::default()).await;
    let leaver = (0..3).find(|at| !nodes[*at].namespace.is_leader()).unwrap();
    assert!(!nodes[leaver].namespace.request_removal().await, "it is still a voter");
    nodes[leaver].namespace.leave(LONG).await.unwrap();
    assert!(nodes[leaver].namespace.request_removal().await);
    let leader = leader_at(&nodes).unwrap();
    assert!(!nodes[leader].namespace.status().voters.contains_key(&nodes[leaver].uid));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_no_request_is_answered() {
    let settings = NamespaceSettings { call_deadline: Duration::from_secs(1), ..NamespaceSettings::default() };
    let mut nodes = cluster(3, settings).await;
    let leader = nodes.remove(leader_at(&nodes).unwrap());
    for node in nodes {
        node.stop().await;
    }
    eventually("its lease is over", || async { (!leader.namespace.is_leader()).then_some(()) }).await;
    let session = SessionId(1);
    for request in [
        Request::Query(lookup("x")),
        Request::Apply(make(session, 1, "x")),
        Request::Attach { session, claims: Vec::new() },
    ] {
        match leader.ask(&Peer::new(), request).await {
            Response::Unavailable { .. } | Response::NotLeader { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_of_two_continues_at_an_operators_request_and_takes_the_other_back() {
    let mut nodes = cluster(2, NamespaceSettings::default()).await;
    let session = open_session(&nodes, 1).await;
    apply(&nodes, &make(session, 1, "before")).await.unwrap();
    let (second, first) = (nodes.pop().unwrap().stop().await, nodes.pop().unwrap().stop().await);
    let recovered = become_only_voter(first.dir.path(), first.uid, first.ring, 1 << 20).await.unwrap();
    assert_eq!((recovered.former_voters.len(), recovered.may_have_lost), (2, false));

    nodes.push(first.restart().await);
    let made = apply(&nodes, &make(session, 2, "alone")).await.unwrap();
    // The numbers have jumped, and so has the log, whose index is the change counter.
    let Reply::Entry { attr, .. } = made else { panic!("{made:?}") };
    assert!(attr.ino.0 > 1 << 40 && attr.change > 1 << 40, "{attr:?}");
    assert!(open_session(&nodes, 2).await.0 > 1 << 40);
    assert!(query(&nodes, lookup("before")).await.is_ok());
    // The second node's log is the one that the first had. New entries applied to its own tables, whose numbers have
    // not jumped, would lead to other tables.
    nodes.push(second.restart().await);
    eventually("both vote again and agree", || async {
        let [a, b] = [0, 1].map(|at| nodes[at].namespace.services().raft.state().tables());
        let leader = &nodes[leader_at(&nodes)?];
        (a == b && leader.namespace.status().voters.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sessions_receive_changes_in_order_and_before_the_answer() {
    let nodes = [Node::start(1, true, NamespaceSettings::default()).await];
    let (writer, reader) = (open_session_that(true, &nodes, 1).await, open_session_that(true, &nodes, 2).await);
    let (writing, reading) = (Peer::new(), Peer::new());
    for (session, peer) in [(writer, &writing), (reader, &reading)] {
        assert_eq!(nodes[0].ask(peer, Request::Attach { session, claims: Vec::new() }).await, Response::Attached);
    }
    let unknown = Request::Attach { session: SessionId(77), claims: Vec::new() };
    assert_eq!(nodes[0].ask(&Peer::new(), unknown).await, Response::refused(FsError::NoSession));

    let files: Vec<String> = (0..50).map(|number| format!("file {number}")).collect();
    for (sequence, file) in files.iter().enumerate() {
        let op = make(writer, sequence as u64, file);
        let answer = nodes[0].ask(&writing, Request::Apply(op)).await;
        assert!(matches!(answer, Response::Applied(Ok(_), _)), "{answer:?}");
        let received = reading.received.lock().iter().any(|event| is_entry(event, file));
        assert!(received, "{file} was answered before the reader received its event");
    }
    let received: Vec<FeedEvent> =
        reading.received.lock().iter().filter(|event| matches!(event, FeedEvent::Entry { .. })).cloned().collect();
    assert!(received.iter().zip(&files).all(|(event, file)| is_entry(event, file)) && received.len() == files.len());
    assert!(writing.received.lock().is_empty());
}

fn is_entry(event: &FeedEvent, file: &str) -> bool {
    matches!(event, FeedEvent::Entry { name: changed, .. } if *changed == name(file))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_sends_nothing_is_closed_and_one_that_renews_its_lease_is_not() {
    let settings = NamespaceSettings { session_lease: Duration::from_secs(3), ..NamespaceSettings::default() };
    let nodes = [Node::start(1, true, settings).await];
    let (idle, active) = (open_session(&nodes, 1).await, open_session(&nodes, 2).await);
    let (idle_peer, active_peer) = (Peer::new(), Peer::new());
    nodes[0].ask(&idle_peer, Request::Attach { session: idle, claims: Vec::new() }).await;
    nodes[0].ask(&active_peer, Request::Attach { session: active, claims: Vec::new() }).await;
    eventually("the idle session is closed", || async {
        let answer = nodes[0].ask(&active_peer, KEEP_ALIVE).await;
        assert!(matches!(answer, Response::Alive { .. }), "{answer:?}");
        (!nodes[0].namespace.services().raft.state().has_session(idle)).then_some(())
    })
    .await;
    let answer = nodes[0].ask(&idle_peer, KEEP_ALIVE).await;
    assert_eq!(answer, Response::refused(FsError::NoSession));
    let answer = nodes[0].ask(&Peer::new(), Request::Apply(make(idle, 1, "x"))).await;
    assert!(matches!(answer, Response::Applied(Err(FsError::NoSession), _)), "{answer:?}");
}

/// A laptop that slept for some minutes used to lose what it had answered and not logged.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mount_is_suspended_resumes_when_it_attaches_and_is_closed_after_a_long_time() {
    let settings = NamespaceSettings {
        session_lease: Duration::from_secs(2),
        suspended_session: Duration::from_secs(8),
        ..NamespaceSettings::default()
    };
    let nodes = [Node::start(1, true, settings).await];
    let services = nodes[0].namespace.services();
    let state = services.raft.state();
    let (mount, peer) = (open_session_that(true, &nodes, 1).await, Peer::new());
    let attach = || Request::Attach { session: mount, claims: Vec::new() };
    assert_eq!(nodes[0].ask(&peer, attach()).await, Response::Attached);
    apply(&nodes, &make(mount, 1, "file")).await.unwrap();
    apply(&nodes, &by(mount, 2, Change::Unlink { parent: Ino::ROOT, name: name("file"), hold: true })).await.unwrap();
    eventually("it is suspended", || async { state.is_suspended(mount).then_some(()) }).await;
    assert_eq!(state.session_descriptions(9)[0].held_inodes, 0, "it holds nothing");
    let answer = nodes[0].ask(&peer, KEEP_ALIVE).await;
    assert!(matches!(answer, Response::Unavailable { .. }), "it has to attach again: {answer:?}");

    assert_eq!(nodes[0].ask(&Peer::new(), attach()).await, Response::Attached);
    assert!(!state.is_suspended(mount));
    apply(&nodes, &make(mount, 3, "answered before")).await.expect("it is logged in the same session");
    eventually("it is closed", || async { (!state.has_session(mount)).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_unlinked_files_are_deleted_and_an_idle_namespace_logs_nothing() {
    use chordfs_types::chunk::Version;
    let settings = NamespaceSettings { session_lease: Duration::from_secs(4), ..NamespaceSettings::default() };
    let nodes = [Node::start(1, true, settings).await];
    let session = open_session(&nodes, 1).await;
    // A mount whose clock is behind must not shorten the readers' grace period.
    let old = |mut op: NamespaceOp| {
        op.now.secs -= 60;
        op
    };
    let Ok(Reply::Entry { attr, .. }) = apply(&nodes, &old(make(session, 1, "file"))).await else { panic!() };
    let extents = vec![Extent { first: 1, count: 3, version: Version(1) }];
    let commit = Commit { extents, size_at_least: 3 * 4096, ..Commit::default() };
    apply(&nodes, &old(by(session, 2, Change::Commit { ino: attr.ino, commit }))).await.unwrap();
    let unlink = Change::Unlink { parent: Ino::ROOT, name: name("file"), hold: false };
    let unlinked = Instant::now();
    apply(&nodes, &old(by(session, 3, unlink))).await.unwrap();
    eventually("the chunks are deleted", || async { (!nodes[0].deleted.lock().is_empty()).then_some(()) }).await;
    assert!(unlinked.elapsed() > Duration::from_secs(9), "deleted after {:?}", unlinked.elapsed());
    assert_eq!(nodes[0].deleted.lock()[0].count, 3);

    let last = || nodes[0].namespace.status().last_log_index;
    eventually("nothing more is logged", || async {
        let before = last();
        tokio::time::sleep(Duration::from_secs(5)).await;
        (before == last()).then_some(())
    })
    .await;
}

/// A removed file was purged after ten seconds, also if a mount that had it open had not learned of its removal yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_stays_until_every_session_has_answered() {
    let nodes = [Node::start(1, true, NamespaceSettings::default()).await];
    let (own, other) = (open_session(&nodes, 1).await, open_session(&nodes, 2).await);
    let peers = [Peer::new(), Peer::new()];
    for (peer, session) in peers.iter().zip([own, other]) {
        nodes[0].ask(peer, Request::Attach { session, claims: Vec::new() }).await;
    }
    let Ok(Reply::Entry { attr, .. }) = apply(&nodes, &make(own, 1, "file")).await else { panic!() };
    let unlink = Change::Unlink { parent: Ino::ROOT, name: name("file"), hold: false };
    apply(&nodes, &by(own, 2, unlink)).await.unwrap();
    let Response::Alive { applied, .. } = nodes[0].ask(&peers[0], KEEP_ALIVE).await else { panic!() };
    let removed = Instant::now();
    while removed.elapsed() < Duration::from_secs(15) {
        nodes[0].ask(&peers[0], Request::KeepAlive { answered: applied, nothing_open: None }).await;
        nodes[0].ask(&peers[1], KEEP_ALIVE).await;
        assert!(query(&nodes, Query::GetAttr { ino: attr.ino }).await.is_ok(), "after {:?}", removed.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    nodes[0].ask(&peers[1], Request::KeepAlive { answered: applied, nothing_open: None }).await;
    eventually("it is purged", || async { query(&nodes, Query::GetAttr { ino: attr.ino }).await.err() }).await;
}

/// Writers work without pause, while each leader in turn stops and is restarted. At the end every answered operation is
/// there, with the inode of its answer, and none was applied twice.
#[tokio::test(flavor = "multi_thread")]
async fn answered_operations_survive_every_change_of_leader() {
    const WRITERS: u64 = 4;
    const ROUNDS: usize = 3;
    let nodes = cluster(3, NamespaceSettings::default()).await;
    let mut sessions = Vec::new();
    for nonce in 0..WRITERS {
        sessions.push(open_session(&nodes, nonce).await);
    }
    let nodes = Arc::new(RwLock::new(nodes));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        sessions.into_iter().map(|session| tokio::spawn(write_until(stop.clone(), nodes.clone(), session))).collect();
    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let at = eventually("a node leads", || async { leader_at(&nodes.read().await) }).await;
        let stopped = nodes.write().await.remove(at).stop().await;
        println!("round {round}: node {} has stopped", stopped.uid);
        eventually("another leads", || async { leader_at(&nodes.read().await) }).await;
        let back = stopped.restart().await;
        nodes.write().await.push(back);
    }
    stop.store(true, Ordering::Relaxed);
    let mut made = Vec::new();
    for writer in writers {
        made.extend(writer.await.unwrap());
    }
    let nodes = nodes.read().await;
    println!("{} operations were answered", made.len());
    assert!(made.len() > 10);
    for (file, ino) in &made {
        let Ok(Answer::Attr(attr)) = query(&nodes, lookup(file)).await else { panic!("{file} is not there") };
        assert_eq!(attr.ino, *ino, "{file}");
    }
    let distinct: BTreeSet<u64> = made.iter().map(|(_, ino)| ino.0).collect();
    assert_eq!(distinct.len(), made.len());
}

/// Creates one file after the other, each sent until it is answered; an error would mean that it was applied twice.
async fn write_until(stop: Arc<AtomicBool>, nodes: Arc<RwLock<Vec<Node>>>, session: SessionId) -> Vec<(String, Ino)> {
    let (peer, mut made) = (Peer::new(), Vec::new());
    for sequence in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let file = format!("{}-{sequence}", session.0);
        let op = make(session, sequence, &file);
        let reply = eventually("the operation is answered", || async {
            // A node may wrongly believe that it leads; the lock is held for one try only.
            let nodes = nodes.read().await;
            let asked = &nodes[leader_at(&nodes)?];
            let answer = asked.ask(&peer, Request::Apply(op.clone()));
            match tokio::time::timeout(Duration::from_millis(200), answer).await {
                Ok(Response::Applied(reply, _)) => Some(reply),
                _ => None,
            }
        })
        .await;
        match reply {
            Ok(Reply::Entry { attr, created: true }) => made.push((file, attr.ino)),
            other => panic!("{file}: {other:?}"),
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_mounts_survive_a_change_of_leader() {
    let mut nodes = cluster(3, NamespaceSettings::default()).await;
    let addresses: Vec<_> = nodes.iter().map(|node| node.ring).collect();
    let open = |client: &str| {
        let nodes = addresses.clone();
        Session::open(SessionOptions { nodes, client: client.into(), deadline: LONG, holds_leases: true })
    };
    let (writer, feed) = open("writer").await.unwrap();
    forget_at_once(&writer, feed);
    let (reader, mut events) = open("reader").await.unwrap();
    writer.apply(make_change("first")).await.unwrap();
    let receive = async |events: &mut UnboundedReceiver<SessionEvent>, file: &str| loop {
        match tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap() {
            SessionEvent::Feed(events, _) if events.iter().any(|event| is_entry(event, file)) => return,
            // Attaching resets the session's caches, and after a reset the reader queries everything again.
            SessionEvent::Reset if reader.query(lookup(file)).await.is_ok() => return,
            _ => {}
        }
    };
    receive(&mut events, "first").await;

    let ids = (writer.id(), reader.id());
    let old = nodes.remove(leader_at(&nodes).unwrap()).stop().await;
    writer.apply(make_change("second")).await.unwrap();
    assert_eq!(writer.apply(make_change("second")).await, Err(FsError::Exists));
    receive(&mut events, "second").await;
    nodes.push(old.restart().await);
    for file in ["first", "second"] {
        assert!(reader.query(lookup(file)).await.is_ok(), "{file}");
    }
    assert_eq!((writer.id(), reader.id()), ids, "no session was lost");
    writer.close().await.unwrap();
    reader.close().await.unwrap();
}

/// Another mount used to see a name for some milliseconds after its removal was answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_answered_when_every_session_that_remembers_the_name_has_forgotten_it() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let open = |client: &str| Session::open(mount_options(&nodes, client));
    let ((writer, feed), (reader, mut events)) = (open("writer").await.unwrap(), open("reader").await.unwrap());
    forget_at_once(&writer, feed);
    writer.apply(make_change("unseen")).await.unwrap();
    assert_eq!(reader.query(lookup("file")).await, Err(FsError::NoEntry));
    while events.try_recv().is_ok() {
        reader.note_handled();
    }
    assert!(reader.memory_usable_for() > Duration::ZERO);
    let removal = tokio::spawn({
        let writer = writer.clone();
        async move { writer.apply(make_change("file")).await }
    });
    let done = loop {
        match tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap() {
            SessionEvent::Feed(events, done) if events.iter().any(|event| is_entry(event, "file")) => break done,
            _ => reader.note_handled(),
        }
    };
    assert_eq!(reader.memory_usable_for(), Duration::ZERO, "the event is not handled yet");
    let third = open("third").await.unwrap().0;
    let asked = tokio::time::timeout(Duration::from_millis(300), third.query(lookup("file"))).await;
    assert!(asked.is_err() && !removal.is_finished(), "the reader still remembers that there is no such name");
    reader.note_handled();
    drop(done);
    assert!(removal.await.unwrap().is_ok());
    assert!(third.query(lookup("file")).await.is_ok());
}

/// A mount that is stopped delays the others for as long as its leases last, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_acknowledges_nothing_loses_its_leases() {
    let nodes = cluster(1, NamespaceSettings::default()).await;
    let (writing, silent) = (Peer::new(), Peer::new());
    let (writer, session) = (open_session(&nodes, 1).await, open_session_that(true, &nodes, 2).await);
    assert_eq!(nodes[0].ask(&silent, Request::Attach { session, claims: Vec::new() }).await, Response::Attached);
    let absent = nodes[0].ask(&silent, Request::Query(lookup("file"))).await;
    assert!(matches!(&absent, Response::Answered(Err(FsError::NoEntry), granted) if granted.remember), "{absent:?}");
    let answer = nodes[0].ask(&writing, Request::Apply(make(writer, 1, "file"))).await;
    assert!(matches!(answer, Response::Applied(Ok(_), _)), "{answer:?}");
    assert!(silent.is_closed(), "it has missed something, and has to attach again");
    let next = tokio::time::timeout(LEASE / 2, nodes[0].ask(&writing, Request::Apply(make(writer, 2, "other"))));
    assert!(matches!(next.await, Ok(Response::Applied(Ok(_), _))), "nobody holds a lease any longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_lists_the_sessions_and_measures_what_it_does() {
    let nodes = cluster(3, NamespaceSettings::default()).await;
    let addresses: Vec<_> = nodes.iter().map(|node| node.ring).collect();
    let options = SessionOptions { holds_leases: true, ..SessionOptions::new(addresses, "host:/mnt") };
    let (session, _feed) = Session::open(options).await.unwrap();
    session.apply(make_change("file")).await.unwrap();
    let listed = eventually("the leader lists it", || async {
        let leader = &nodes[leader_at(&nodes)?].namespace;
        leader.sessions()?.into_iter().find(|listed| !listed.addresses.is_empty())
    });
    let listed = listed.await;
    assert_eq!((listed.id, listed.client.as_str(), listed.held_files), (session.id().0, "host:/mnt", 0));
    assert!((1..=60).contains(&listed.lease_seconds_left), "{listed:?}");
    for node in &nodes {
        assert!(node.namespace.append_latency().take().count > 0, "every voter keeps the log");
        let is_leader = node.namespace.is_leader();
        assert_eq!(node.namespace.sessions().is_some(), is_leader);
        assert_eq!(node.namespace.operation_latency().take().count > 0, is_leader);
    }
    session.close().await.unwrap();
}

fn mount_options(nodes: &[Node], client: &str) -> SessionOptions {
    let addresses = nodes.iter().map(|node| node.ring).collect();
    SessionOptions { deadline: LONG, holds_leases: true, ..SessionOptions::new(addresses, client) }
}

/// Handles the events of a session as a mount does whose kernel remembers nothing.
fn forget_at_once(session: &Session, mut events: UnboundedReceiver<SessionEvent>) {
    let session = session.clone();
    tokio::spawn(async move {
        while events.recv().await.is_some() {
            session.note_handled();
        }
    });
}

fn make_change(file: &str) -> Change {
    make(SessionId(0), 0, file).change
}
