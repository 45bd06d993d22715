//! Reconciling two holders copies each differing chunk once.

use chordfs_replication::arc_comparison::CopyAmount;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::replica::reconcile::CopyCounts;

#[tokio::test]
async fn equal_holders_exchange_one_sum() {
    let (a, b) = (TestNode::start(9).await, TestNode::start(20).await);
    a.put(&chunks(1..=5000));
    b.put(&chunks((1..=5000).rev()));
    assert_eq!(a.repair().reconcile(&a.view(RingId(9)), &b.node).await.unwrap(), CopyCounts::default());
    assert_eq!((b.asked.count("/chunks/digests"), b.asked.all()), (1, 1));
}

#[tokio::test]
async fn a_node_that_was_away_gets_only_the_chunks_that_it_missed() {
    let (a, b) = (TestNode::start(9).await, TestNode::start(20).await);
    a.put(&chunks(1..=20_000));
    b.put(&chunks(1..=19_900));
    let moved = a.repair().reconcile(&a.view(RingId(9)), &b.node).await.unwrap();
    assert_eq!(moved, CopyCounts { pushed: 100, pulled: 0 });
    assert_eq!(a.all(), b.all());
    assert!(b.asked.count("/chunks/digests") <= 12, "{:?}", b.asked.requests.lock());
    assert!(b.asked.all() <= 20, "{:?}", b.asked.requests.lock());
}

/// A node was killed while files were deleted, and came back with their chunks. It offered them to the other holders in
/// every round; they refused them for ten minutes, until their tombstones expired, and then stored them again.
#[tokio::test]
async fn chunks_deleted_while_a_holder_was_away_are_deleted_there_too() {
    let (a, b) = (TestNode::start(9).await, TestNode::start(20).await);
    let deleted = |first, count| {
        let chunk = chunks([1]).remove(0);
        [chordfs_types::chunk::ChunkRun { file: chunk.file, first, count, version: chunk.id.version }]
    };
    for node in [&a, &b] {
        node.put(&chunks(1..=3000));
    }
    a.store.delete(&deleted(1, 1200)).unwrap();
    b.store.delete(&deleted(2001, 900)).unwrap();
    let moved = a.repair().reconcile(&a.view(RingId(9)), &b.node).await.unwrap();
    assert_eq!(moved, CopyCounts::default(), "nothing is copied");
    assert_eq!((a.all().len(), a.all()), (900, b.all()));
    a.put(&chunks(2001..=2500));
    b.put(&chunks(1..=500));
    assert_eq!((a.all().len(), b.all().len()), (900, 900), "the deletions are final");
}

#[tokio::test]
async fn random_holders_become_equal_in_the_arc_and_only_there() {
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let (a, b) = (TestNode::start(random.random()).await, TestNode::start(20).await);
        let mut some = |part: f64| (1..=4000).filter(|_| random.random_bool(part)).collect::<Vec<u32>>();
        a.put(&chunks(some(0.9)));
        b.put(&chunks(some(0.1 + 0.15 * seed as f64)));
        let view = a.view(RingId(random.random()));
        let (arc, other) = (view.arc(), RingArc::new(view.arc().upto, view.arc().after));
        let (ours, theirs) = (a.ids(arc), b.ids(arc));
        let outside = (a.ids(other), b.ids(other));
        let missing = |from: &[ChunkAt], of: &[ChunkAt]| from.iter().filter(|chunk| !of.contains(chunk)).count() as u64;
        let expected = CopyCounts { pushed: missing(&ours, &theirs), pulled: missing(&theirs, &ours) };
        assert_eq!(a.repair().reconcile(&view, &b.node).await.unwrap(), expected, "seed {seed}");
        assert_eq!(a.ids(arc), b.ids(arc), "seed {seed}");
        assert_eq!((a.ids(other), b.ids(other)), outside, "seed {seed}");
        let status = a.traffic.status();
        let moved = (status.outgoing.chunks_moved, status.incoming.chunks_moved);
        assert_eq!(moved, (expected.pushed, expected.pulled), "seed {seed}");
        assert_eq!((status.incoming.chunks_left, status.outgoing.chunks_left), (0, 0), "seed {seed}");
    }
}

#[tokio::test]
async fn two_holders_that_fill_the_same_node_share_the_work() {
    let (a, b, new) = (TestNode::start(9).await, TestNode::start(20).await, TestNode::start(30).await);
    a.put(&chunks(1..=6000));
    b.put(&chunks(1..=6000));
    let (of_a, of_b) = (a.repair(), b.repair());
    let (view_a, view_b) = (a.view(RingId(9)), b.view(RingId(20)));
    let (by_a, by_b) = tokio::join!(of_a.reconcile(&view_a, &new.node), of_b.reconcile(&view_b, &new.node));
    assert_eq!(by_a.unwrap().plus(by_b.unwrap()), CopyCounts { pushed: 6000, pulled: 0 });
    assert_eq!((new.all().len(), new.traffic.status().incoming.chunks_moved), (6000, 6000));
    assert_eq!(new.traffic.status().incoming.chunks_left, 0, "chunks sent by the other holder are no longer expected");
}

/// Some of the announced chunks have come from another node, or were deleted, before they were sent.
#[tokio::test]
async fn a_node_that_expects_too_many_chunks_is_corrected_by_the_next_round() {
    let (a, b) = (TestNode::start(9).await, TestNode::start(20).await);
    a.put(&chunks(1..=500));
    let (repair, view, all) = (a.repair(), a.view(RingId(9)), a.all());
    let more = CopyAmount::of(&all).and(CopyAmount { chunks: 70, bytes: 7000 });
    assert_eq!(repair.push(&view, &b.node, &all, more).await.unwrap(), 500);
    assert_eq!(b.traffic.status().incoming.chunks_left, 70);
    assert_eq!(repair.reconcile(&view, &b.node).await.unwrap(), CopyCounts::default());
    assert_eq!((b.traffic.status().incoming.chunks_left, a.traffic.expecting_peers()), (0, vec![]));
}

#[tokio::test]
async fn a_chunk_that_two_holders_have_is_fetched_from_one() {
    let (new, b, c) = (TestNode::start(9).await, TestNode::start(20).await, TestNode::start(30).await);
    b.put(&chunks(1..=6000));
    c.put(&chunks(1..=6000));
    let (repair, view) = (new.repair(), new.view(RingId(9)));
    let (from_b, from_c) = tokio::join!(repair.reconcile(&view, &b.node), repair.reconcile(&view, &c.node));
    assert_eq!(from_b.unwrap().plus(from_c.unwrap()), CopyCounts { pushed: 0, pulled: 6000 });
    assert_eq!((new.all(), new.traffic.status().incoming.chunks_moved), (b.all(), 6000));
}

#[tokio::test]
async fn a_chunk_that_a_writer_is_sending_is_not_sent_again() {
    let (a, b) = (TestNode::start(9).await, TestNode::start(20).await);
    a.put(&chunks(1..=50));
    let replica_write = a.traffic.begin_write(&b.node, batch(&chunks(1..=40)));
    let (repair, view) = (a.repair(), a.view(RingId(9)));
    assert_eq!(repair.reconcile(&view, &b.node).await.unwrap().pushed, 10);
    drop(replica_write);
    assert_eq!(repair.reconcile(&view, &b.node).await.unwrap().pushed, 40);
}

/// First the node that is filled crashes, then the node that fills it. The chunks that have arrived stay and are not
/// sent again.
#[tokio::test]
async fn filling_continues_after_a_crash_of_either_side() {
    let (a, new) = (TestNode::start(9).await, TestNode::start(20).await);
    a.put(&chunks(1..=9000));
    new.asked.puts_left.store(3, SeqCst);
    a.repair().reconcile(&a.view(RingId(9)), &new.node).await.unwrap_err();
    let first = new.all().len() as u64;
    assert!(first > 0 && first < 9000, "{first}");

    let new = new.restart().await;
    assert_eq!(new.all().len() as u64, first);
    new.asked.puts_left.store(3, SeqCst);
    a.repair().reconcile(&a.view(RingId(9)), &new.node).await.unwrap_err();
    let second = new.all().len() as u64;
    assert!(second > first && second < 9000, "{second}");
    assert_eq!(a.traffic.status().outgoing.chunks_moved, second, "no chunk was sent twice");

    let a = a.restart().await;
    new.asked.puts_left.store(i64::MAX, SeqCst);
    let moved = a.repair().reconcile(&a.view(RingId(9)), &new.node).await.unwrap();
    assert_eq!(moved, CopyCounts { pushed: 9000 - second, pulled: 0 });
    assert_eq!(a.all(), new.all());
}

#[tokio::test]
async fn the_rate_is_kept_and_both_sides_report_progress() {
    const RATE: u64 = 400_000;
    let slow = RateLimit(Some(RATE));
    let a = TestNode::start_in(9, Arc::new(tempfile::tempdir().unwrap()), slow).await;
    let new = TestNode::start(20).await;
    a.put(&chunks(1..=6000));
    let bytes = a.store.sums(&[whole()])[0].bytes;
    let (repair, view) = (a.repair(), a.view(RingId(9)));
    let start = tokio::time::Instant::now();
    let mut made = std::pin::pin!(repair.reconcile(&view, &new.node));
    let mut seen = Vec::new();
    let moved = loop {
        tokio::select! {
            moved = &mut made => break moved.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                seen.push((a.traffic.status().outgoing, new.traffic.status().incoming));
            }
        }
    };
    assert_eq!(moved.pushed, 6000);
    // The first batch is sent at once, and the last one as soon as those before it are paid for.
    let paid = (bytes - 2 * 1024 * 140) as f64 / RATE as f64;
    assert!(start.elapsed().as_secs_f64() > paid * 0.9, "{bytes} bytes in {:?}", start.elapsed());
    let both = |(out, come): &&(_, _)| {
        let under_way =
            |flow: &chordfs_types::admin::TransferProgress| flow.chunks_left > 0 && flow.seconds_left.is_some();
        under_way(out) && under_way(come)
    };
    assert!(seen.iter().filter(both).count() >= 5, "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0].0.chunks_left >= pair[1].0.chunks_left || pair[0].0.chunks_left == 0));
    assert_eq!(new.traffic.status().incoming.chunks_left, 0);
}

#[tokio::test]
async fn chunks_are_fetched_even_from_a_holder_that_stores_none() {
    let (a, b) = (TestNode::start(9).await, TestNode::start(20).await);
    a.put(&chunks(1..=2000));
    b.put(&chunks(1500..=2500));
    b.asked.puts_left.store(0, SeqCst);
    a.repair().reconcile(&a.view(RingId(9)), &b.node).await.unwrap_err();
    assert_eq!(a.all().len(), 2500);
}

/// The owner's predecessor died while the owner filled a holder for hours: until the end of that round the chunks of
/// the predecessor had only two copies.
#[tokio::test]
async fn a_long_round_is_interrupted_when_the_duties_of_the_node_change() {
    let owner = TestNode::start_in(100, Arc::new(tempfile::tempdir().unwrap()), RateLimit(Some(1))).await;
    let (slow, new) = (TestNode::start(200).await, TestNode::start(300).await);
    owner.put(&chunks(1..=4000));
    let view = |holder: &TestNode| Neighbours { successors: vec![holder.node], ..owner.view(RingId(0)) };
    let (changes, neighbours) = watch::channel(view(&slow));
    let stop = CancellationToken::new();
    let repair = Repair { neighbours, ..owner.repair() };
    let running = AbortOnDropHandle::new(tokio::spawn(repair.run(stop.clone())));
    let compared = async |node: &TestNode| {
        while node.asked.all() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, compared(&slow)).await.expect("the first holder is compared with");
    changes.send_replace(view(&new));
    tokio::time::timeout(DEADLINE, compared(&new)).await.expect("so is the next one");
    assert!(slow.all().len() < 4000, "the round had not come to its end");
    stop.cancel();
    running.await.expect("repair ends");
}

/// A restart of a node made its neighbours copy all that it held to the next node, and drop it again.
#[tokio::test]
async fn a_node_that_may_only_be_restarting_is_not_replaced() {
    for (restart_grace, is_replaced) in [(DEADLINE, false), (Duration::ZERO, true)] {
        let [owner, second, third, next] = [9, 20, 30, 40].map(TestNode::start);
        let (owner, second, third, next) = tokio::join!(owner, second, third, next);
        for node in [&owner, &second, &third] {
            node.put(&chunks(1..=500));
        }
        let view = |successors: &[&TestNode]| Neighbours {
            predecessor: Some(NodeRef { id: RingId(10), ..next.node }), // It owns nearly all keys.
            node: owner.node,
            successors: successors.iter().map(|node| node.node).collect(),
        };
        let (views, neighbours) = watch::channel(view(&[&second, &third, &next]));
        let repair = Repair { neighbours, restart_grace, period: Duration::from_millis(50), ..owner.repair() };
        let _repair = AbortOnDropHandle::new(tokio::spawn(repair.run(CancellationToken::new())));
        eventually(|| owner.traffic.status().compared).await;
        views.send_replace(view(&[&second, &next]));
        eventually(|| next.asked.count("/chunks/digests") > 1).await;
        if is_replaced {
            eventually(|| next.all() == owner.all()).await;
        } else {
            eventually(|| owner.traffic.status().outgoing.chunks_left == 500).await;
            assert_eq!(next.all(), []);
        }
    }
}

async fn eventually(is_so: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
